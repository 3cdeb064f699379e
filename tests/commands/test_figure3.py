"""The command for section 3.4, from finished runs to its record and picture."""

import itertools
import json
import re
import shutil

import numpy as np
import pytest
import tiny

from divtf.commands import figure3, publish_pages
from divtf.data.paper import SETUPS, Setup
from divtf.errors import InputError
from divtf.pipeline import experiment, finished, trained
from divtf.reporting import plain_text
from divtf.reporting.figures.sparsity import sparsity_figure
from divtf.storage import checked_json, run_directory
from divtf.storage.records import SparsityRecord

SLOPES = {"T_Div": 0.1, "T_Div (ReLU)": 0.0}


def pixelwise(make, x, num_classes):
    """Two features of each pixel by itself: its gradient is zero where ReLU is off for both."""
    import keras
    from keras import layers

    # Biases apart from 0, so that a feature is on for some pixels and off for others.
    bias = keras.initializers.RandomNormal(stddev=0.3)
    features = make.activate(layers.Conv2D(2, 1, bias_initializer=bias)(x))
    return make.dense(layers.Flatten()(features), num_classes)


@pytest.fixture(scope="module", autouse=True)
def tiny_world():
    from divtf.networks.models import MODELS

    with pytest.MonkeyPatch.context() as patch:
        tiny.register(patch)
        patch.setitem(SETUPS, "pixelwise", Setup("stripes", 2))
        patch.setitem(MODELS, "pixelwise", pixelwise)
        yield


def settings(root, **values):
    shared = {"model": "pixelwise", "mode": "div", "num_members": 3, "attacks": (), "batch_size": 24}
    config = tiny.config(**shared | values)
    return tiny.config(**shared | values, run_dir=str(root / config.name))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Finished runs of T_Div with either activation, and one of T_Base, which has no GAL."""
    root = tmp_path_factory.mktemp("sparsity")
    for values in ({"activation": "relu"}, {"activation": "leaky_relu"}, {"mode": "base"}):
        experiment.run(settings(root, **values))
    return root


def zero_shares(member_weights, x, y, slope):
    """Shares of zero entries and of zero product terms, from the weights, in NumPy and float64.

    Feature f of pixel p: a = w_f x_p + b_f, h = a if a > 0 else slope a. With logits z = h W + c,
    dJ/dx_p = sum_f w_f h'(a_pf) (W (softmax(z) - onehot(y)))_pf, which is exactly 0 where all h' are.
    """
    zero = []
    for kernel, bias, weights, offset in member_weights:
        before = x.reshape(len(x), -1, 1) * kernel.reshape(2) + bias
        derivative = np.where(before > 0, 1.0, slope)
        logits = (before * derivative).reshape(len(x), -1) @ weights + offset
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        residual = powers / powers.sum(axis=1, keepdims=True) - np.eye(tiny.CLASSES)[y]
        back = (residual @ weights.T).reshape(before.shape)
        zero.append((back * derivative * kernel.reshape(2)).sum(axis=-1) == 0)
    products = [zero[a] | zero[b] for a, b in itertools.combinations(range(len(zero)), 2)]
    return np.mean(zero), np.mean(products)


def test_command_writes_record_and_picture_of_the_runs_with_gal(root, capsys):
    figure3.main(root)
    records = [SparsityRecord.from_json(record) for record in checked_json.read_json(root / "sparsity.json")]
    assert records == figure3.collect(root)
    assert [(r.target, r.activation) for r in records] == [("T_Div (ReLU)", "relu"), ("T_Div", "leaky_relu")]
    assert (root / "sparsity.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    for record in records:
        share = f"{100 * record.zero_entries:.2f} % zero entries"
        assert f"pixelwise on stripes, {record.target}, seed 0: {share}" in printed
    assert f"sparsity       {root / 'sparsity.png'}" in printed


def test_record_says_what_it_is_of(root):
    for record in figure3.collect(root):
        assert (record.model, record.dataset, record.seed) == ("pixelwise", "stripes", 0)
        assert (record.budget["members"], record.budget["epochs"]) == (3, 2)
        assert {"command", "commit", "hours", "weights"} <= set(record.provenance)


@pytest.mark.parametrize("target", SLOPES)
def test_shares_of_zeros_are_those_of_the_twin(root, target):
    (record,) = [record for record in figure3.collect(root) if record.target == target]
    (path,) = [path for path in finished.directories(root) if finished.read_record(path).target == target]
    ensemble = trained.restore(finished.read_config(path), tiny.data().spec, path)
    weights = [[w.astype("float64") for w in member.get_weights()] for member in ensemble.members]
    x, y = tiny.data().test_set()
    entries, products = zero_shares(weights, x.astype("float64"), y, SLOPES[target])
    assert record.zero_entries == pytest.approx(entries, abs=1e-7)
    assert record.zero_products == pytest.approx(products, abs=1e-7)
    if target == "T_Div":
        assert entries == products == 0
    else:
        assert 0.01 < entries < products < 0.99


def test_curve_is_gal_of_each_training_epoch(root):
    for path, record in zip(finished.directories(root)[:2], figure3.collect(root), strict=True):
        lines = [json.loads(line) for line in (path / run_directory.METRICS).read_text().splitlines()]
        assert [line["epoch"] for line in lines] == [1, 2]
        assert list(record.gal) == [line["gal"] for line in lines]
        assert len(set(record.gal)) == 2


def test_relu_and_leaky_relu_are_two_targets_of_one_table(root):
    published = publish_pages.collect(root)
    names = [record.target for record in published["table"]]
    assert names == ["T_Div (ReLU)", "T_Div", "T_Base"]
    assert [record.target for record in published["sparsity"]] == names[:2]
    text = plain_text.table_text(published["table"])
    assert re.findall(r"^(T_.*?) +\d", text, re.M) == ["T_Base", "T_Div", "T_Div (ReLU)"]
    for record in published["table"]:
        assert {result.target for result in record.results} == {record.target}


def test_slope_of_zero_is_relu_by_another_name():
    config = tiny.config(activation="leaky_relu", negative_slope=0)
    assert (config.target, config.name) == ("T_Div (ReLU)", "stripes-tiny-div-relu-seed0")


def test_record_of_a_relu_run_from_before_it_had_a_name_has_one_now(root, tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    (new,) = [path for path in finished.directories(root) if "relu" in path.name]
    shutil.copy(new / run_directory.CONFIG, old)
    stored = json.loads((new / run_directory.RESULTS).read_text())
    del stored["checksum"]  # It had none then, either.
    before = json.dumps(stored).replace("T_Div (ReLU)", "T_Div")
    assert before != json.dumps(stored)
    (old / run_directory.RESULTS).write_text(before)
    assert finished.read_record(old) == finished.read_record(new)


def test_without_gal_there_is_nothing_to_show(tmp_path, root):
    with pytest.raises(
        InputError, match=r"Expected finished runs of mode div or ens_div .* 0 of other modes"
    ):
        figure3.main(tmp_path)
    (base,) = [path for path in finished.directories(root) if "base" in path.name]
    shutil.copytree(base, tmp_path / base.name)
    with pytest.raises(InputError, match=r"Expected finished runs of mode div .* 1 of other modes"):
        figure3.main(tmp_path)
    assert not (tmp_path / "sparsity.png").exists()


def test_metrics_of_something_else_are_refused_by_path(root, tmp_path):
    directory = finished.directories(root)[0]
    for name in (run_directory.CONFIG, run_directory.RESULTS):
        shutil.copy(directory / name, tmp_path)
    (tmp_path / run_directory.METRICS).write_text('{"epoch": 1}\n')
    with pytest.raises(InputError, match=r"Expected the epochs of a run with GAL in .*metrics\.jsonl"):
        finished.read_sparsity(tmp_path)


def record(target="T_Div", seed=0, zeros=(0.1, 0.2), gal=(1.5, 1.25), **changes):
    shares = dict(zip(("zero_entries", "zero_products"), zeros, strict=True))
    named = {"model": "conv3", "dataset": "mnist", "activation": "relu", "budget": {"members": 3}}
    return SparsityRecord(target=target, seed=seed, gal=gal, **shares, **named | changes)


def test_picture_shows_shares_and_curves_with_the_mean_over_seeds():
    records = [
        record("T_Div (ReLU)", zeros=(0.5, 0.75)),
        record(zeros=(0.1, 0.2), gal=(1.5, 1.25)),
        record(seed=1, zeros=(0.3, 0.6), gal=(1.0, 0.75)),
    ]
    bars, curves = sparsity_figure(records).subfigs[0].axes
    leaky, relu = [[patch.get_height() for patch in container] for container in bars.containers]
    assert leaky == pytest.approx([20, 40]) and relu == pytest.approx([50, 75])
    assert [text.get_text() for text in bars.texts] == ["20.00", "40.00", "50.00", "75.00"]
    first, second, orthogonal = curves.get_lines()
    assert list(first.get_ydata()) == [1.25, 1.0] and list(second.get_ydata()) == [1.5, 1.25]
    assert list(first.get_xdata()) == [1, 2]
    # Three pairs of cosine 0: log(3 e^0).
    assert orthogonal.get_ydata()[0] == pytest.approx(np.log(3))
    legend = sparsity_figure(records).subfigs[0].legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["T_Div", "T_Div (ReLU)"]


def test_picture_of_no_zeros_at_all_has_an_axis():
    bars, _ = sparsity_figure([record(zeros=(0.0, 0.0))]).subfigs[0].axes
    assert bars.get_ylim() == (0, 0.1)
    with pytest.raises(ValueError, match="Expected at least one sparsity record"):
        sparsity_figure([])
