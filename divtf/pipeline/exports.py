"""Where a run exports its SavedModel to."""

from pathlib import Path

from divtf.ensembles.ensemble import Ensemble
from divtf.ensembles.export import export_saved_model, require_free
from divtf.errors import require
from divtf.pipeline.config import RunConfig
from divtf.storage import checked_json, run_directory

# Where this run exported to, so that it is known for its own when the run is gone on with.
_EXPORTS = "exports.json"


def wants_export(config: RunConfig, directory: Path) -> bool:
    """Whether the SavedModel is asked for and not there yet.

    Raises:
        InputError: if its place is taken by something else, or by what the run itself writes: better said
            before the training than after.
    """
    if config.export is None:
        return False
    path = export_path(config, directory)
    place, run = path.resolve(), directory.resolve()
    apart = not (place.is_relative_to(run) or run.is_relative_to(place))
    require(
        apart or place == run / run_directory.SAVED_MODEL,
        f"--export outside of the run directory, or as its {run_directory.SAVED_MODEL}",
        f"export={path}",
    )
    ours = not config.export or str(path.absolute()) in _exports(directory)
    if ours and (path / "saved_model.pb").exists():
        return False
    require_free(path)
    return True


def export(target: Ensemble, path: Path, directory: Path) -> None:
    """Write the SavedModel of a run's target, and note in the run directory where it is."""
    # Noted before it is made: the move to its place is all or nothing.
    checked_json.write_json(directory / _EXPORTS, sorted({*_exports(directory), str(path.absolute())}))
    export_saved_model(target, path)


def _exports(directory: Path) -> list[str]:
    path = directory / _EXPORTS
    paths = checked_json.read_json(path) if path.exists() else []
    require(isinstance(paths, list), f"a list of paths in {path}", f"{paths!r:.80}")
    return paths


def export_path(config: RunConfig, directory: Path) -> Path:
    """Where the run's SavedModel goes: in its directory, unless a path was given."""
    return Path(config.export) if config.export else directory / run_directory.SAVED_MODEL
