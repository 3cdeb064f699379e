"""Images of the user's own, by the name that they are given: an archive, a folder, a set of TFDS.

No TensorFlow, and no file is looked at, but where images are loaded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from divtf.data.splits import Splits
from divtf.errors import require

ARCHIVE, TFDS = ".npz", "tfds:"


def is_own(name: str) -> bool:
    """Whether the name is one of an archive, a folder or a set of TFDS rather than of `DATASETS`."""
    archive = name.lower().endswith(ARCHIVE)
    return name.startswith(TFDS) or archive or os.sep in name or os.path.isdir(name)


def absolute(name: str) -> str:
    """The name, a path made absolute: it means the same wherever it is read again."""
    return name if name.startswith(TFDS) else os.path.abspath(os.path.expanduser(name))


def short_name(name: str) -> str:
    """A name for tables and directories: a file's or folder's own, or that of TFDS."""
    own = name.removeprefix(TFDS).split(",")[0].replace("/", "-").replace(":", "-")
    own = own if name.startswith(TFDS) else re.sub(r"\.npz$", "", Path(name).name, flags=re.IGNORECASE)
    return re.sub(r"[^\w.-]+", "_", own) or "images"


def load(name: str, data_dir: str | None, image_size: Sequence[int] | None) -> Splits:
    """Find the images of a name for which `is_own` holds.

    Args:
        name: PATH.npz with the arrays x_train, y_train, x_test, y_test, and class_names if there are any; a
            directory with train/CLASS/file and test/CLASS/file; or tfds:NAME, or tfds:NAME,TRAIN,TEST with
            splits as tensorflow-datasets writes them, as "train[:80%]".
        data_dir: data directory of tensorflow-datasets.
        image_size: height and width to which images are resized; None where they all have one.

    Raises:
        InputError: if the images cannot be had, or do not fit together.
    """
    # Each imports what it reads with.
    if name.startswith(TFDS):
        from divtf.data import tfds_sets

        return tfds_sets.load(name.removeprefix(TFDS), data_dir, image_size)
    path = Path(name).expanduser()
    require(path.exists(), "an archive or a directory of images", f"{path}, which does not exist")
    if path.is_dir():
        from divtf.data import image_folders

        return image_folders.load(path, image_size)
    from divtf.data import archives

    require(path.suffix.lower() == ARCHIVE, "a directory of images, or an archive PATH.npz", f"{path}")
    return archives.load(path)
