"""Where a run exports its SavedModel to."""

from pathlib import Path

from divtf.ensembles.ensemble import Ensemble
from divtf.ensembles.export import export_saved_model, require_free
from divtf.errors import require
from divtf.pipeline.parts import OutputPart
from divtf.storage import checked_json, run_directory

# Where this run exported to, so that it is known for its own when the run is gone on with.
_EXPORTS = "exports.json"


def path_of(output: OutputPart) -> Path:
    """Where the SavedModel goes: into the run directory, unless a path was given."""
    return Path(output.export) if output.export else Path(output.run_dir) / run_directory.SAVED_MODEL


def is_wanted(output: OutputPart) -> bool:
    """Whether the SavedModel is asked for and not there yet.

    Raises:
        InputError: if its place is taken by something else, or by what the run itself writes: better said
            before the training than after.
    """
    if output.export is None:
        return False
    path, directory = path_of(output), Path(output.run_dir)
    place, run = path.resolve(), directory.resolve()
    apart = not (place.is_relative_to(run) or run.is_relative_to(place))
    require(
        apart or place == run / run_directory.SAVED_MODEL,
        f"--export outside of the run directory, or as its {run_directory.SAVED_MODEL}",
        f"export={path}",
    )
    is_runs = not output.export or str(path.absolute()) in _exported(directory)
    if is_runs and (path / "saved_model.pb").exists():
        return False
    require_free(path)
    return True


def export(target: Ensemble, output: OutputPart) -> None:
    """Write the SavedModel of a run's target, and note in the run directory where it is."""
    path, directory = path_of(output), Path(output.run_dir)
    # Noted before it is made: the move to its place is all or nothing.
    checked_json.write_json(directory / _EXPORTS, sorted({*_exported(directory), str(path.absolute())}))
    export_saved_model(target, path)


def _exported(directory: Path) -> list[str]:
    """Where the run has exported to before."""
    path = directory / _EXPORTS
    paths = checked_json.read_json(path) if path.exists() else []
    require(isinstance(paths, list), f"a list of paths in {path}", f"{paths!r:.80}")
    return paths
