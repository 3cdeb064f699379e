"""Images of a user's own, made for tests: a folder, an archive, a prepared set of TFDS."""

import numpy as np
from PIL import Image

SIZE = (8, 10)
NAMES = ("cat", "dog", "owl")
COUNTS = {"train": 4, "test": 2}


def picture(seed, channels=3, size=SIZE):
    """A random image as an array."""
    shape = (*size, channels) if channels > 1 else size
    return np.random.default_rng(seed).integers(0, 256, shape, dtype="uint8")


def write(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)


def folder(root, channels=3, size=SIZE, suffix="png"):
    """A folder of images, and by path below it the array that each was made of."""
    made = {}
    for split, count in COUNTS.items():
        for name in NAMES:
            for number in range(count):
                path = root / split / name / f"{number}.{suffix}"
                made[path] = picture(len(made), channels, size)
                write(path, made[path])
    return made


def arrays(channels=3, **changes):
    """The arrays of an archive; some may be changed, or left out by None."""
    shape = (*SIZE, channels)
    rng = np.random.default_rng(0)
    values = {
        "x_train": rng.integers(0, 256, (12, *shape), dtype="uint8"),
        "y_train": np.arange(12) % 3,
        "x_test": rng.integers(0, 256, (6, *shape), dtype="uint8"),
        "y_test": np.arange(6) % 3,
    }
    return {name: value for name, value in (values | changes).items() if value is not None}
