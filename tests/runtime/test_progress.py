"""Lines of progress, their prefixes, and bars where a terminal is."""

import io
import logging
import sys

import pytest
from logged import logged

from divtf.runtime import logs, progress

LOG = logs.get_logger("divtf.somewhere")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Call it for a standard error that is a terminal on which bars are shown."""
    monkeypatch.setattr(progress, "_SHOWN", False)  # Put back at the end.

    def open_terminal():  # In the test: pytest puts its own standard error there when the test begins.
        monkeypatch.setattr(sys, "stderr", Terminal())
        progress.show_bars()
        return sys.stderr

    return open_terminal


def test_lines_are_shown_while_asked_for(capsys):
    LOG.info("before")
    with logs.shown():
        LOG.info("a line of 100 %")
    LOG.info("after")
    assert capsys.readouterr().out == "a line of 100 %\n"


def test_root_handlers_do_not_repeat_what_is_shown(caplog, capsys):
    with caplog.at_level(logging.INFO), logs.shown():
        LOG.info("once")
    assert not caplog.messages and capsys.readouterr().out == "once\n"
    with caplog.at_level(logging.INFO):
        LOG.info("for whoever has a handler")
    assert caplog.messages == ["for whoever has a handler"]


def test_prefixes_stand_before_lines_and_nest():
    with logged() as lines:
        with logs.prefixed("surrogate"):
            LOG.info("trains")
            with logs.prefixed("part"):
                LOG.info("goes on")
        LOG.info("is done")
    assert lines == ["[surrogate] trains", "[surrogate] [part] goes on", "is done"]


def test_bar_shows_what_is_left(terminal):
    shown = terminal()
    with progress.bar("training steps", 40, 10) as bar:
        bar.update(5)
        bar.refresh()
    drawn = shown.getvalue()
    assert "training steps" in drawn and "15/40" in drawn and "<" in drawn  # The time left stands after <.


def test_lines_stand_above_a_bar(terminal, capsys):
    terminal()
    with progress.bar("training steps", 4), logs.shown():
        LOG.info("epoch 1/2 trained")
    assert capsys.readouterr().out == "epoch 1/2 trained\n"


def test_no_bar_where_no_terminal_is(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(progress, "_SHOWN", False)
    progress.show_bars()
    assert not progress.are_shown()
    with progress.bar("training steps", 4) as bar:
        bar.update(4)
    assert sys.stderr.getvalue() == ""


def test_nothing_is_left_behind_and_nothing_said_twice(capsys):
    LOG.info("unheard, which logging remembers")
    with logs.shown(), logs.shown():
        LOG.info("once")
    LOG.info("unheard again")
    assert capsys.readouterr().out == "once\n"


def test_closed_standard_error_is_no_terminal(monkeypatch):
    monkeypatch.setattr(progress, "_SHOWN", True)
    monkeypatch.setattr(sys, "stderr", None)
    progress.show_bars()
    assert not progress.are_shown()
