"""The command for transfer matrices, from finished runs to records and picture."""

import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

from divtf.commands import transfer_matrix
from divtf.errors import InputError
from divtf.pipeline import experiment, finished, shared_paths, trained
from divtf.reporting import captions
from divtf.reporting.figures.transfer_matrix import transfer_matrix_figure
from divtf.reporting.transfer_matrix import TransferMatrix
from divtf.storage import checked_json, digests, run_directory
from divtf.storage.records import WORST_CASE, TransferMatrixRecord, TransferResult

EPSILONS = (0.1, 0.3)

pytestmark = pytest.mark.usefixtures("tiny_world")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Finished runs of two targets with surrogate and static model; their matrix on 20 of 24 test images."""
    root = tmp_path_factory.mktemp("matrix")
    for mode in ("base", "ens"):
        experiment.run(config_of(root, mode))
    transfer_matrix.main(root, 20, ["fgsm"])
    return root


@pytest.fixture
def no_attack(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("attacked again")

    monkeypatch.setattr(transfer_matrix, "_attack", fail)


def weights(root, name):
    """The members' weights of a source, float64."""
    config = config_of(root, {"T_Base": "base"}.get(name, "ens"))
    path = root / config.mode
    if name in ("surrogate", "static model"):
        seed = config.surrogate_seed if name == "surrogate" else config.static_seed
        config = config.base(seed)
        path = shared_paths.directory_of(config)
    ensemble = trained.restore(config, tiny.data().spec, path)
    return tiny.weights(ensemble)


def config_of(root, mode):
    return tiny.config(mode=mode, run_dir=str(root / mode), attacks=("fgsm",), batch_size=24)


def fgsm(members, x, y, epsilon):
    """x + epsilon sign(d/dx of the members' mean cross-entropy), held to [0, 1]; Equation 2."""
    gradient = np.mean([gradient(y) for gradient, _ in tiny.forward(members, x)], axis=0)
    return np.clip(x + epsilon * np.sign(gradient), 0, 1)


def test_every_cell_is_that_of_fgsm_written_out_in_numpy(root):
    x, y = tiny.data().test_set(20)
    x = x.reshape(20, -1).astype("float64")
    matrix = TransferMatrix(transfer_matrix.collect(root))
    assert (matrix.targets, matrix.sources) == (
        ["T_Base", "T_Ens"],
        ["T_Base", "T_Ens", "surrogate", "static model"],
    )
    seen = set()
    for source in matrix.sources:
        for epsilon in EPSILONS:
            x_adv = fgsm(weights(root, source), x, y, epsilon)
            for target in matrix.targets:
                mean = np.mean([p for _, p in tiny.forward(weights(root, target), x_adv)], axis=0)
                clean = np.mean([p for _, p in tiny.forward(weights(root, target), x)], axis=0)
                right = [probabilities.argmax(axis=1) == y for probabilities in (clean, mean)]
                accuracy = 100 * np.all(right, axis=0).mean()
                assert matrix.accuracy(source, target, epsilon) == pytest.approx(accuracy), (source, target)
                seen.add(accuracy)
    assert len(seen) > 3, "the cells tell sources, targets and epsilons apart"


def test_the_surrogates_row_is_that_of_table_2(root, tmp_path):
    """On all test images, as `results.json` has it; with the epsilons of the runs."""
    shutil.copytree(root, tmp_path / "copy")
    transfer_matrix.main(tmp_path / "copy", 1000, ["fgsm"])
    matrix = TransferMatrix(transfer_matrix.collect(tmp_path / "copy"))
    for path in finished.directories(root):
        record = finished.read_record(path)
        for epsilon in EPSILONS:
            expected = 100 * record.result(WORST_CASE, epsilon).accuracy
            assert matrix.accuracy("surrogate", record.target, epsilon) == pytest.approx(expected)


def test_records_say_what_they_are_of(root):
    records = transfer_matrix.collect(root)
    assert [record.target for record in records] == ["T_Base", "T_Ens"]
    written = [
        TransferMatrixRecord.from_json(record) for record in checked_json.read_json(root / "transfer.json")
    ]
    assert written == records
    for record in records:
        assert {"command", "commit", "weights"} <= set(record.provenance)
        assert {"command", "commit", "tensorflow"} <= set(record.analysis)
        checkpoint = max((root / "ens" / run_directory.CHECKPOINTS).glob("*.keras"))
        assert record.sources["T_Ens"] == digests.file_digest(checkpoint)
        assert {result.total for result in record.results} == {20}
    assert (root / "transfer.png").read_bytes().startswith(b"\x89PNG")


def test_finished_matrix_is_not_made_again(root, no_attack, capsys):
    before = {path: path.read_bytes() for path in root.glob("**/transfer.*")}
    assert len(before) == 4
    transfer_matrix.main(root, 20, ["fgsm"])
    assert {path: path.read_bytes() for path in root.glob("**/transfer.*")} == before
    printed = capsys.readouterr().out
    assert "tiny on stripes, epsilon 0.3, images of static model: T_Base" in printed
    assert f"transfer       {root / 'transfer.png'}" in printed


def test_what_was_not_measured_yet_is(root, no_attack):
    for images, attacks in ((19, ["fgsm"]), (20, ["ifgsm"]), (20, ["fgsm", "ifgsm"])):
        with pytest.raises(AssertionError, match="attacked again"):
            transfer_matrix.main(root, images, attacks)


@pytest.mark.parametrize("retrained", ["base", "shared-models/*-seed2000-*"])
def test_ensembles_that_were_trained_anew_are_attacked_again(root, no_attack, tmp_path, retrained):
    shutil.copytree(root, tmp_path / "copy")
    transfer_matrix.main(tmp_path / "copy", 20, ["fgsm"])
    (directory,) = (tmp_path / "copy").glob(retrained)
    checkpoint = max((directory / run_directory.CHECKPOINTS).glob("*.keras"))
    checkpoint.write_bytes(checkpoint.read_bytes() + b"!")
    with pytest.raises(AssertionError, match="attacked again"):
        transfer_matrix.main(tmp_path / "copy", 20, ["fgsm"])
    with pytest.raises(InputError, match=r"give divtf.transfer_matrix again"):
        transfer_matrix.collect(tmp_path / "copy")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"correct": ', '"correct": 1', 1),
        lambda text: text[: len(text) // 2],
        lambda text: '{"schema": 99}',
        lambda text: "[]",
    ],
)
def test_damaged_columns_are_measured_again(root, no_attack, tmp_path, change):
    shutil.copytree(root, tmp_path / "copy")
    path = tmp_path / "copy" / "ens" / run_directory.TRANSFER_MATRIX
    path.write_text(change(path.read_text()))
    with pytest.raises(AssertionError, match="attacked again"):
        transfer_matrix.main(tmp_path / "copy", 20, ["fgsm"])


def test_targets_with_different_surrogates_are_refused(root, no_attack, tmp_path):
    shutil.copytree(root, tmp_path / "copy")
    path = tmp_path / "copy" / "ens" / run_directory.CONFIG
    checked_json.write_json(path, checked_json.read_json(path) | {"surrogate_seed": 7})
    with pytest.raises(InputError, match=r"Expected one surrogate for all of .*base, .*ens"):
        transfer_matrix.main(tmp_path / "copy", 20, ["fgsm"])


def test_runs_without_attacks_have_no_surrogate(tmp_path):
    config = tiny.config(mode="base", run_dir=str(tmp_path / "base"), attacks=(), batch_size=24)
    experiment.run(config)
    transfer_matrix.main(tmp_path, 20, ["fgsm"])
    assert TransferMatrix(transfer_matrix.collect(tmp_path)).sources == ["T_Base"]


def test_finished_command_loads_no_tensorflow(root):
    code = (
        "import sys, pytest, tiny; from pathlib import Path; tiny.name(pytest.MonkeyPatch());"
        "from divtf.commands import transfer_matrix; transfer_matrix.main(Path(sys.argv[1]), 20, ['fgsm']);"
        "assert 'tensorflow' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(root)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("attacks", [[], ["fgsm", "fgsm"], ["deepfool"]])
def test_unknown_attacks_are_refused(root, attacks):
    expected = r"Expected --attacks as distinct values of \{fgsm, .*\}, at least one"
    with pytest.raises(InputError, match=expected):
        transfer_matrix.main(root, 20, attacks)


def test_command_says_a_users_error_in_one_line(tmp_path):
    command = [sys.executable, "-m", "divtf.transfer_matrix", f"--runs={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: Expected finished runs below {tmp_path}. Received: none\n"


def column(target, cells, seed=0):
    """A record from (source, epsilon, correct, total)."""
    results = [TransferResult(target, s, WORST_CASE, e, correct, total) for s, e, correct, total in cells]
    results += [TransferResult(target, s, "fgsm", e, correct, total) for s, e, correct, total in cells]
    sources = {source: "digest" for source, *_ in cells}
    return TransferMatrixRecord(target, "conv4", "cifar10", seed, tuple(results), sources)


def test_seeds_are_put_together_by_their_images():
    first = column("T_Base", [("T_Base", 0.03, 1, 10)])
    matrix = TransferMatrix([first, column("T_Base", [("T_Base", 0.03, 9, 30)], seed=1)])
    assert matrix.accuracy("T_Base", "T_Base", 0.03) == 25.0
    assert math.isnan(matrix.accuracy("T_Base", "T_Base", 0.09))


def test_picture_and_caption_show_each_cell_once():
    records = [
        column("T_Div", [("surrogate", 0.03, 7, 10), ("T_Base", 0.03, 6, 10), ("T_Div", 0.03, 2, 10)]),
        column("T_Base", [("surrogate", 0.03, 3, 10), ("T_Base", 0.03, 1, 10), ("T_Div", 0.03, 4, 10)]),
    ]
    (axes,) = (axes for axes in transfer_matrix_figure(records).subfigs[0].axes if axes.get_title())
    assert axes.get_title() == "epsilon 0.03"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["T_Base", "T_Div"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["T_Base", "T_Div", "surrogate"]
    shown = [(text.get_text(), text.get_fontweight()) for text in axes.texts]
    cells = [("10.0", "bold"), ("60.0", "normal"), ("40.0", "normal"), ("20.0", "bold")]
    assert shown == [*cells, ("30.0", "normal"), ("70.0", "normal")]
    lines = captions.transfer_matrix(records)
    assert "On images of T_Div: T_Base 40.0, T_Div 20.0 (its own)" in lines
    assert "On images of surrogate: T_Base 30.0, T_Div 70.0" in lines


def test_picture_refuses_no_records():
    with pytest.raises(ValueError, match="at least one record of a transfer matrix"):
        transfer_matrix_figure([])
