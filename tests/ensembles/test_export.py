"""The SavedModel: its endpoints, and a process that knows nothing of divtf."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from divtf import CrossEntropy
from divtf.ensembles.ensemble import Ensemble
from divtf.ensembles.serving import saved_model
from divtf.ensembles.serving.export import export_model, export_saved_model
from divtf.errors import InputError
from divtf.networks.layers import BatchNormalization

SHAPE, CLASSES, MEMBERS = (8, 6, 2), 4, 3


def made_ensemble(scale=1.0):
    """Members with the layers of the real ones: convolution, normalisation, pooling, dropout in training."""
    rng, members = np.random.default_rng(0), []
    for n in range(MEMBERS):
        images = keras.Input(SHAPE)
        x = BatchNormalization()(layers.Conv2D(4, 3)(images))
        x = layers.Dropout(0.5)(layers.LeakyReLU(negative_slope=0.1)(x))
        member = keras.Model(
            images, layers.Dense(CLASSES)(layers.Flatten()(layers.MaxPooling2D(2)(x))), name=f"m{n}"
        )
        member.set_weights(
            [
                scale * np.abs(rng.normal(size=w.shape)) * rng.choice([1, -1], w.shape)
                if "variance" not in w.path
                else np.full(w.shape, 2.0)
                for w in member.weights
            ]
        )
        members.append(member)
    return Ensemble(members)


def images(count, seed=0):
    return np.random.default_rng(seed).random((count, *SHAPE), dtype="float32")


@pytest.fixture(scope="module", name="exported")
def fixture_exported(tmp_path_factory):
    ensemble = made_ensemble()
    path = export_saved_model(ensemble, tmp_path_factory.mktemp("export") / "deep" / "model")
    return ensemble, path, tf.saved_model.load(str(path))


def member_probabilities(ensemble, x):
    """[B, N, C] in float64."""
    logits = np.stack([np.asarray(member(x), "float64") for member in ensemble.members], axis=1)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


# Endpoints.


def test_signature_is_float32_images_to_probabilities_with_any_batch(exported):
    _, path, loaded = exported
    assert path.is_dir()
    serve = loaded.signatures["serve"]
    _, inputs = serve.structured_input_signature
    assert inputs == {"images": tf.TensorSpec([None, *SHAPE], tf.float32, name="images")}
    assert set(serve.structured_outputs) == {"probabilities"}
    assert serve.structured_outputs["probabilities"].shape.as_list() == [None, CLASSES]
    assert serve.structured_outputs["probabilities"].dtype == tf.float32
    assert {"serve", "serving_default", "members", "disagreement"} <= set(loaded.signatures)
    members, disagreement = loaded.signatures["members"], loaded.signatures["disagreement"]
    assert members.structured_outputs["probabilities"].shape.as_list() == [None, MEMBERS, CLASSES]
    assert disagreement.structured_outputs["disagreement"].shape.as_list() == [None]


@pytest.mark.parametrize("count", [1, 7])
def test_served_probabilities_are_those_of_predict(exported, count):
    ensemble, _, loaded = exported
    x = images(count)
    served = loaded.serve(tf.constant(x))["probabilities"].numpy()
    np.testing.assert_allclose(served, np.exp(ensemble.predict(x, verbose=0)), rtol=0, atol=1e-6)
    by_signature = loaded.signatures["serving_default"](images=tf.constant(x))["probabilities"]
    np.testing.assert_array_equal(by_signature, served)
    np.testing.assert_allclose(served.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("count", [1, 7])
def test_every_endpoint_equals_numpy(exported, count):
    ensemble, _, loaded = exported
    x = images(count, seed=1)
    each = member_probabilities(ensemble, x)
    mean = each.mean(axis=1)
    divergence = (each * np.log(each / mean[:, None])).sum(axis=-1).mean(axis=1)
    given = tf.constant(x)
    np.testing.assert_allclose(loaded.serve(given)["probabilities"], mean, atol=1e-6)
    np.testing.assert_allclose(loaded.members(given)["probabilities"], each, atol=1e-6)
    np.testing.assert_allclose(loaded.disagreement(given)["disagreement"], divergence, atol=1e-5)
    assert divergence.max() > 0.1


def biased_ensemble(*biases):
    """Members that ignore the image and give these logits."""
    members = []
    for n, bias in enumerate(biases):
        given = keras.Input(SHAPE)
        member = keras.Model(given, layers.Dense(len(bias))(layers.Flatten()(given)), name=f"m{n}")
        member.set_weights([np.zeros((np.prod(SHAPE), len(bias))), np.array(bias)])
        members.append(member)
    return Ensemble(members, CrossEntropy(), check=False)


@pytest.mark.parametrize(
    ("biases", "expected"),
    [
        ([(1.0, 2.0, 3.0), (1.0, 2.0, 3.0)], 0.0),
        # Two sure members of two opinions: each is log 2 from their mean.
        ([(300.0, 0.0), (0.0, 300.0)], np.log(2)),
        # p = e^-86.5 is just above float32's smallest number, and a third of it below.
        ([(0.0, 86.5, 0.0), (0.0, 200.0, 0.0), (0.0, 200.0, 0.0)], 0.0),
        # (3/4, 1/4) and (1/4, 3/4) about (1/2, 1/2): log 2 less the entropy of (3/4, 1/4).
        ([(np.log(3), 0.0), (0.0, np.log(3))], 0.75 * np.log(1.5) + 0.25 * np.log(0.5)),
    ],
)
def test_disagreement_in_closed_form(biases, expected, tmp_path):
    loaded = tf.saved_model.load(str(export_saved_model(biased_ensemble(*biases), tmp_path / "model")))
    found = loaded.disagreement(tf.constant(images(2)))["disagreement"].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_members_of_any_image_size_are_exported(tmp_path):
    members = []
    for n in range(2):
        given = keras.Input((None, None, 1))
        x = layers.GlobalAveragePooling2D()(layers.Conv2D(3, 3)(given))
        members.append(keras.Model(given, layers.Dense(CLASSES)(x), name=f"m{n}"))
    ensemble = Ensemble(members)
    loaded = tf.saved_model.load(str(export_saved_model(ensemble, tmp_path / "model")))
    for size in (9, 12):
        x = np.random.default_rng(0).random((2, size, size, 1), dtype="float32")
        np.testing.assert_allclose(
            loaded.serve(tf.constant(x))["probabilities"], np.exp(ensemble.predict(x, verbose=0)), atol=1e-6
        )


# Whole numbers.


@pytest.fixture(scope="module", name="of_uint8")
def fixture_of_uint8(tmp_path_factory):
    path = tmp_path_factory.mktemp("uint8") / "model"
    return export_model(made_ensemble(), path, uint8=True), tf.saved_model.load(str(path))


@pytest.mark.parametrize("count", [1, 2, 7])
def test_default_signature_may_take_uint8_images(of_uint8, count):
    _, loaded = of_uint8
    whole = np.random.default_rng(count).integers(0, 256, (count, *SHAPE)).astype("uint8")
    whole.flat[:2] = 0, 255
    served = loaded.signatures["serving_default"](images=tf.constant(whole))
    assert set(served) == {"probabilities"} and served["probabilities"].dtype == tf.float32
    mean = member_probabilities(made_ensemble(), (whole / 255).astype("float32")).mean(axis=1)
    np.testing.assert_allclose(served["probabilities"], mean, rtol=0, atol=1e-6)


def test_other_signatures_stay_as_they_are(of_uint8):
    _, loaded = of_uint8
    _, inputs = loaded.signatures["serving_default"].structured_input_signature
    assert inputs == {"images": tf.TensorSpec([None, *SHAPE], tf.uint8, name="images")}
    for name in ("serve", "members", "disagreement"):
        _, inputs = loaded.signatures[name].structured_input_signature
        assert inputs == {"images": tf.TensorSpec([None, *SHAPE], tf.float32, name="images")}


def rescaling(scale, offset=0.0):
    x = keras.Input(SHAPE)
    scaled = layers.Rescaling(scale, offset)(x) if scale else x
    return keras.Model(x, layers.Dense(CLASSES)(layers.Flatten()(scaled)))


@pytest.mark.parametrize(("scale", "offset"), [(1 / 255, 0.0), (1 / 127.5, -1.0), ([1 / 255] * 2, 0.0)])
def test_members_that_rescale_bytes_themselves_get_them_as_they_are(scale, offset, tmp_path):
    ensemble = Ensemble([rescaling(scale, offset) for _ in range(2)], CrossEntropy())
    export_model(ensemble, tmp_path / "model", uint8=True)
    whole = np.random.default_rng(0).integers(0, 256, (5, *SHAPE)).astype("uint8")
    default = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    served = default(images=tf.constant(whole))["probabilities"]
    expected = member_probabilities(ensemble, whole.astype("float32")).mean(axis=1)
    np.testing.assert_allclose(served, expected, rtol=0, atol=1e-6)


def test_members_of_which_some_rescale_bytes_have_no_such_signature(tmp_path):
    ensemble = Ensemble([rescaling(1 / 255), rescaling(None)], CrossEntropy())
    for member in ensemble.members:
        member.name = "one"
    with pytest.raises(InputError, match="members that all rescale bytes, or none of them"):
        export_model(ensemble, tmp_path / "model", uint8=True)
    assert not list(tmp_path.iterdir())


def test_uint8_signature_that_scales_otherwise_is_not_left_behind(tmp_path, monkeypatch):
    ensemble, cast = made_ensemble(), tf.cast

    def by_256(x, dtype):
        return cast(x, dtype) * (255 / 256 if getattr(x, "dtype", None) == tf.uint8 else 1)

    monkeypatch.setattr(tf, "cast", by_256)
    with pytest.raises(RuntimeError, match="of uint8 images"):
        export_model(ensemble, tmp_path / "model", uint8=True)
    assert not list(tmp_path.iterdir())


# Elsewhere.

# Modules that are None in sys.modules cannot be imported. TensorFlow finds keras by name when asked for
# tf.keras, which plain loading does not do.
ALONE = """
import sys
sys.modules["divtf"] = sys.modules["keras"] = sys.modules["cleverhans"] = None
import numpy as np
import tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
x = np.load(sys.argv[2])
np.savez(
    sys.argv[3],
    serve=loaded.serve(tf.constant(x))["probabilities"],
    signature=loaded.signatures["serving_default"](images=tf.constant(x))["probabilities"],
    members=loaded.members(tf.constant(x))["probabilities"],
    disagreement=loaded.disagreement(tf.constant(x))["disagreement"],
)
"""


def test_process_that_cannot_import_divtf_or_keras_serves_the_same(exported, tmp_path):
    ensemble, path, _ = exported
    x = images(5, seed=2)
    np.save(tmp_path / "x.npy", x)
    command = [sys.executable, "-c", ALONE, str(path), str(tmp_path / "x.npy"), str(tmp_path / "out.npz")]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr[-2000:]
    served = np.load(tmp_path / "out.npz")
    np.testing.assert_allclose(served["serve"], np.exp(ensemble.predict(x, verbose=0)), rtol=0, atol=1e-6)
    np.testing.assert_allclose(served["members"], member_probabilities(ensemble, x), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(served["serve"], served["signature"])
    assert served["disagreement"].shape == (5,) and (served["disagreement"] >= 0).all()


@pytest.mark.slow
def test_saved_model_cli_prints_the_signature(exported):
    _, path, _ = exported
    command = [str(Path(sys.executable).with_name("saved_model_cli")), "show", "--dir", str(path), "--all"]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]
    shown = finished.stdout.split("signature_def['serve']")[1].split("signature_def[")[0]
    for part in ("inputs['images']", "DT_FLOAT", "(-1, 8, 6, 2)", "outputs['probabilities']", "(-1, 4)"):
        assert part in shown


# Where it is written.


def test_existing_path_is_refused_and_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").write_text("mine")
    ensemble = biased_ensemble((0.0, 2.0), (3.0, 0.0))
    for path in (tmp_path / "file", tmp_path / "folder"):
        with pytest.raises(
            InputError, match=r"Expected a new path for the SavedModel\. Received: .*which exists"
        ):
            export_saved_model(ensemble, path)
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "kept").read_text() == "mine"
    assert {p.name for p in tmp_path.rglob("*")} == {"file", "folder", "kept"}


def test_empty_directory_is_taken_and_a_second_export_refused(tmp_path):
    ensemble = biased_ensemble((0.0, 2.0), (3.0, 0.0))
    assert export_saved_model(ensemble, str(tmp_path)) == tmp_path
    before = sorted(p.stat().st_mtime_ns for p in tmp_path.rglob("*"))
    with pytest.raises(InputError):
        export_saved_model(ensemble, tmp_path)
    assert sorted(p.stat().st_mtime_ns for p in tmp_path.rglob("*")) == before


def test_failure_while_writing_leaves_nothing(tmp_path, monkeypatch):
    def full(_, path, **options):
        Path(path).mkdir()
        (Path(path) / "half").write_text("half")
        raise OSError("no space left on device")

    monkeypatch.setattr(type(keras.export.ExportArchive()), "write_out", full)
    with pytest.raises(OSError, match="no space left"):
        export_saved_model(biased_ensemble((0.0, 2.0), (3.0, 0.0)), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_model_that_would_serve_something_else_is_not_left_behind(tmp_path, monkeypatch):
    write = saved_model.write
    ensemble = biased_ensemble((0.0, 2.0), (3.0, 0.0))
    other = biased_ensemble((0.0, 2.0), (3.0, 1e-4))
    monkeypatch.setattr(saved_model, "write", lambda _, path, **options: write(other, path, **options))
    with pytest.raises(RuntimeError, match="to predict as the ensemble"):
        export_saved_model(ensemble, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_model_that_serves_nan_is_not_left_behind(tmp_path):
    with pytest.raises(RuntimeError, match="Received: nan"):
        export_saved_model(biased_ensemble((0.0, float("nan")), (3.0, 0.0)), tmp_path / "model")
    assert not list(tmp_path.iterdir())
