"""Runs a table's targets side by side on one GPU, each in processes of its own, and evaluates each at once.

    python -m benchmarks.gpu.side_by_side flags/mnist.flags --precision=float32 -- --images=200

A step of small members is thousands of small kernels, and an attack is traced before it runs: one process
leaves the GPU idle most of the time. Arguments before `--` are those of `divtf.table2`; those after it, if it
is there, are of `divtf.evaluate`. Records lie in the run directories then, where `divtf.publish` finds them.
"""

import concurrent.futures
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from divtf.commands import config_flags, table2
from divtf.pipeline.config import RunConfig
from divtf.pipeline.protocols import PROTOCOLS


def main(arguments: Sequence[str]) -> int:
    """Train, attack and evaluate every target; the number of processes that failed."""
    path, *options = arguments
    split = options.index("--") if "--" in options else len(options)
    table, evaluation = [f"--flagfile={path}", *options[:split]], options[split + 1 :]
    configs = _configs(table)
    surrogates = [name for name in PROTOCOLS["strong"].surrogates if name != "plain"] * ("--" in options)
    with concurrent.futures.ThreadPoolExecutor(len(configs) + len(surrogates) + 1) as pool:
        # Otherwise the first target that is attacked or evaluated trains them, one after the other.
        early = [pool.submit(_run, "-c", _SURROGATE, name, *table) for name in ["plain", *surrogates]]
        targets = [
            pool.submit(_target, config, table, evaluation if "--" in options else None) for config in configs
        ]
        return sum(future.result() for future in [*early, *targets])


_SURROGATE = "import sys; from benchmarks.gpu.side_by_side import train; train(sys.argv[1], sys.argv[2:])"


def train(name: str, table: Sequence[str]) -> None:
    """Train a surrogate of a table's targets, where their evaluation finds it."""
    from divtf.runtime import quiet_start

    quiet_start.import_tensorflow()
    from divtf.pipeline import experiment
    from divtf.pipeline.parts import DataPart
    from divtf.pipeline.surrogate_sets import SurrogatePlan

    config = _configs(table)[0]
    SurrogatePlan.of([name], [config], experiment.load_data(config.part(DataPart))).sets()


def _configs(table: Sequence[str]) -> list[RunConfig]:
    values = flags.FlagValues()
    config_flags.define_flags(values)
    table2.define_flags(values)
    values(["table2", *table])
    return table2.configs_from_flags(values)


def _target(config: RunConfig, table: Sequence[str], evaluation: Sequence[str] | None) -> int:
    """Train and attack one target, then evaluate it; how many of the two failed."""
    failed = _run("-m", "divtf.table2", *table, f"--modes={config.mode}")
    if failed or evaluation is None:
        return failed
    directory = Path(config.run_dir).absolute()
    alone = directory.parent / "alone" / directory.name  # A root with this run and the surrogates of all.
    alone.mkdir(parents=True, exist_ok=True)
    for each in (directory, directory.parent / "shared-models"):
        if not (alone / each.name).exists():
            (alone / each.name).symlink_to(each)
    return _run("-m", "divtf.evaluate", f"--runs={alone}", *evaluation)


def _run(*command: str) -> int:
    # By itself TensorFlow takes the memory of the whole GPU for the first process.
    environment = {**os.environ, "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    return int(subprocess.run([sys.executable, *command], env=environment).returncode != 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
