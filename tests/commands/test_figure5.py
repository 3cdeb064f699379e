"""The command for Figure 5, from finished runs to its record and picture."""

import subprocess
import sys

import numpy as np
import pytest
import reference
import tiny

from divtf.commands import figure5
from divtf.errors import InputError
from divtf.evaluation import gaas
from divtf.pipeline import experiment, finished, trained
from divtf.reporting.figures.gaas import gaas_figure, pooled
from divtf.storage import checked_json, run_directory
from divtf.storage.records import GaasRecord

BOTH = ("T_Base", "T_Div")
ORDERS = (4, 16, 36, 64)


pytestmark = pytest.mark.usefixtures("tiny_world")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Finished runs of three targets, T_Base and T_Div analysed on 20 of their 24 test images."""
    root = tmp_path_factory.mktemp("gaas")
    for mode in ("base", "div", "noise"):
        config = tiny.config(mode=mode, run_dir=str(root / mode), attacks=(), batch_size=24)
        experiment.run(config)
    figure5.main(root, 20, BOTH)
    return root


@pytest.fixture
def no_analysis(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("analysed again")

    monkeypatch.setattr(gaas, "gaas", fail)


def test_command_writes_record_and_picture_of_the_chosen_targets(root):
    records = [GaasRecord.from_json(record) for record in checked_json.read_json(root / "gaas.json")]
    assert [record.target for record in records] == list(BOTH)
    assert records == figure5.collect(root), "each run directory keeps its own"
    assert not (root / "noise" / "gaas.json").exists(), "what was not asked for costs nothing"
    assert (root / "gaas.png").read_bytes().startswith(b"\x89PNG")


def test_record_says_what_it_is_of(root):
    for record in figure5.collect(root):
        assert (record.model, record.dataset, record.seed, record.images) == ("tiny", "stripes", 0, 20)
        assert (record.budget["members"], record.budget["reduced"]) == (2, True)
        assert {"command", "commit", "hours", "weights"} <= set(record.provenance)
        assert {"command", "commit", "tensorflow"} <= set(record.analysis)
        # Thirds of the data set's largest budget, 0.3.
        places = [(curve["epsilon"], curve["order"]) for curve in record.curves]
        assert places == [(epsilon, order) for epsilon in (0.1, 0.2, 0.3) for order in ORDERS]
        for curve in record.curves:
            assert curve["images"] + curve["left_out"] == 20
            assert len(curve["probability"]) == curve["order"]


def twin(members, x):
    """Mean probability [B, C] and the signs of the gradient of the members' mean cross-entropy by class."""
    gradients, probabilities = zip(*tiny.forward(members, x), strict=True)
    by_class = [
        np.stack([gradient(label) for label in range(tiny.CLASSES)], axis=1) for gradient in gradients
    ]
    return np.mean(probabilities, axis=0), np.mean(by_class, axis=0)


@pytest.mark.parametrize("mode", ["base", "div"])
def test_probabilities_are_those_of_every_direction_tried_by_hand(root, mode):
    config = finished.read_config(root / mode)
    ensemble = trained.restore(config, tiny.data().spec, root / mode)
    members = tiny.weights(ensemble)
    x, y = tiny.data().test_set(20)
    x = x.reshape(20, -1).astype("float64")
    probability, gradients = twin(members, x)
    right = probability.argmax(axis=1) == y
    signs = np.where(gradients[np.arange(20), y] >= 0, 1.0, -1.0)
    varied = 0
    for curve in finished.read_gaas(root / mode).curves:
        order, epsilon = curve["order"], curve["epsilon"]
        length = 64 // order  # of 64 pixels; the last 64 - 36 stay as they are at order 36
        rows = np.array(
            [
                [
                    reference.hadamard_entry(order, i, d // length) if d < length * order else 0
                    for d in range(64)
                ]
                for i in range(order)
            ]
        )
        directions = signs[:, None] * rows
        gram = directions @ directions.transpose(0, 2, 1)
        np.testing.assert_array_equal(gram, np.broadcast_to(length * order * np.eye(order), gram.shape))
        moved = np.clip(x[:, None] + epsilon * directions, 0, 1).reshape(-1, 64)
        predicted = twin(members, moved)[0].argmax(axis=1).reshape(20, order)
        successes = (predicted != y[:, None]).sum(axis=1)[right]
        assert curve["images"] == right.sum() > 0
        assert curve["probability"] == [(successes >= m).mean() for m in range(1, order + 1)]
        assert curve["mean_successes"] == pytest.approx(successes.mean())
        varied += 0 < successes.mean() < order
    assert varied > 6, "most curves say something"


def test_finished_analysis_is_not_made_again(root, no_analysis, capsys):
    before = {path: path.read_bytes() for path in root.glob("**/gaas.*")}
    assert len(before) == 4
    figure5.main(root, 20, BOTH)
    assert {path: path.read_bytes() for path in root.glob("**/gaas.*")} == before
    printed = capsys.readouterr().out
    assert "tiny on stripes, T_Div, seed 0: epsilon 0.3" in printed
    assert f"gaas           {root / 'gaas.png'}" in printed


def test_analysis_of_what_was_asked_for_or_trained_since_is_made(root, no_analysis, monkeypatch):
    for images in (19, 24, 1000):  # All of the test images are 24.
        with pytest.raises(AssertionError, match="analysed again"):
            figure5.measure(root / "div", images)
    record = finished.read_record(root / "div")
    changed = record.provenance | {"weights": "others"}
    monkeypatch.setattr(
        finished, "read_record", lambda path: type(record)(**vars(record) | {"provenance": changed})
    )
    with pytest.raises(AssertionError, match="analysed again"):
        figure5.measure(root / "div", 20)


def test_more_images_than_there_are_is_all_of_them(root, monkeypatch):
    seen = []
    monkeypatch.setattr(checked_json, "write_checked", lambda path, values: seen.append(values))
    made = figure5.measure(root / "noise", 1000)
    assert (made.images, made.curves[0]["images"] + made.curves[0]["left_out"]) == (24, 24)
    assert seen == [made.to_json()]


@pytest.mark.parametrize("content", ['{"images": 20, "results": []}', '{"schema": 99}', "[]", "{"])
def test_analysis_of_another_version_is_made_again(root, no_analysis, tmp_path, content):
    for name in (run_directory.CONFIG, run_directory.RESULTS):
        (tmp_path / name).write_bytes((root / "div" / name).read_bytes())
    (tmp_path / run_directory.CHECKPOINTS).symlink_to(root / "div" / run_directory.CHECKPOINTS)
    (tmp_path / run_directory.GAAS).write_text(content)
    with pytest.raises(AssertionError, match="analysed again"):
        figure5.measure(tmp_path, 20)


def test_targets_that_are_not_there_are_refused(root, tmp_path):
    with pytest.raises(InputError, match=r"Expected finished runs of T_Ens below .*T_Base, T_Div, T_Noise"):
        figure5.main(root, 20, ["T_Ens"])
    with pytest.raises(InputError, match=r"Expected finished runs of T_Base, T_Div .*\. Received: none"):
        figure5.main(tmp_path, 20, BOTH)


def test_command_says_a_users_error_in_one_line(tmp_path):
    command = [sys.executable, "-m", "divtf.figure5", f"--runs={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    expected = f"error: Expected finished runs of T_Base, T_Div below {tmp_path}. Received: none\n"
    assert done.stderr == expected


def record(target, curves, **changes):
    named = {"model": "conv4", "dataset": "cifar10", "seed": 0, "images": 10}
    made = [{"epsilon": e, "order": len(p), "probability": p, "images": count} for e, p, count in curves]
    return GaasRecord(target=target, curves=tuple(made), **named | changes)


def test_picture_has_a_panel_an_epsilon_and_a_curve_a_target():
    records = [
        record("T_Div", [(e, [0.8, 0.4, 0.1, 0.0], 10) for e in (0.03, 0.09)]),
        record("T_Base", [(e, [1.0, 0.9, 0.5, 0.1], 10) for e in (0.03, 0.09)]),
    ]
    figure = gaas_figure(records)
    axes = figure.subfigs[0].axes
    assert [panel.get_title() for panel in axes] == ["epsilon 0.03", "epsilon 0.09"]
    base, div = axes[1].get_lines()
    assert (list(base.get_xdata()), list(base.get_ydata())) == ([1, 2, 3, 4], [1.0, 0.9, 0.5, 0.1])
    assert list(div.get_ydata()) == [0.8, 0.4, 0.1, 0.0]
    legend = [text.get_text() for text in figure.subfigs[0].legends[0].get_texts()]
    assert legend == ["T_Base", "T_Div", "k = 4"]


def test_picture_explains_what_is_not_as_in_the_paper():
    curves = [(0.1, [1.0, 0.9, 0.5, 0.1], 10)]
    for dataset, explained in (("cifar10", False), ("mnist", True)):
        note = gaas_figure([record("T_Base", curves, dataset=dataset)]).get_supxlabel()
        assert "paper's order 25" in note
        assert ("epsilon for CIFAR-10 only" in note.replace("\n", " ")) == explained


def test_seeds_are_put_together_by_their_images():
    first = record("T_Base", [(0.1, [1.0, 0.5, 0.5, 0.0], 10)])
    second = record("T_Base", [(0.1, [0.5, 0.5, 0.0, 0.0], 30)], seed=1)
    # (10 * 1.0 + 30 * 0.5) / 40, and so on.
    np.testing.assert_allclose(pooled([first, second], 0.1, 4), [0.625, 0.5, 0.125, 0.0])
    assert pooled([first], 0.3, 4).size == 0


def test_picture_refuses_what_is_no_curve():
    with pytest.raises(ValueError, match=r"Expected 4 probabilities.*Received: 3"):
        curve = {"epsilon": 0.1, "order": 4, "probability": [1.0, 0.5, 0.2], "images": 3}
        pooled([GaasRecord("T_Base", "conv4", "cifar10", 0, 3, (curve,))], 0.1, 4)
    with pytest.raises(ValueError, match="Expected at least one GAAS record"):
        gaas_figure([])
