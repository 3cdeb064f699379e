"""Fixtures: the lines and the bars of progress."""

import contextlib

import pytest
from logged import logged


@pytest.fixture
def lines():
    """The lines of progress, as they come."""
    with logged() as lines:
        yield lines


@pytest.fixture
def bars(monkeypatch):
    """For each bar what it says, of how many steps it is, and how many have been made when it is closed."""
    from divtf.runtime import progress

    closed = []

    @contextlib.contextmanager
    def bar(what, total):
        made = []
        yield type("Bar", (), {"update": staticmethod(made.append)})
        closed.append((what, total, sum(made)))

    monkeypatch.setattr(progress, "bar", bar)
    return closed
