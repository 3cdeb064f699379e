"""Export for serving: one SavedModel, ONNX file or LiteRT file that needs nothing of divtf."""

import contextlib
import dataclasses
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from divtf.ensembles.ensemble import Ensemble
from divtf.ensembles.serving import litert_file, onnx_file, parity, saved_model, served
from divtf.ensembles.serving.formats import FORMATS
from divtf.ensembles.serving.request import Request, random_images
from divtf.errors import InputError, first_line, lacking_resource, require
from divtf.runtime.logs import get_logger
from divtf.storage.files import PARTIAL, atomic_path

_LOG = get_logger(__name__)


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was exported, and how it compares with the ensemble.

    Attributes:
        path: of the file or directory.
        format: "saved_model", "onnx" or "litert".
        precision: of the weights.
        differences: the largest of each output, by name, from the ensemble's.
        agreement: share of the images whose likeliest class is the ensemble's; None if none were given.
        accuracy: share of the images that are classified rightly; None without labels.
        ensemble_accuracy: the same of the ensemble.
    """

    path: Path
    format: str
    precision: str
    differences: dict[str, float]
    agreement: float | None = None
    accuracy: float | None = None
    ensemble_accuracy: float | None = None


def export_model(
    ensemble: Ensemble,
    path: str | os.PathLike,
    format: str = "saved_model",
    *,
    precision: str = "float32",
    calibration: Any = None,
    uint8: bool = False,
    images: Any = None,
    labels: Any = None,
) -> Exported:
    """Write the ensemble for serving, and check that what was written predicts what the ensemble does.

    From float32 `images` [batch, ...] of any batch come `probabilities` [batch, classes], the mean over
    the members, `members` [batch, members, classes], each one's, and `disagreement` [batch], the mean
    Kullback-Leibler divergence of the members' distributions from their mean, in nats; 0 where all agree.

    An ONNX or LiteRT file has these outputs by name. A SavedModel has endpoints `serve`, which gives
    `probabilities`; `members`, which gives them of each; and `disagreement`.

    Args:
        ensemble: a trained ensemble.
        path: what does not exist yet; of a SavedModel, also an empty directory.
        format: "saved_model", "onnx" or "litert"; the latter two are extras of this package.
        precision: of a LiteRT file: "float32"; "float16", weights of half the size; or "int8", weights and
            activations of a quarter. In- and outputs are float32 always.
        calibration: for int8, and needed for it: some hundred images [n, ...] like those that will be
            served, floating and in the range that the members take.
        uint8: of a SavedModel, whether its signature `serving_default` takes uint8 images in 0..255, which it
            divides by 255 unless the members rescale bytes themselves. By default it is `serve`.
        images: [n, ...] as `calibration`, to measure on how often the file and the ensemble agree on the
            class; for int8, those of `calibration` unless given.
        labels: of these images, class indices [n] or one-hot [n, C], to measure both accuracies.

    Returns:
        Where it lies and how it compares, which is logged too.

    Raises:
        InputError: if something is there already (nothing is overwritten), an extra is not installed, or the
            format cannot have these members.
        RuntimeError: if what was written predicts otherwise than the ensemble; then nothing is left.
    """
    require(isinstance(ensemble, Ensemble), "an Ensemble", f"{ensemble!r:.80}")
    request = Request(format, precision, uint8, calibration, images, labels).checked(ensemble)
    path = Path(path)
    require_free(path, format)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _partial(path, format) as partial:
        _write(ensemble, partial, request)
        exported = _measured(ensemble, partial, request)
        require_free(path, format)
    exported = dataclasses.replace(exported, path=path)
    _LOG.info(_line(exported))
    return exported


def export_saved_model(ensemble: Ensemble, path: str | os.PathLike) -> Path:
    """Write the ensemble as a SavedModel, as `export_model` does, and return the path."""
    return export_model(ensemble, path).path


def require_free(path: Path, format: str = "saved_model") -> None:
    """Refuse a place for an export that something takes already, or where nothing can be made.

    An empty directory is free for a SavedModel.

    Raises:
        InputError: names the path.
    """
    title, is_directory = FORMATS[format].title, FORMATS[format].is_directory
    empty = is_directory and path.is_dir() and not any(path.iterdir())
    require(not path.exists() or empty, f"a new path for the {title}", f"{path}, which exists")
    there = next(parent for parent in path.absolute().parents if parent.exists())
    usable = there.is_dir() and os.access(there, os.W_OK)
    require(usable, f"a path for the {title} in a directory that can be written", f"{path}")


@contextlib.contextmanager
def _partial(path: Path, format: str) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` at the end, or nothing is left."""
    if not FORMATS[format].is_directory:
        with atomic_path(path) as partial:
            yield partial
        return
    partial = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(ensemble: Ensemble, path: Path, request: Request) -> None:
    if request.format == "saved_model":
        return saved_model.write(ensemble, path, uint8=request.uint8)
    with _expressible(FORMATS[request.format].title):
        if request.format == "onnx":
            onnx_file.write(ensemble, path)
        else:
            litert_file.write(ensemble, path, precision=request.precision, calibration=request.calibration)


@contextlib.contextmanager
def _expressible(title: str) -> Iterator[None]:
    """Say in one line that a converter or run time, whose errors are of many kinds, cannot do it."""
    try:
        yield
    except (OSError, MemoryError, InputError):
        raise
    except Exception as error:
        if lacking_resource(error):
            raise
        # LiteRT's converter tells first where in a graph of its own, and somewhere within what.
        operations = ", ".join(sorted(set(re.findall(r"'(tf\.\w+)' op", str(error)))))
        raise InputError(
            f"Expected members of operations that the {title} can have. "
            f"Received: {operations or first_line(error):.200}"
        ) from error


def _loaded(path: Path, format: str) -> parity.Predict:
    """The written model as a function from images to `served.OUTPUTS`."""
    if format == "saved_model":
        return saved_model.load(path)
    with _expressible(FORMATS[format].title):
        predict = onnx_file.load(path) if format == "onnx" else litert_file.load(path)

    def tried(images: np.ndarray) -> dict[str, np.ndarray]:
        with _expressible(FORMATS[format].title):
            return predict(images)

    return tried


def _measured(ensemble: Ensemble, path: Path, request: Request) -> Exported:
    """The comparison of the written model with the ensemble; raises RuntimeError if they are not alike."""
    predict, reference = _loaded(path, request.format), parity.Reference(ensemble)
    precision = "saved_model" if request.format == "saved_model" else request.precision
    differences = parity.compare(reference, predict, request.compared(ensemble), precision)
    if request.uint8:
        parity.require_same_in_uint8(predict, random_images(ensemble), served.divisor(ensemble))
    exported = Exported(path, request.format, request.precision, differences)
    if request.images is None:
        return exported
    found = parity.classes(predict, request.images)
    expected = parity.classes(lambda images: reference(images)[0], request.images)
    exported = dataclasses.replace(exported, agreement=_share(found == expected))
    if request.labels is None:
        return exported
    right, ensembles = _share(found == request.labels), _share(expected == request.labels)
    return dataclasses.replace(exported, accuracy=right, ensemble_accuracy=ensembles)


def _share(hits: np.ndarray) -> float:
    return float(hits.mean())


def _line(exported: Exported) -> str:
    """What is logged: differences, agreement and accuracies, as far as they were measured."""
    largest = ", ".join(f"{name} {value:.1e}" for name, value in exported.differences.items())
    parts = [f"{exported.path}: largest differences from the ensemble: {largest}"]
    if exported.agreement is not None:
        parts.append(f"the same class for {exported.agreement:.2%} of the images")
    if exported.accuracy is not None:
        parts.append(f"accuracy {exported.accuracy:.2%}, the ensemble's {exported.ensemble_accuracy:.2%}")
    return "; ".join(parts)
