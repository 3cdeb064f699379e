"""What a run exports, and where to."""

import contextlib
from pathlib import Path

from divtf.data.datasets import ImageData
from divtf.data.images import as_float
from divtf.ensembles.ensemble import Ensemble
from divtf.ensembles.serving.export import export_model, require_free
from divtf.ensembles.serving.formats import CHOICES, FORMATS, require_installed
from divtf.errors import require
from divtf.pipeline.parts import OutputPart
from divtf.runtime import quiet_start
from divtf.runtime.logs import get_logger
from divtf.storage import checked_json

_LOG = get_logger(__name__)
# Where this run exported to, so that it is known for its own when the run is gone on with.
_EXPORTS = "exports.json"
# Training images that tell a file in int8 which values occur; more change little.
_CALIBRATION = 200
# Test images to measure on what lower precision costs: a per cent is enough, and LiteRT may take 0.1 s each.
_MEASURED = 1000


def paths_of(output: OutputPart) -> dict[str, Path]:
    """Where each format asked for goes: into the run directory, unless a path was given."""
    if output.export is None:
        return {}
    names = output.export_format or ("saved_model",)
    if output.export:
        return {name: Path(output.export) for name in names}
    return {name: Path(output.run_dir) / CHOICES[name].file for name in names}


def summary(output: OutputPart) -> list[str]:
    """A line for each export that was asked for: what it is, and where."""
    return [f"  {CHOICES[name].title:<14} {path}" for name, path in paths_of(output).items()]


def missing(output: OutputPart) -> dict[str, Path]:
    """Where formats go that are asked for and not there yet.

    Raises:
        InputError: if a place is taken by something else, or by what the run itself writes, or if a
            format's extra is not installed: better said before the training than after.
    """
    return {name: path for name, path in paths_of(output).items() if _is_missing(name, path, output)}


def _is_missing(name: str, path: Path, output: OutputPart) -> bool:
    choice, directory = CHOICES[name], Path(output.run_dir)
    own, format = choice.file, choice.arguments["format"]
    place, run = path.resolve(), directory.resolve()
    apart = not (place.is_relative_to(run) or run.is_relative_to(place))
    require(
        apart or place == run / own,
        f"--export outside of the run directory, or as its {own}",
        f"export={path}",
    )
    is_runs = not output.export or str(path.absolute()) in _exported(directory)
    whole = path / "saved_model.pb" if FORMATS[format].is_directory else path
    if is_runs and whole.is_file():
        return False
    require_free(path, format)
    require_installed(format)
    return True


def export(target: Ensemble, output: OutputPart, data: ImageData) -> None:
    """Write what is missing of a run's target, and note in the run directory where it is."""
    directory, images = Path(output.run_dir), as_float(data.x_train[:_CALIBRATION])
    test_images, test_labels = data.test_set(_MEASURED)
    for name, path in missing(output).items():
        # Noted before it is made: the move to its place is all or nothing.
        checked_json.write_json(directory / _EXPORTS, sorted({*_exported(directory), str(path.absolute())}))
        choice = CHOICES[name].arguments
        _LOG.info(f"exports a {CHOICES[name].title} to {path}")
        reduced = "precision" in choice
        with quiet_start.converting() if choice["format"] == "litert" else contextlib.nullcontext():
            export_model(
                target,
                path,
                **choice,
                calibration=images if choice.get("precision") == "int8" else None,
                images=test_images if reduced else None,
                labels=test_labels if reduced else None,
            )


def _exported(directory: Path) -> list[str]:
    """Where the run has exported to before."""
    path = directory / _EXPORTS
    paths = checked_json.read_json(path) if path.exists() else []
    require(isinstance(paths, list), f"a list of paths in {path}", f"{paths!r:.80}")
    return paths
