"""A run, or a shared ensemble, as a task on one of a Ray cluster's nodes."""

import dataclasses
import importlib.util
import json
import os
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from divtf.errors import require
from divtf.pipeline import finished
from divtf.pipeline.config import RunConfig
from divtf.runtime import logs, quiet_start

ADDRESS = re.compile(r"auto|(ray://)?(?P<host>[^\s:/]+):(?P<port>\d{1,5})")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A running Ray cluster, and what each run takes of it.

    Attributes:
        address: "auto" for the cluster that this machine is a node of; the head's "HOST:PORT", from a node
            of it; or "ray://HOST:PORT", by Ray Client from any machine.
        cpus_per_run: CPU cores of a run, and TensorFlow's threads in it.
        gpus_per_run: GPUs of a run, which sees no other.

    Raises:
        InputError: if a value does not fit, or Ray is not installed.
    """

    address: str
    cpus_per_run: int = 1
    gpus_per_run: int = 0

    def __post_init__(self):
        match = ADDRESS.fullmatch(self.address)
        require(
            match is not None and int(match["port"] or 1) in range(1, 2**16),
            "--cluster as auto, HOST:PORT or ray://HOST:PORT",
            f"cluster={self.address}",
        )
        require(self.cpus_per_run >= 1, "--cpus_per_run of at least 1", cpus_per_run=self.cpus_per_run)
        require(self.gpus_per_run >= 0, "--gpus_per_run of at least 0", gpus_per_run=self.gpus_per_run)
        require(
            importlib.util.find_spec("ray") is not None,
            "Ray for --cluster; the extra `cluster` brings it: pip install '.[cluster]'",
            "an installation without it",
        )


def run_part(
    cluster: Cluster, command: Sequence[str], sign: str, config: str, shared: int | None, *_after: Any
) -> dict[str, Any] | None:
    """The task, in a process of its own on one of the nodes.

    Args:
        cluster: what this task takes of the cluster.
        command: the user's, for the record.
        sign: a file beside the run directories that every node has to see.
        config: the part's configuration as JSON.
        shared: a seed of `shared_paths.seeds` to make that ensemble only; None for the part.
        *_after: results of tasks that come first; Ray starts this one when they are there.

    Returns:
        The part's record as JSON values: the driver's view of shared storage may lag behind.

    Raises:
        InputError: for input that does not fit; Ray repeats lost tasks, not those that raise.
    """
    part = RunConfig.from_json(json.loads(config))
    require(
        Path(sign).exists(),
        "--run_dir on storage that all nodes of the cluster share, at the same path",
        f"{Path(sign).parent}, which is another directory or none on {platform.node()}",
    )
    _limit_tensorflow(cluster)
    sys.orig_argv = list(command)  # This process's own would be Ray's.
    from divtf.pipeline import experiment

    with logs.shown(), logs.prefixed(part.name if shared is None else "shared"):
        if shared is not None:
            experiment.share(part, shared)
            return None
        # A node that Ray has given up may still be at work, or its lock not be released yet.
        return finished.read_record(experiment.run(part, wait=True)).to_json()


def _limit_tensorflow(cluster: Cluster) -> None:
    """Hold this process to its share of the node."""
    if cluster.gpus_per_run == 0:  # Ray hides GPUs of others only from tasks that have some.
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    quiet_start.import_tensorflow()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(cluster.cpus_per_run)
    tf.config.threading.set_inter_op_parallelism_threads(cluster.cpus_per_run)
