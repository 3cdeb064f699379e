"""ONNX and LiteRT files: what they compute, in which process, and what becomes of files that cannot be."""

import errno
import importlib.util
import logging
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import divtf
from divtf.ensembles.serving import litert_file, onnx_file
from divtf.ensembles.serving.export import export_model
from divtf.errors import InputError, lacking_resource

SHAPE, CLASSES, MEMBERS = (8, 6, 2), 4, 3
OUTPUTS = ("probabilities", "members", "disagreement")
# By name: format, precision, file's suffix, and how far its outputs may be off.
FORMATS = {
    "onnx": ("onnx", "float32", ".onnx", 1e-5),
    "litert": ("litert", "float32", ".tflite", 1e-5),
    # Weights are rounded to 11 bits, activations of about 1 to 8: what is left of 1/2000 and 1/100.
    "float16": ("litert", "float16", ".tflite", 2e-3),
    "int8": ("litert", "int8", ".tflite", 0.1),
}
WRITERS = {"onnx": onnx_file, "litert": litert_file}
each_format = pytest.mark.parametrize("name", FORMATS)


def images(count, seed=0, shape=SHAPE):
    return np.random.default_rng(seed).random((count, *shape), dtype="float32")


def made(build=None, shape=SHAPE, seed=0, count=MEMBERS):
    """Members with biases and normalisation that are as if trained; by default convolutional ones."""

    def convolutional(x):
        x = divtf.BatchNormalization()(layers.Conv2D(4, 3)(x))
        x = layers.Dropout(0.5)(layers.LeakyReLU(negative_slope=0.1)(x))
        return layers.Flatten()(layers.MaxPooling2D(2)(x))

    rng, members = np.random.default_rng(seed), []
    for n in range(count):
        given = keras.Input(shape)
        member = keras.Model(given, layers.Dense(CLASSES)((build or convolutional)(given)), name=f"m{n}")
        for weight in member.weights:
            value = rng.normal(size=weight.shape) * 0.4
            weight.assign(value**2 + 0.5 if "variance" in weight.path else value)
        members.append(member)
    return divtf.Ensemble(members, divtf.CrossEntropy())


def options(name, calibration=None):
    format, precision, _, _ = FORMATS[name]
    calibration = images(40, seed=9) if calibration is None else calibration
    return {"format": format, "precision": precision} | (
        {"calibration": calibration} if precision == "int8" else {}
    )


def by_numpy(ensemble, x):
    """The three outputs in float64, from each member's logits."""
    logits = np.stack([np.asarray(member(x), "float64") for member in ensemble.members], axis=1)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    each = powers / powers.sum(axis=-1, keepdims=True)
    mean = each.mean(axis=1)
    divergence = (each * np.log(each / mean[:, None])).sum(axis=-1).mean(axis=1)
    return {"probabilities": mean, "members": each, "disagreement": divergence}


def by_onnxruntime(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: dict(zip(OUTPUTS, session.run(OUTPUTS, {"images": x}), strict=True))


def by_litert(path):
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(path)).get_signature_runner()
    return lambda x: runner(images=x)


def opened(path):
    return by_onnxruntime(path) if Path(path).suffix == ".onnx" else by_litert(path)


@pytest.fixture(scope="module", name="ensemble")
def fixture_ensemble():
    return made()


@pytest.fixture(scope="module", name="files")
def fixture_files(ensemble, tmp_path_factory):
    """What was exported, by name."""
    root = tmp_path_factory.mktemp("files")
    return {
        name: export_model(ensemble, root / "deep" / f"{name}{suffix}", **options(name))
        for name, (_, _, suffix, _) in FORMATS.items()
    }


# What they compute.


@pytest.mark.parametrize("count", [1, 2, 7])
@each_format
def test_every_output_equals_numpy(files, ensemble, name, count):
    x = images(count, seed=count)
    expected, found = by_numpy(ensemble, x), opened(files[name].path)(x)
    assert set(found) == set(OUTPUTS)
    for output in OUTPUTS:
        assert found[output].dtype == np.float32
        np.testing.assert_allclose(found[output], expected[output], rtol=0, atol=FORMATS[name][3])
    assert expected["disagreement"].max() > 0.1


@each_format
def test_probabilities_add_up_to_one_in_every_precision(files, name):
    found = opened(files[name].path)(images(5, seed=3))
    np.testing.assert_allclose(found["probabilities"].sum(axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(found["members"].sum(axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(found["members"].mean(axis=1), found["probabilities"], atol=1e-6)
    assert (found["disagreement"] >= 0).all()


@each_format
def test_what_is_returned_is_what_was_measured(files, ensemble, name):
    exported, (format, precision, _, _) = files[name], FORMATS[name]
    assert (exported.format, exported.precision) == (format, precision)
    assert exported.path.is_file() and exported.path.parent.name == "deep"
    calibration = options(name).get("calibration")
    x = calibration[4:] if name == "int8" else images(4)[:3]
    predict, expected = opened(exported.path), by_numpy(ensemble, x)
    for output in OUTPUTS:
        off = np.abs(predict(x)[output] - expected[output]).max()
        assert off <= exported.differences[output] + 1e-7
    assert 0 < exported.differences["members"] < FORMATS[name][3]
    assert (exported.accuracy, exported.ensemble_accuracy) == (None, None)
    assert (exported.agreement is None) == (name != "int8")


def test_lower_precision_makes_smaller_files(tmp_path):
    ensemble = made(lambda x: layers.Dense(200, "relu")(layers.Flatten()(x)), count=1)
    sizes = [
        os.path.getsize(export_model(ensemble, tmp_path / name, **options(name)).path)
        for name in ("litert", "float16", "int8")
    ]
    assert sizes[1] < 0.6 * sizes[0] and sizes[2] < 0.7 * sizes[1]


def test_agreement_and_accuracies_are_those_of_the_given_images(ensemble, tmp_path, caplog):
    x, y = images(70, seed=5), np.arange(70) % CLASSES
    with caplog.at_level(logging.INFO, "divtf"):
        exported = export_model(ensemble, tmp_path / "m.tflite", images=x, labels=y, **options("int8"))
    found = by_litert(exported.path)(x)["probabilities"].argmax(axis=-1)
    expected = by_numpy(ensemble, x)["probabilities"].argmax(axis=-1)
    assert exported.agreement == pytest.approx((found == expected).mean()) and exported.agreement > 0.8
    assert exported.accuracy == pytest.approx((found == y).mean())
    assert exported.ensemble_accuracy == pytest.approx((expected == y).mean())
    (line,) = [
        record.getMessage() for record in caplog.records if record.name == "divtf.ensembles.serving.export"
    ]
    assert str(exported.path) in line and f"{exported.agreement:.2%}" in line
    assert [path.name for path in tmp_path.iterdir()] == ["m.tflite"]


def test_onnx_file_says_what_it_takes_and_gives(files):
    import onnx

    model = onnx.load(files["onnx"].path)
    onnx.checker.check_model(model, full_check=True)
    sizes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert sizes == {
        "images": ["batch", *SHAPE],
        "probabilities": ["batch", CLASSES],
        "members": ["batch", MEMBERS, CLASSES],
        "disagreement": ["batch"],
    }
    assert [output.name for output in model.graph.output] == list(OUTPUTS)
    assert {node.domain for node in model.graph.node} == {""}, "operations of ONNX itself only"
    assert next(each.version for each in model.opset_import if not each.domain) == 18


@pytest.mark.parametrize("name", ["litert", "float16", "int8"])
def test_litert_file_has_one_signature_of_float32(files, name):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(files[name].path))
    (signature,) = interpreter.get_signature_list().values()
    assert signature["inputs"] == ["images"] and sorted(signature["outputs"]) == sorted(OUTPUTS)
    (given,) = interpreter.get_input_details()
    assert given["shape_signature"].tolist() == [-1, *SHAPE]
    details = [given, *interpreter.get_output_details()]
    assert {detail["dtype"] for detail in details} == {np.float32}


ALONE = """
import sys
for name in ("divtf", "keras", "tensorflow", "tf2onnx"):
    sys.modules[name] = None
import numpy as np
import onnxruntime
from ai_edge_litert.interpreter import Interpreter
onnx_file, litert_file, x, out = sys.argv[1:]
x = np.load(x)
session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
by_onnx = dict(zip([each.name for each in session.get_outputs()], session.run(None, {"images": x})))
by_litert = Interpreter(model_path=litert_file).get_signature_runner()(images=x)
np.savez(out, **by_onnx, **{f"litert_{name}": value for name, value in by_litert.items()})
"""


def test_process_that_cannot_import_tensorflow_computes_the_same(files, ensemble, tmp_path):
    x = images(5, seed=2)
    np.save(tmp_path / "x.npy", x)
    paths = (files["onnx"].path, files["litert"].path, tmp_path / "x.npy", tmp_path / "out.npz")
    finished = subprocess.run(
        [sys.executable, "-c", ALONE, *map(str, paths)], capture_output=True, text=True, cwd=tmp_path
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    found, expected = np.load(tmp_path / "out.npz"), by_numpy(ensemble, x)
    for output in OUTPUTS:
        np.testing.assert_allclose(found[output], expected[output], rtol=0, atol=1e-5)
        np.testing.assert_allclose(found[f"litert_{output}"], expected[output], rtol=0, atol=1e-5)


# Of which members.

MEMBERS_OF = {
    "signals": ((20, 3), lambda x: layers.GlobalMaxPooling1D()(layers.Conv1D(5, 3, activation="relu")(x))),
    "features": ((7,), lambda x: divtf.LayerNormalization()(layers.Dense(5, activation="gelu")(x))),
    "any size": (
        (None, None, 2),
        lambda x: layers.GlobalAveragePooling2D()(divtf.BatchNormalization()(layers.Conv2D(5, 3)(x))),
    ),
    "groups, resized": (
        (5, 4, 4),
        lambda x: layers.Flatten()(divtf.Resizing(6, 3)(divtf.GroupNormalization(2)(x))),
    ),
}


@pytest.mark.parametrize("name", ["onnx", "litert", pytest.param("int8", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", MEMBERS_OF)
def test_members_of_any_kind_are_exported(kind, name, tmp_path):
    shape, build = MEMBERS_OF[kind]
    ensemble = made(build, shape, count=2)
    x = images(3, shape=[size or 12 for size in shape])
    exported = export_model(ensemble, tmp_path / f"m{FORMATS[name][2]}", **options(name, calibration=x))
    found, expected = opened(exported.path)(x), by_numpy(ensemble, x)
    for output in OUTPUTS:
        np.testing.assert_allclose(found[output], expected[output], rtol=0, atol=FORMATS[name][3])


@pytest.mark.parametrize(("name", "word"), [("onnx", "BesselI0e"), ("litert", "tf.BesselI0e")])
def test_operation_that_a_format_lacks_is_named_in_one_line(name, word, tmp_path):
    def build(x):
        return layers.Lambda(lambda y: tf.math.bessel_i0e(y))(layers.Dense(3)(x))

    expected = r"^Expected members of operations that the \S+ file can have\. Received: [^\n]*"
    with pytest.raises(InputError, match=expected + word):
        export_model(made(build, (5,)), tmp_path / "m", **options(name))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "float64"])
def test_members_of_another_precision_are_refused(dtype, tmp_path):
    members = divtf.build_members("conv3", 2, (4, 4, 1), 3, seed=0, dtype=dtype)
    with pytest.raises(
        InputError, match=r"compute in float32 for the ONNX file\. Received: member 'conv3_0'"
    ):
        export_model(divtf.Ensemble(members), tmp_path / "m", "onnx")


def test_rounding_of_large_logits_is_no_fault(tmp_path):
    """Logits of some hundred: in float32 they are off by 1e-5, in float16 by 0.1."""
    ensemble = made(lambda x: layers.Dense(30, "relu")(layers.Flatten()(x)), seed=1)
    for member in ensemble.members:
        member.layers[-1].kernel.assign(100 * member.layers[-1].kernel)
    for name in ("onnx", "float16"):
        export_model(ensemble, tmp_path / name, **options(name))


# Where they are written.


def let_write(content, name, monkeypatch):
    """Let the writer of a format write this, whatever it is given; a file is made once for many tests."""
    monkeypatch.setattr(
        WRITERS[FORMATS[name][0]], "write", lambda _, path, **given: path.write_bytes(content)
    )


@each_format
def test_model_that_would_compute_something_else_is_not_left_behind(name, files, tmp_path, monkeypatch):
    let_write(files[name].path.read_bytes(), name, monkeypatch)
    with pytest.raises(RuntimeError, match="Expected what was exported to predict as the ensemble to "):
        export_model(made(seed=1), tmp_path / "m", **options(name))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", ["onnx", "litert"])
def test_every_output_of_every_batch_size_is_compared(
    name, batch, output, files, ensemble, tmp_path, monkeypatch
):
    writer = WRITERS[name]
    load = writer.load

    def off(path):
        predict, step = load(path), {output: 1e-4}
        return lambda x: {
            key: value + (len(x) == batch) * step.get(key, 0) for key, value in predict(x).items()
        }

    let_write(files[name].path.read_bytes(), name, monkeypatch)
    monkeypatch.setattr(writer, "load", off)
    with pytest.raises(RuntimeError, match=rf"in {output}\. Received: (9\.|0\.0001)"):
        export_model(ensemble, tmp_path / "m", name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["onnx", "litert"])
def test_nan_is_not_left_behind(name, files, tmp_path, monkeypatch):
    let_write(files[name].path.read_bytes(), name, monkeypatch)
    ensemble = made()
    ensemble.members[1].layers[-1].bias.assign([0, np.nan, 0, 0])
    with pytest.raises(RuntimeError, match="Received: nan"):
        export_model(ensemble, tmp_path / "m", name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["onnx", "litert"])
def test_full_disk_leaves_nothing(name, ensemble, tmp_path, monkeypatch):
    def full(path, content):
        with open(path, "wb") as file:
            file.write(content[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        export_model(ensemble, tmp_path / "m", **options(name))
    assert not list(tmp_path.iterdir())


def test_full_disk_on_the_way_to_litert_leaves_nothing(ensemble, tmp_path, monkeypatch):
    """TensorFlow's own words for it, which the command line knows."""

    def full(_, path, **options):
        (Path(path) / "half").write_text("half")
        raise tf.errors.ResourceExhaustedError(None, None, f"{path}; {os.strerror(errno.ENOSPC)}")

    monkeypatch.setattr(type(keras.export.ExportArchive()), "write_out", full)
    with pytest.raises(tf.errors.ResourceExhaustedError) as raised:
        export_model(ensemble, tmp_path / "m", "litert")
    assert lacking_resource(raised.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_taken_place_is_refused_and_left_alone(format, ensemble, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    for name in ("file", "empty"):
        with pytest.raises(
            InputError, match=r"^Expected a new path for the \S+ file\. Received: .*which exists"
        ):
            export_model(ensemble, tmp_path / name, format)
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "file"]


def test_place_that_is_taken_meanwhile_is_left_alone(ensemble, tmp_path, monkeypatch):
    def write(_, path):
        path.write_bytes(b"")
        (tmp_path / "m").write_text("theirs")

    monkeypatch.setattr(onnx_file, "write", write)
    monkeypatch.setattr(onnx_file, "load", lambda path: lambda x: as_float32(by_numpy(ensemble, x)))
    with pytest.raises(InputError, match="which exists"):
        export_model(ensemble, tmp_path / "m", "onnx")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["theirs"]


def as_float32(outputs):
    return {name: value.astype("float32") for name, value in outputs.items()}


@pytest.mark.parametrize(
    ("format", "missing"), [("onnx", "tf2onnx"), ("onnx", "onnxruntime"), ("litert", "ai_edge_litert")]
)
def test_format_without_its_extra_is_refused_before_anything_is_done(
    format, missing, ensemble, tmp_path, monkeypatch
):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    monkeypatch.setattr(WRITERS[format], "write", None)
    expected = rf"^Expected .*: pip install 'divtf\[{format}\]'\. Received: no {missing} in this Python$"
    with pytest.raises(InputError, match=expected):
        export_model(ensemble, tmp_path / "m", format)
    assert not list(tmp_path.iterdir())
