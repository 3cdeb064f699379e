"""Images in an archive of NumPy's, PATH.npz: arrays are mapped where they lie, and nothing is unpickled."""

import hashlib
import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from divtf.data.splits import Splits
from divtf.errors import InputError, first_line, require

_NAMES = ("x_train", "y_train", "x_test", "y_test")
_CLASS_NAMES = "class_names"
# Of a member's own header in a ZIP archive: its fixed part, and where in it the lengths of the rest stand.
_FIXED, _LENGTHS = 30, slice(26, 30)


def load(path: Path) -> Splits:
    """The images of an archive.

    Arrays that `np.savez` has written are mapped: only what is asked for is read. Those that are compressed
    are read into memory.

    Raises:
        InputError: if it is not such an archive, or lacks an array, or one holds Python objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            lacking = [name for name in _NAMES if name not in members]
            require(not lacking, f"arrays {', '.join(_NAMES)} in {path}", f"none named {', '.join(lacking)}")
            wanted = [*_NAMES, *([_CLASS_NAMES] if _CLASS_NAMES in members else [])]
            arrays = {name: _array(path, archive, members[name]) for name in wanted}
            fingerprint = hashlib.sha256(repr([(name, members[name].CRC) for name in wanted]).encode())
    # Python's reader of archives also raises RuntimeError, for a password that it lacks.
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"Expected {path} as np.savez writes it. Received: {first_line(error)}") from error
    train, test = (
        (
            _with_channels(arrays[f"x_{split}"], f"x_{split} of {path}"),
            _indices(arrays[f"y_{split}"], f"y_{split} of {path}"),
        )
        for split in ("train", "test")
    )
    names = _names(arrays[_CLASS_NAMES], path) if _CLASS_NAMES in arrays else _numbers(train[1])
    require(len(names) >= 2, f"at least two classes in {path}", f"{len(names)}")
    return Splits(train, test, names, fingerprint.hexdigest())


def _array(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """A member as an array, mapped if it lies in the file as it is."""
    with archive.open(info) as member:
        shape, fortran, dtype = _header(member)
    require(not dtype.hasobject, f"arrays of numbers in {path}", f"Python objects as {info.filename}")
    if info.compress_type != zipfile.ZIP_STORED:
        free = psutil.virtual_memory().available
        require(
            info.file_size < free,
            f"{path} as np.savez writes it, which is read where it lies",
            f"{info.filename}, compressed, of {info.file_size / 2**30:.1f} GiB; {free / 2**30:.1f} are free",
        )
        return np.load(io.BytesIO(archive.read(info)), allow_pickle=False)
    with path.open("rb") as handle:
        handle.seek(info.header_offset)
        lengths = np.frombuffer(handle.read(_FIXED)[_LENGTHS], "<u2")
        handle.seek(int(lengths.sum()), io.SEEK_CUR)
        _header(handle)
        if 0 in shape:  # Nothing to map.
            return np.zeros(shape, dtype)
        order: Any = "F" if fortran else "C"
        return np.memmap(handle, dtype, "r", handle.tell(), shape, order)


def _header(handle: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether it is in Fortran's order, and dtype of an array; the handle is then at its values."""
    version = np.lib.format.read_magic(handle)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(handle)


def _with_channels(images: np.ndarray, what: str) -> np.ndarray:
    """Images [n, H, W, C], or [n, H, W], which have one channel."""
    expected = f"uint8 images in 0..255 as {what}: of floats x in [0, 1], (255 * x).round().astype('uint8')"
    require(images.dtype == "uint8", expected, f"{images.dtype}")
    require(images.ndim in (3, 4), f"images [n, H, W] or [n, H, W, C] as {what}", f"shape {images.shape}")
    return images[..., None] if images.ndim == 3 else images


def _indices(labels: np.ndarray, what: str) -> np.ndarray:
    """Labels [n], [n, 1] or one-hot [n, C] as indices [n]."""
    labels = np.asarray(labels)
    fits = labels.ndim in (1, 2) and labels.dtype.kind in "biuf"
    require(fits, f"labels [n], [n, 1] or one-hot [n, classes] as {what}", f"{labels.dtype} {labels.shape}")
    if labels.dtype.kind == "f" and (labels == np.rint(labels)).all():
        labels = labels.astype("int64")
    if labels.ndim == 2 and labels.shape[1] > 1:
        one_hot = bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all())
        require(one_hot, f"labels [n], [n, 1] or one-hot [n, classes] as {what}", f"shape {labels.shape}")
        return labels.argmax(axis=1)
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _names(names: np.ndarray, path: Path) -> tuple[str, ...]:
    """The names of the classes."""
    texts = names.astype(str).tolist() if names.ndim == 1 and names.dtype.kind in "US" else []
    holds = bool(texts) and len(set(texts)) == len(texts) and all(name.strip() for name in texts)
    require(
        holds and all(map(str.isprintable, texts)),
        f"distinct names of the classes, [classes] of text, as {_CLASS_NAMES} of {path}",
        f"{names.dtype} {names.shape}: {texts or names.tolist()!r:.80}",
    )
    return tuple(texts)


def _numbers(labels: np.ndarray) -> tuple[str, ...]:
    """Names for classes that have none."""
    return tuple(map(str, range(int(labels.max(initial=-1)) + 1)))
