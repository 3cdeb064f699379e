"""What an export is asked for, checked before anything is done."""

import dataclasses
from typing import Any

import numpy as np

from divtf.ensembles.ensemble import Ensemble
from divtf.ensembles.serving import served
from divtf.ensembles.serving.formats import FORMATS, PRECISIONS, require_installed
from divtf.errors import require
from divtf.networks.logits import class_indices
from divtf.runtime.private_names import layers_of

# What a single file can hold, whose parts are found by signed 32-bit numbers.
_LARGEST = 2**31 - 2**20
_RANDOM = 4


@dataclasses.dataclass(frozen=True)
class Request:
    """Arguments of `export_model`; `checked` makes of them what the writers take."""

    format: str
    precision: str
    uint8: bool
    calibration: Any
    images: Any
    labels: Any

    def checked(self, ensemble: Ensemble) -> "Request":
        """The same with images in float32 and labels as indices.

        Raises:
            InputError: says what does not fit.
        """
        _require_known(self)
        shape = served.input_shape(ensemble)
        require_installed(self.format)
        if self.format != "saved_model":
            _require_fitting(ensemble, self.format)
        images, calibration = _floating(self.images, shape, "images"), None
        if self.precision == "int8":
            calibration = _floating(self.calibration, shape, "calibration images")
            images = calibration if images is None else images
        labels = _labels(self.labels, self.images, ensemble.num_classes)
        return dataclasses.replace(self, calibration=calibration, images=images, labels=labels)

    def compared(self, ensemble: Ensemble) -> np.ndarray:
        """Images [n >= 4, ...] to compare on: for int8 those that it was calibrated for, else random ones."""
        if self.precision != "int8":
            return random_images(ensemble)
        return np.concatenate([self.calibration] * -(-_RANDOM // len(self.calibration)))


def random_images(ensemble: Ensemble) -> np.ndarray:
    """Images [4, ...] in [0, 1), float32, the same ones each time; open sizes are 32."""
    shape = [size or 32 for size in served.input_shape(ensemble)[1:]]
    return np.random.default_rng(0).random((_RANDOM, *shape), dtype="float32")


def _require_known(request: Request) -> None:
    names, precision = list(FORMATS), request.precision
    known = isinstance(request.format, str) and request.format in FORMATS
    require(known, f"format as one of {names}", f"format={request.format!r:.80}")
    known = isinstance(precision, str) and precision in PRECISIONS
    require(known, f"precision as one of {list(PRECISIONS)}", f"precision={precision!r:.80}")
    possible = FORMATS[request.format].precisions
    require(
        precision in possible,
        f"precision as one of {list(possible)} for format {request.format}",
        f"precision={precision!r}",
    )
    require(isinstance(request.uint8, bool), "uint8 as True or False", f"uint8={request.uint8!r:.80}")
    require(
        not request.uint8 or request.format == "saved_model",
        "uint8=False for formats other than saved_model",
        f"uint8=True for {request.format}",
    )
    given, needed = request.calibration is not None, precision == "int8"
    require(given or not needed, "calibration images for precision int8", "none")
    require(needed or not given, f"no calibration for precision {precision}: int8 alone needs it", "some")
    require(
        request.labels is None or request.images is not None, "labels with their images", "labels without"
    )


def _require_fitting(ensemble: Ensemble, format: str) -> None:
    """Refuse members that compute in what the run times do not, or whose weights no single file holds."""
    title = FORMATS[format].title
    for member in ensemble.members:
        other = {layer.compute_dtype for layer in layers_of(member)} & {"bfloat16", "float16", "float64"}
        require(
            not other,
            f"members that compute in float32 for the {title}",
            f"member {member.name!r}, which computes in {', '.join(sorted(other))}",
        )
    size = 4 * ensemble.count_params()
    require(size < _LARGEST, f"weights of less than 2 GiB for one {title}", f"{size / 2**30:.1f} GiB")


def _floating(images: Any, shape: tuple[int | None, ...], name: str) -> np.ndarray | None:
    """Images as float32 [n, ...]."""
    if images is None:
        return None
    expected = f"{name} [n >= 1, ...] of the members' shape {list(shape)}, floating and finite"
    try:
        array = np.asarray(images)
    except (ValueError, TypeError):
        array = np.asarray(None)
    sizes = zip(array.shape[1:], shape[1:], strict=False)
    fits = array.ndim == len(shape) and all(size in (found, None) for found, size in sizes)
    require(fits and len(array) > 0, expected, f"{array.dtype} of shape {list(array.shape)}")
    require(array.dtype.kind == "f", f"{expected}, in the range that the members take", f"{array.dtype}")
    array = array.astype("float32")
    require(bool(np.isfinite(array).all()), expected, f"{name} with NaN or infinity")
    return array


def _labels(labels: Any, images: Any, num_classes: int) -> np.ndarray | None:
    if labels is None:
        return None
    indices = class_indices(labels)
    require(len(indices) == len(images), "one label an image", f"{len(indices)} for {len(images)} images")
    within = bool((indices >= 0).all() and (indices < num_classes).all())
    require(within, f"labels in [0, {num_classes})", f"labels in [{indices.min()}, {indices.max()}]")
    return indices
