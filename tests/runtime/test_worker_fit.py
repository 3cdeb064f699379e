"""Training on several workers: each trains on its share of every batch."""

import json

import numpy as np
import process
import pytest
import tensorflow as tf
from followed import STEPS, UNEVEN, assert_close, assert_same_metrics, load, one_device
from run_files import checkpoints, step_files

from divtf.runtime import worker_fit
from divtf.storage import run_directory


@pytest.fixture(scope="module", autouse=True)
def tiny_world():
    with pytest.MonkeyPatch.context() as patch:
        process.register(patch)
        yield


def test_shares_are_the_whole_batch_each_image_once():
    batches = [np.arange(13), np.arange(100, 106), np.arange(200, 202)]
    endless = tf.data.Dataset.from_generator(
        lambda: ((b, -b) for b in batches), output_signature=2 * (tf.TensorSpec([None], tf.int64),)
    ).repeat()
    for number, count in ((1, 1), (2, 1), (3, 1), (4, 2), (6, 3)):
        own = [
            list(worker_fit.shares(endless, first, count, number).take(3 * count).as_numpy_iterator())
            for first in range(0, number, count)
        ]
        for place, batch in enumerate(batches):
            parts = [part for worker in own for part in worker[place * count : (place + 1) * count]]
            assert len(parts) == number
            np.testing.assert_array_equal(np.concatenate([x for x, _ in parts]), batch)
            np.testing.assert_array_equal(np.concatenate([y for _, y in parts]), -batch)
            sizes = [len(x) for x, _ in parts]
            assert max(sizes) - min(sizes) <= 1


def test_two_workers_follow_one_process_each_on_its_own_share(tmp_path):
    """One SGD trajectory and its records; shares that make up the batches; and only the chief writes."""
    values = UNEVEN | {"sgd": 0.05}
    expected, batches = one_device(tmp_path / "one", **values)
    found = process.ended(
        process.start_workers(
            "train",
            directory=tmp_path / "two",
            of_worker=lambda index: {"seen": tmp_path / f"seen-{index}.npz", "writes": index == 0},
            **values,
        )
    )
    for code, out, err in found:
        assert code == 0, err[-3000:]
        assert_close(json.loads(out.splitlines()[-1]), expected)
    assert_same_metrics(tmp_path / "two", tmp_path / "one")
    assert checkpoints(tmp_path / "two") == step_files(STEPS)
    assert len(list((tmp_path / "two" / run_directory.TENSORBOARD).iterdir())) == 1
    seen = [load(tmp_path / f"seen-{index}.npz") for index in (0, 1)]
    assert [len(own) for own in seen] == [STEPS, STEPS] == [len(batches)] * 2
    for name, batch in batches.items():
        first, second = seen[0][name], seen[1][name]
        np.testing.assert_array_equal(np.concatenate([first, second]), batch)
        assert 0 <= len(second) - len(first) <= 1


@pytest.mark.slow
def test_whole_run_on_two_workers_is_evaluated_by_the_chief(tmp_path):
    """Mode ens_div: static model, target and surrogate are trained by both, in one order."""
    values = {"run_dir": tmp_path / "run", "mode": "ens_div", "epochs": 1, "attacks": ["fgsm"]}
    (chief, out, err), (other, others_out, others_err) = process.ended(process.start_workers("run", **values))
    assert (chief, other) == (0, 0), err[-2000:] + others_err[-2000:]
    assert "T_Ens+Div" in out and (tmp_path / "run" / run_directory.RESULTS).exists()
    assert (
        others_out.splitlines()[-2]
        == "this worker's part, the training, is done; the chief evaluates by itself"
    )
    assert len(list((tmp_path / "shared-models").iterdir())) == 2


@pytest.mark.slow
def test_workers_of_different_configurations_do_not_train_together(tmp_path):
    started = process.start_workers(
        "run",
        of_worker=lambda index: {"seed": index},
        run_dir=tmp_path / "run",
        mode="base",
        attacks=[],
    )
    (chief, _, err), (other, _, others_err) = process.ended(started)
    assert (chief, other) == (2, 2)
    assert "the chief's configuration on every worker" in others_err
    assert "Received: worker 1 (localhost:" in err
