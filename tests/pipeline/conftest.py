"""Runs of `faulty.py` that nothing disturbed, or that are half done."""

import shutil

import pytest
from endings import lose
from faulty import run


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The root of a run that nothing disturbed."""
    root = tmp_path_factory.mktemp("whole")
    done = run(root / "run")
    assert (done.code, done.err) == (0, "")
    return root


@pytest.fixture
def copied(whole, tmp_path):
    """A finished run, to damage."""
    return shutil.copytree(whole, tmp_path / "copy")


@pytest.fixture
def half_done(copied):
    """A run whose target is trained half; its static model and surrogate are there."""
    lose(copied, "run/results.json", "run/*.png", "run/checkpoints/step-00000018.*")
    lose(copied, "shared-models/*-seed1000-*/adversarial/*")
    return copied
