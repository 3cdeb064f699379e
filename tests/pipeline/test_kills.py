"""Nothing is lost: killed anywhere, a run ends as if undisturbed."""

import signal

import pytest
from endings import assert_ends_as
from faulty import OFTEN, Fault, run


def killed(directory, fault, *arguments):
    done = run(directory, *arguments, fault=fault)
    assert done.process.exitcode == -signal.SIGKILL, done.err


BATCH = "training.callbacks.Recorder.on_train_batch_end"


def test_killed_in_an_epoch_in_a_checkpoint_and_in_an_attack_it_ends_as_if_never_killed(half_done, whole):
    killed(half_done / "run", Fault(BATCH, 4, "after"), OFTEN)
    killed(half_done / "run", Fault("step-00000018.keras", when="within"))
    killed(half_done / "run", Fault("attacks.attack.Attack._check_result", 2, "after"))
    done = run(half_done / "run")
    assert (done.code, done.err) == (0, "")
    assert_ends_as(half_done, whole)


# In the order in which a run comes by them; with OFTEN each batch makes a checkpoint.
KILLS = [
    (Fault("config.json", 1, "within"), ()),
    (Fault("environment.json", 1, "within"), ()),
    # The static model.
    (Fault("config.json", 2, "after"), ()),
    (Fault(BATCH, 1, "after"), ()),
    (Fault(BATCH, 2, "after"), (OFTEN,)),
    (Fault("step-*.keras", 1, "within"), ()),
    (Fault("step-*.keras", 2, "after"), (OFTEN,)),
    (Fault("step-*.json", 2, "within"), (OFTEN,)),
    (Fault("training.checkpoints.Checkpoints._prune", 3), (OFTEN,)),
    (Fault("ensembles.ensemble.Ensemble.evaluate", 2), ()),
    (Fault("evaluation.adversarial_sets.AdversarialSets._make", 1), ()),
    (Fault("fgsm-1-*.npy", 1, "within"), ()),
    (Fault("fgsm-1-*.npy", 1, "after"), ()),
    (Fault("fgsm-1-*.json", 1, "within"), ()),
    # The target.
    (Fault(BATCH, 8, "after"), ()),
    (Fault(BATCH, 11, "after"), (OFTEN,)),
    (Fault("metrics.jsonl", 3, "within"), ()),
    (Fault("metrics.jsonl", 3, "after"), ()),
    (Fault(BATCH, 22, "after"), ()),
    (Fault("step-00000017.json", 1, "after"), (OFTEN,)),
    (Fault("step-00000018.keras", 1, "within"), ()),
    (Fault("step-00000018.json", 1, "after"), ()),
    # The surrogate.
    (Fault("environment.json", 3, "after"), ()),
    (Fault(BATCH, 26, "after"), ()),
    (Fault("step-00000006.keras", 2, "within"), ()),
    # Its images, and what is measured with them.
    (Fault("attacks.attack.Attack._check_result", 2, "after"), ()),
    (Fault("rfgsm-*.npy", 1, "within"), ()),
    (Fault("rfgsm-*.json", 1, "after"), ()),
    (Fault("pipeline.record.gradient_statistics", 1), ()),
    (Fault("results.json", 1, "within"), ()),
    # The report.
    (Fault("reporting.report.write_report", 1), ()),
    (Fault("report.md", 1, "within"), ()),
    (Fault("coherence.png", 1, "within"), ()),
]


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "options"), KILLS, ids=lambda value: str(value or "seldom"))
def test_killed_anywhere_it_ends_as_if_never_killed(fault, options, whole, tmp_path):
    killed(tmp_path / "run", fault, *options)
    done = run(tmp_path / "run")
    assert (done.code, done.err) == (0, "")
    assert_ends_as(tmp_path, whole)


@pytest.mark.slow
def test_killed_in_the_export_it_exports_again(copied):
    killed(copied / "run", Fault("ensembles.serving.parity.compare"), "--export")
    assert list((copied / "run").glob(".partial-*"))
    assert run(copied / "run", "--export").code == 0
    assert (copied / "run" / "saved_model" / "saved_model.pb").exists()
    assert not list(copied.rglob(".partial-*"))
