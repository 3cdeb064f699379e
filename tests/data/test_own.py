"""Images of one's own: an archive, a folder, a set of TFDS; what is read is what was written."""

import numpy as np
import own_images
import pytest
from logged import logged
from own_images import NAMES, SIZE
from PIL import Image

from divtf.data import own
from divtf.data.datasets import load_dataset
from divtf.data.images import LazyImages

# Names.


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("/data/flowers", "flowers"),
        ("/data/flowers/", "flowers"),
        ("digits.npz", "digits"),
        ("Digits.NPZ", "Digits"),
        ("./a b/c,d.npz", "c_d"),
        ("tfds:mnist", "mnist"),
        ("tfds:cifar10_corrupted/fog_1:1.0.0", "cifar10_corrupted-fog_1-1.0.0"),
        ("tfds:tf_flowers,train[:80%],train[80%:]", "tf_flowers"),
        ("/", "images"),
    ],
)
def test_names_have_short_forms_for_tables_and_directories(name, short):
    assert own.is_own(name) and own.short_name(name) == short


def test_a_known_name_stays_what_it_is_beside_a_directory_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist5k").mkdir()
    assert len(load_dataset("mnist5k").x_train) == 4000


def test_a_directory_is_known_by_being_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not own.is_own("flowers")
    (tmp_path / "flowers").mkdir()
    assert own.is_own("flowers")
    assert own.absolute("flowers") == str(tmp_path / "flowers")
    assert own.absolute("tfds:mnist") == "tfds:mnist"


# Folders.


def pictures_of(made, split, name):
    return {image.tobytes() for path, image in made.items() if path.parts[-3:-1] == (split, name)}


@pytest.mark.parametrize(("channels", "suffix"), [(3, "png"), (1, "png"), (3, "bmp"), (1, "gif")])
def test_a_folder_gives_every_image_once_under_its_class(tmp_path, channels, suffix):
    made = own_images.folder(tmp_path, channels, suffix=suffix)
    data = load_dataset(str(tmp_path))
    # A GIF has a palette, and so colours.
    expected = 3 if suffix == "gif" else channels
    assert data.spec.image_shape == (*SIZE, expected) and data.spec.class_names == NAMES
    assert data.spec.epsilons == () and not data.spec.flips
    for split, x, y in (("train", data.x_train, data.y_train), ("test", data.x_test, data.y_test)):
        assert isinstance(x, LazyImages) and x.dtype == np.uint8 and y.dtype == np.int64
        images = np.asarray(x)[..., :channels]
        for label, name in enumerate(NAMES):
            found = [image.tobytes() for image in images[y == label]]
            assert len(found) == own_images.COUNTS[split]
            assert set(found) == pictures_of(made, split, name)


def test_jpegs_are_read_and_resized_as_pillow_does(tmp_path):
    for split in own_images.COUNTS:
        for name in ("a", "b"):
            image = own_images.picture(len(name), size=(60, 90))
            own_images.write(tmp_path / split / name / "1.JPEG", image, quality=95)
    data = load_dataset(str(tmp_path), image_size=(20, 30))
    path = tmp_path / "train" / NAMES[0][1] / "1.JPEG"
    with Image.open(path) as image:
        expected = np.asarray(image.resize((30, 20), Image.Resampling.BILINEAR), float)
    found = np.asarray(data.x_train[np.flatnonzero(data.y_train == 0)[0]], float)
    # A JPEG is decoded at a smaller size, whose mean over blocks is not quite the filter's.
    assert found.shape == (20, 30, 3) and np.abs(found - expected).mean() < 8


def test_grey_images_among_coloured_ones_become_coloured(tmp_path):
    own_images.folder(tmp_path)
    grey = own_images.picture(5, channels=1)
    own_images.write(tmp_path / "train" / "cat" / "0.png", grey)
    data = load_dataset(str(tmp_path))
    cats = np.asarray(data.x_train)[data.y_train == 0]
    assert (cats == np.repeat(grey[..., None], 3, axis=-1)).all(axis=(1, 2, 3)).sum() == 1


def test_first_images_are_of_all_classes_and_always_the_same(tmp_path):
    own_images.folder(tmp_path)
    data = load_dataset(str(tmp_path), max_train_examples=6, max_test_examples=3)
    whole = load_dataset(str(tmp_path))
    assert len(set(whole.y_train[:6])) > 1
    np.testing.assert_array_equal(np.asarray(data.x_train), np.asarray(whole.x_train[:6]))
    np.testing.assert_array_equal(data.y_test, whole.y_test[:3])


def test_other_and_hidden_files_are_left_out_and_told_of(tmp_path):
    own_images.folder(tmp_path)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("a note")
    (tmp_path / "train" / "cat" / ".DS_Store").write_bytes(b"hidden")
    hidden = tmp_path / "train" / "cat" / ".ipynb_checkpoints" / "0-checkpoint.png"
    own_images.write(hidden, own_images.picture(0))
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "cat" / "round").symlink_to(tmp_path / "train" / "cat")
    with logged() as lines:
        assert len(load_dataset(str(tmp_path)).x_train) == 12
    assert lines == [f"leaves out 1 files that are no images: {tmp_path / 'train' / 'cat' / 'notes.txt'}"]


def test_images_lie_at_any_depth_and_the_second_split_may_be_called_val(tmp_path):
    own_images.folder(tmp_path)
    (tmp_path / "train" / "cat" / "more").mkdir()
    (tmp_path / "train" / "cat" / "0.png").rename(tmp_path / "train" / "cat" / "more" / "0.png")
    (tmp_path / "test").rename(tmp_path / "val")
    data = load_dataset(str(tmp_path))
    assert (len(data.x_train), len(data.x_test)) == (12, 6)


def test_the_fingerprint_follows_what_is_there(tmp_path):
    own_images.folder(tmp_path)
    first = load_dataset(str(tmp_path)).spec.fingerprint
    assert load_dataset(str(tmp_path), max_train_examples=3).spec.fingerprint == first
    own_images.write(tmp_path / "train" / "owl" / "9.png", own_images.picture(1))
    assert load_dataset(str(tmp_path)).spec.fingerprint != first


# Archives.


def archive(path, compressed=False, **changes):
    (np.savez_compressed if compressed else np.savez)(path, **own_images.arrays(**changes))
    return load_dataset(str(path))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_archive_gives_its_arrays(tmp_path, channels, compressed):
    expected = own_images.arrays(channels)
    data = archive(tmp_path / "own.npz", compressed, **expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(np.asarray(getattr(data, name)), array)
    assert data.spec.class_names == ("0", "1", "2")
    # Mapped where it lies, unless it is compressed.
    assert isinstance(data.x_train, np.memmap) is not compressed
    x, _ = data.test_set(4)
    np.testing.assert_array_equal(np.asarray(x), (expected["x_test"][:4] / 255).astype("float32"))


@pytest.mark.parametrize(
    ("changes", "classes"),
    [
        ({"x_train": np.zeros((12, 8, 10), "uint8"), "x_test": np.ones((6, 8, 10), "uint8")}, 3),
        ({"y_train": np.arange(12)[:, None] % 3, "y_test": np.arange(6)[:, None] % 3}, 3),
        ({"y_train": (np.arange(12) % 3).astype("float64")}, 3),
        ({"y_train": np.eye(4)[np.arange(12) % 3], "y_test": np.eye(4)[np.arange(6) % 3]}, 3),
        ({"class_names": np.array(["one", "two", "three", "four"])}, 4),
        ({"x_train": np.asfortranarray(own_images.arrays()["x_train"])}, 3),
    ],
    ids=["no channels", "labels [n, 1]", "whole floats", "one-hot", "class names", "Fortran's order"],
)
def test_an_archive_may_be_written_as_others_write_it(tmp_path, changes, classes):
    data = archive(tmp_path / "own.npz", **changes)
    assert data.spec.num_classes == classes and data.x_train.shape[:3] == (12, 8, 10)
    np.testing.assert_array_equal(data.y_train, np.arange(12) % 3)
    expected = own_images.arrays(**changes)["x_train"]
    np.testing.assert_array_equal(np.asarray(data.x_train).reshape(expected.shape), expected)


def test_flips_are_as_the_user_says(tmp_path):
    archive(tmp_path / "own.npz")
    assert load_dataset(str(tmp_path / "own.npz"), flips=True).spec.flips
    assert not load_dataset("mnist5k", flips=None).spec.flips


# TFDS.


@pytest.fixture(scope="module", name="prepared")
def fixture_prepared(tmp_path_factory):
    """A directory with the set `pictures` in both formats, and the arrays that it was made of."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    root, images = tmp_path_factory.mktemp("tfds"), own_images.arrays()
    names = {"image": tfds.features.Image(shape=(*SIZE, 3)), "label": tfds.features.ClassLabel(names=NAMES)}
    splits = {
        split: tf.data.Dataset.from_tensor_slices(
            {"image": images[f"x_{split}"], "label": images[f"y_{split}"]}
        )
        for split in ("train", "test")
    }
    for file_format in ("array_record", "tfrecord"):
        tfds.dataset_builders.store_as_tfds_dataset(
            "pictures",
            version="1.0.0",
            features=tfds.features.FeaturesDict(names),
            split_datasets=splits,
            data_dir=root / file_format,
            file_format=file_format,
            disable_shuffling=True,
        )
    return root, images


@pytest.mark.parametrize(("file_format", "lazy"), [("array_record", True), ("tfrecord", False)])
def test_a_set_of_tfds_is_read_by_number_where_its_format_allows(prepared, file_format, lazy):
    root, images = prepared
    data = load_dataset("tfds:pictures", data_dir=str(root / file_format))
    for name, array in images.items():
        np.testing.assert_array_equal(np.asarray(getattr(data, name)), array)
    assert isinstance(data.x_train, LazyImages) is lazy
    assert data.spec.class_names == NAMES and data.spec.image_shape == (*SIZE, 3)


def test_splits_and_sizes_are_as_the_user_says(prepared):
    root, images = prepared
    name = "tfds:pictures,train[:75%],train[75%:]"
    data = load_dataset(name, data_dir=str(root / "array_record"), image_size=(12, 6))
    assert data.x_train.shape == (9, 12, 6, 3) and data.x_test.shape == (3, 12, 6, 3)
    expected = Image.fromarray(images["x_train"][10]).resize((6, 12), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(data.x_test[1], np.asarray(expected))
