"""What images of the user's own come as, in whatever form they are kept."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Splits:
    """Labelled images to train and to test on.

    Attributes:
        train: images, uint8 [n, H, W, C], an array or `LazyImages`, and their labels, int64 [n].
        test: as many others.
        class_names: what the labels 0, 1, ... mean.
        fingerprint: tells these images from others under the same name.
    """

    train: tuple[Any, Any]
    test: tuple[Any, Any]
    class_names: tuple[str, ...]
    fingerprint: str
