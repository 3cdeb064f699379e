"""Images of one's own that cannot be had: one line each, of what was expected and what was received."""

import pickle
import shutil
import zipfile

import numpy as np
import own_images
import psutil
import pytest
from damage import Hostile, truncate
from own_images import SIZE, arrays

from divtf.data.datasets import load_dataset
from divtf.errors import InputError


def refusal(name, **options):
    """The one line that loading these images comes to."""
    with pytest.raises(InputError) as caught:
        load_dataset(str(name), **options)
    message = str(caught.value)
    assert message.startswith("Expected ") and ". Received: " in message and "\n" not in message
    return message


# Folders: what is done to a good one, and words of what is said.


def remove(part):
    return lambda root: shutil.rmtree(root / part)


def rename(part, other):
    return lambda root: (root / part).rename(root / other)


def put(part, content):
    return lambda root: (root / part).write_bytes(content)


def save(part, *args, **options):
    return lambda root: own_images.write(root / part, *args, **options)


def emptied(part):
    return lambda root: [path.unlink() for path in (root / part).iterdir()]


def sixteen_bits(root):
    from PIL import Image

    Image.fromarray(np.full(SIZE, 40_000, "uint16")).save(root / "train/cat/0.png")


def only_class(root):
    for name in ("dog", "owl"):
        for split in ("train", "test"):
            shutil.rmtree(root / split / name)


def no_class(root):
    for split in ("train", "test"):
        shutil.rmtree(root / split)
        (root / split).mkdir()


FOLDERS = {
    "no training split": (remove("train"), {}, "train/CLASS/file in", "no directory"),
    "no test split": (remove("test"), {}, "test/CLASS/file in", "no directory"),
    "a file in a split's place": (lambda r: (remove("test")(r), put("test", b"x")(r)), {}, "test/CLASS/file"),
    "a class that is not tested": (remove("test/owl"), {}, "the same classes", "only: owl"),
    "a class that is not trained": (remove("train/cat"), {}, "the same classes", "only: cat"),
    "classes of another spelling": (rename("test/cat", "test/Cat"), {}, "the same classes", "only: Cat, cat"),
    "one class": (only_class, {}, "at least two classes", "cat"),
    "no class": (no_class, {}, "at least two classes", "none"),
    "an empty class": (emptied("train/dog"), {}, "images in", "none of .bmp, .gif, .jpeg"),
    "a class of texts": (
        lambda r: (emptied("test/dog")(r), put("test/dog/a.txt", b"dog")(r)),
        {},
        "images in",
        "test/dog",
    ),
    "an empty file": (
        put("train/cat/0.png", b""),
        {},
        "an image that can be read",
        "cat/0.png: cannot identify",
    ),
    "a page for an image": (
        put("test/owl/0.png", b"<html>404</html>"),
        {},
        "an image that can be read",
        "owl/0",
    ),
    "a truncated header": (
        put("train/cat/0.png", b"\x89PNG\r\n\x1a\n"),
        {},
        "an image that can be read",
        "0.png",
    ),
    "a pickle for an image": (
        lambda r: put("train/cat/0.png", pickle.dumps(Hostile(r / "witness")))(r),
        {},
        "an image that can be read",
    ),
    "a link to nothing": (
        lambda r: (r / "train/cat/new.png").symlink_to(r / "nowhere"),
        {},
        "an image that can be read",
        "No such file",
    ),
    "images of several sizes": (
        save("train/cat/0.png", own_images.picture(1, size=(9, 9))),
        {},
        "--image_size=HEIGHT,WIDTH",
        "8 x 10",
        "9 x 9",
    ),
    "images of 16 bits": (sixteen_bits, {}, "8 bits a channel", "mode I;16"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_folder_is_refused(case, tmp_path):
    own_images.folder(tmp_path)
    harm, options, *words = FOLDERS[case]
    harm(tmp_path)
    message = refusal(tmp_path, **options)
    for word in words:
        assert word in message, message
    assert not (tmp_path / "witness").exists()


def test_file_that_breaks_off_is_named_when_it_is_read(tmp_path):
    made = own_images.folder(tmp_path, size=(64, 64))
    broken = next(path for path in made if "test" in path.parts)
    truncate(broken)
    data = load_dataset(str(tmp_path))
    with pytest.raises(InputError, match=rf"an image that can be read. Received: {broken}: "):
        np.asarray(data.test_set()[0])


def test_bomb_is_not_unpacked(tmp_path, monkeypatch):
    from PIL import Image

    own_images.folder(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert "an image that can be read" in refusal(tmp_path)


# Archives.


def objects(count):
    return np.array([{} for _ in range(count)])


ARCHIVES = {
    "no test images": ({"x_test": None}, "arrays x_train, y_train, x_test, y_test", "none named x_test"),
    "no labels": ({"y_train": None, "y_test": None}, "none named y_train, y_test"),
    "Python objects as labels": (
        {"y_train": objects(12)},
        "arrays of numbers",
        "Python objects as y_train.npy",
    ),
    "Python objects as images": (
        {"x_train": objects(12)},
        "arrays of numbers",
        "Python objects as x_train.npy",
    ),
    "floats": ({"x_train": np.zeros((12, *SIZE, 3))}, "uint8 images in", "float64"),
    "vectors": (
        {"x_train": np.zeros((12, 30), "uint8")},
        "images [n, H, W] or [n, H, W, C]",
        "shape (12, 30)",
    ),
    "videos": ({"x_test": np.zeros((6, 2, 8, 10, 3), "uint8")}, "images [n, H, W]", "x_test of"),
    "other sizes in test": (
        {"x_test": np.zeros((6, 9, 9, 3), "uint8")},
        "images of shape (8, 10, 3)",
        "(9, 9, 3)",
    ),
    "too few labels": ({"y_train": np.arange(5)}, "12 labels in", "shape (5,)"),
    "no images": (
        {"x_train": np.zeros((0, *SIZE, 3), "uint8"), "y_train": np.zeros(0, int)},
        "two classes",
        "0",
    ),
    "no test images at all": (
        {"x_test": np.zeros((0, 8, 10, 3), "uint8"), "y_test": np.zeros(0, int)},
        "at least one",
    ),
    "labels of halves": ({"y_train": np.arange(12) / 2}, "integer labels", "float64"),
    "negative labels": ({"y_test": np.arange(6) - 1}, "labels in [0, 3)", "from -1 to 4"),
    "a class that is not trained": ({"y_test": np.arange(6)}, "labels in [0, 3)", "from 0 to 5"),
    "labels of text": ({"y_train": np.array(["a", "b"] * 6)}, "labels [n], [n, 1] or one-hot", "<U1 (12,)"),
    "one label for all": ({"y_train": np.array(1)}, "labels [n], [n, 1] or one-hot", "int64 ()"),
    "no pixels": ({"x_train": np.zeros((12, 0, 10, 3), "uint8")}, "at least one pixel", "(0, 10, 3)"),
    "one name for all": ({"class_names": np.array("cats")}, "distinct names of the classes", "<U4 ()"),
    "names that are one": ({"class_names": np.array(["a", "a", "b"])}, "distinct names", "['a', 'a', 'b']"),
    "an empty name": ({"class_names": np.array(["a", "", "b"])}, "distinct names", "['a', '', 'b']"),
    "a name of two lines": ({"class_names": np.array(["a", "b\nc", "d"])}, "distinct names", "text"),
    "numbers for names": ({"class_names": np.arange(3)}, "distinct names", "[0, 1, 2]"),
    "soft labels": ({"y_train": np.full((12, 3), 1 / 3)}, "labels [n], [n, 1] or one-hot", "shape (12, 3)"),
    "one class": ({"y_train": np.zeros(12, int), "y_test": np.zeros(6, int)}, "at least two classes", "1"),
    "fewer names than classes": ({"class_names": np.array(["a", "b"])}, "labels in [0, 2)", "from 0 to 2"),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_archive_is_refused(case, tmp_path):
    changes, *words = ARCHIVES[case]
    path = tmp_path / "own.npz"
    np.savez(path, **arrays(**changes))
    message = refusal(path)
    for word in words:
        assert word in message, message


def damaged(path):
    """A compressed archive with a stream that is none."""
    np.savez_compressed(path, **arrays())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("x_train.npy").header_offset + 80
    content = bytearray(path.read_bytes())
    content[start : start + 40] = bytes([255]) * 40
    path.write_bytes(content)


def encrypted(path):
    """An archive whose first member says that it is encrypted, in the archive's list and its own header."""
    np.savez(path, **arrays())
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    path.write_bytes(content)


NOT_ARCHIVES = {
    "an empty file": lambda path: path.write_bytes(b""),
    "a text": lambda path: path.write_text("x_train"),
    "a pickle": lambda path: path.write_bytes(pickle.dumps(Hostile(path.with_name("witness")))),
    "a damaged stream": damaged,
    "an encrypted archive": encrypted,
    "half an archive": lambda path: (np.savez(path, **arrays()), truncate(path)),
    "one array": lambda path: path.write_bytes(b"\x93NUMPY"),
    "an archive of texts": lambda path: _zip(path, b"12 images"),
    "an archive of pickles": lambda path: _zip(path, pickle.dumps(Hostile(path.with_name("witness")))),
}


def _zip(path, content):
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(f"{name}.npy", content)


@pytest.mark.parametrize("case", NOT_ARCHIVES)
def test_what_is_no_archive_is_refused_unopened(case, tmp_path):
    path = tmp_path / "own.npz"
    NOT_ARCHIVES[case](path)
    assert str(path) in refusal(path)
    assert not (tmp_path / "witness").exists()


def test_array_that_was_pickled_is_refused_unopened(tmp_path):
    """An array of objects, as `np.savez` writes it by a pickle that makes a file where it is read."""
    path = tmp_path / "own.npz"
    hostile = np.array([Hostile(tmp_path / "witness") for _ in range(12)])
    np.savez(path, **arrays(x_train=hostile))
    assert "Python objects as x_train.npy" in refusal(path)
    assert not (tmp_path / "witness").exists()


def test_compressed_archive_beyond_memory_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "own.npz"
    np.savez_compressed(path, **arrays())
    free = psutil.virtual_memory()._replace(available=1000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    assert "as np.savez writes it, which is read where it lies. Received: x_train.npy, compressed" in refusal(
        path
    )


# Names, and sets of TFDS.


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        (
            "/no/such/place",
            {},
            ["an archive or a directory of images", "/no/such/place, which does not exist"],
        ),
        ("/no/such/place.npz", {}, ["which does not exist"]),
        ("/dev/null", {}, ["a directory of images, or an archive PATH.npz", "/dev/null"]),
        ("mnist5k", {"image_size": (0, 0)}, ["image_size as (height, width), each at least 1", "(0, 0)"]),
        ("mnist5k", {"image_size": (8,)}, ["image_size as (height, width)", "(8,)"]),
        ("mnist5k", {"image_size": (-1, 3)}, ["image_size as (height, width)", "(-1, 3)"]),
        ("flowers", {}, ["PATH.npz, a directory or tfds:NAME", "'flowers'"]),
        ("mnist5k", {"image_size": (32, 32)}, ["--image_size with a directory", "(28, 28)"]),
        ("mnist", {"data_dir": "/no/such/place"}, ["mnist prepared by tensorflow-datasets"]),
        ("tfds:", {}, ["tfds:NAME", "Received: tfds:"]),
        ("tfds:no_such_set", {}, ["no_such_set prepared by tensorflow-datasets", "take another --dataset"]),
        ("tfds:mnist,train", {}, ["tfds:NAME,TRAIN,TEST with two splits", "tfds:mnist,train"]),
        ("tfds:mnist,a,b,c", {}, ["two splits"]),
    ],
)
def test_name_is_refused(name, options, words, monkeypatch):
    import socket
    import urllib.request

    def refuse(*args, **kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    message = refusal(name, **options)
    for word in words:
        assert word in message, message


def prepared(root, features, splits=("train", "test"), shape=(*SIZE, 3)):
    """A set of TFDS with these features, as one that the user names would be."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    pictures = np.stack([own_images.picture(i, size=shape[:2]) for i in range(4)])
    images = {
        key: pictures[..., : kind.shape[-1]].astype(kind.np_dtype)
        for key, kind in features.items()
        if "image" in key
    }
    labels = {key: np.arange(4) % 2 for key in features if "image" not in key}
    examples = tf.data.Dataset.from_tensor_slices(images | labels)
    tfds.dataset_builders.store_as_tfds_dataset(
        "things",
        version="1.0.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets=dict.fromkeys(splits, examples),
        data_dir=root,
        disable_shuffling=True,
    )


def image(*shape, dtype="uint8"):
    import tensorflow_datasets as tfds

    return tfds.features.Image(shape=shape or (*SIZE, 3), dtype=np.dtype(dtype).type)


def label():
    import tensorflow_datasets as tfds

    return tfds.features.ClassLabel(num_classes=2)


TFDS = {
    "no test split": (
        lambda: {"image": image(), "label": label()},
        ("train",),
        "splits train and test",
        "train[:80%]",
    ),
    "no training split": (lambda: {"image": image(), "label": label()}, ("test",), "splits train and test"),
    "no label": (
        lambda: {"image": image()},
        ("train", "test"),
        "one class label an example",
        "none among image",
    ),
    "no image": (lambda: {"label": label()}, ("train", "test"), "one image an example", "none among label"),
    "floats": (
        lambda: {"image": image(*SIZE, 1, dtype="float32"), "label": label()},
        ("train", "test"),
        "uint8",
        "float32",
    ),
    "16 bits": (
        lambda: {"image": image(dtype="uint16"), "label": label()},
        ("train", "test"),
        "uint8",
        "uint16",
    ),
    "two images": (
        lambda: {"image": image(), "image_2": image(), "label": label()},
        ("train", "test"),
        "one image an example",
        "image, image_2",
    ),
    "several sizes": (
        lambda: {"image": image(None, None, 3), "label": label()},
        ("train", "test"),
        "--image_size=HEIGHT,WIDTH for tfds:things",
        "(None, None, 3)",
    ),
}


@pytest.mark.parametrize("case", TFDS)
def test_set_of_tfds_is_refused(case, tmp_path):
    features, splits, *words = TFDS[case]
    prepared(tmp_path, features(), splits)
    message = refusal("tfds:things", data_dir=str(tmp_path))
    for word in words:
        assert word in message, message


def test_set_beyond_memory_that_cannot_be_read_by_number_says_how_it_can(tmp_path, monkeypatch):
    prepared(tmp_path, {"image": image(), "label": label()})
    free = psutil.virtual_memory()._replace(available=1000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    message = refusal("tfds:things", data_dir=str(tmp_path))
    assert 'download_and_prepare(file_format="array_record")' in message and "tfrecord" in message
