"""From a run directory back to Python: its trained ensemble, its surrogate, and its images."""

import dataclasses
import os
from pathlib import Path

from divtf.data.datasets import ImageData
from divtf.ensembles.ensemble import Ensemble
from divtf.errors import require
from divtf.evaluation.adversarial_sets import AdversarialSets
from divtf.pipeline import experiment, finished, shared_ensembles, shared_paths, trained
from divtf.pipeline.budget import settings
from divtf.pipeline.config import RunConfig
from divtf.pipeline.parts import DataPart
from divtf.storage import run_directory


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """A finished run.

    Attributes:
        ensemble: as it was measured, in float32, and compiled.
        config: what the run was told, with the directory that it was loaded from.
        data: the images as the run had them.
        name: of the target, as "T_Div".
    """

    ensemble: Ensemble
    config: RunConfig
    data: ImageData

    @property
    def name(self) -> str:
        """The target's name, as in tables."""
        return self.config.target


def load_run(
    directory: str | os.PathLike, *, data_dir: str | None = None, dataset: str | os.PathLike | None = None
) -> LoadedRun:
    """The trained ensemble, configuration and images of a finished run.

    Args:
        directory: a run directory, wherever it lies now.
        data_dir: data directory of tensorflow-datasets; None is the run's.
        dataset: where images of your own lie now; None is where they lay.

    Raises:
        InputError: if it holds no finished run of this version, or its images cannot be had.
    """
    config = _config(directory, data_dir)
    data = _data(config, dataset)
    return LoadedRun(trained.restore(config, data.spec, Path(config.run_dir)), config, data)


def load_surrogate(
    directory: str | os.PathLike, *, data_dir: str | None = None, dataset: str | os.PathLike | None = None
) -> AdversarialSets:
    """The surrogate that a finished run was attacked from, with the adversarial images made from it.

    `.surrogate` is the ensemble. `evaluate_transfer` takes what this gives for a surrogate, and makes only
    images that are not there yet.

    Args:
        directory: of the run; the surrogate lies in `shared-models` beside it.
        data_dir: data directory of tensorflow-datasets; None is the run's.
        dataset: as in `load_run`.

    Raises:
        InputError: if there is no such run or surrogate.
    """
    config = _config(directory, data_dir)
    data = _data(config, dataset)
    base = config.base(config.surrogate_seed)
    place = shared_paths.directory_of(base)
    surrogate = trained.restore(base, data.spec, place)
    return shared_ensembles.adversarial_sets(surrogate, place, settings(base, data))


def _data(config: RunConfig, dataset: str | os.PathLike | None) -> ImageData:
    """The run's images, wherever they lie now."""
    part = config.part(DataPart)
    moved = part if dataset is None else dataclasses.replace(part, dataset=os.fspath(dataset))
    return experiment.load_data(moved)


def _config(directory: str | os.PathLike, data_dir: str | None) -> RunConfig:
    require(isinstance(directory, str | os.PathLike), "a run directory", f"{directory!r}")
    path = Path(directory) / run_directory.CONFIG
    require(path.is_file(), f"a run directory, in which {path.name} lies", f"{directory}")
    config = finished.read_config(Path(directory))
    return dataclasses.replace(config, run_dir=str(directory), data_dir=data_dir or config.data_dir)
