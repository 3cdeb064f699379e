"""Independent runs on a Ray cluster: a task each, which Ray places, and repeats elsewhere if its node dies.

Ray is the optional extra `cluster`, loaded when it is needed. A repeated run goes on from its last
checkpoint, which lies on storage that the nodes share. This module imports no TensorFlow.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from divtf.commands.ray_task import ADDRESS, Cluster, run_part
from divtf.errors import InputError, lacking_resource
from divtf.pipeline.config import RunConfig
from divtf.pipeline.parts import DataPart
from divtf.runtime.logs import get_logger
from divtf.storage import run_directory
from divtf.storage.records import TargetRecord

_LOG = get_logger(__name__)
_CONNECT_SECONDS = 10.0


def run_all(parts: Sequence[RunConfig], cluster: Cluster) -> list[TargetRecord]:
    """Run every part by `experiment.run`, as many at a time as the cluster has room for.

    A part that fails does not end the others.

    Args:
        parts: configurations that may be resumed, with run directories in one directory. That lies
            at the same path on every node and on this machine, and its file locks hold between them.
        cluster: where to run them.

    Returns:
        The record of every part, in order.

    Raises:
        InputError: if the cluster or its storage cannot be used; or, once the other parts are done, for
            what the user can mend in a part, and for a part whose nodes died too often.
    """
    from divtf.pipeline import experiment

    parts = [_with_absolute_paths(part) for part in parts]
    with _connected(cluster.address) as ray:
        _leave_gpus()
        # What the user can mend is found out first, and a data set not had yet is prepared once.
        for part in {part.dataset: part for part in parts if not _finished(part)}.values():
            experiment.load_data(part.part(DataPart))
        root = Path(parts[0].run_dir).parent
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=root, prefix=".cluster-") as sign:
            # One process a task: TensorFlow's threads and devices cannot be changed once it has them.
            task = ray.remote(max_calls=1)(run_part)
            task = task.options(num_cpus=cluster.cpus_per_run, num_gpus=cluster.gpus_per_run)
            start = functools.partial(task.remote, cluster, sys.orig_argv, sign.name)
            tasks = _submit(parts, start)
            _LOG.info(f"{len(tasks)} runs, {sum(map(_finished, parts))} of them finished before")
            if not _has_room(ray.nodes(), cluster):
                wanted = f"{cluster.cpus_per_run} CPU cores and {cluster.gpus_per_run} GPUs"
                _LOG.info(f"no node has {wanted}: the runs wait until one joins that has")
            return _gather(ray, tasks)


def _leave_gpus() -> None:
    """Keep this process, which only reads data, from taking the memory of GPUs that its runs need."""
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):  # It has them already.
        tf.config.set_visible_devices([], "GPU")


def _submit(parts: Sequence[RunConfig], start: Callable[..., Any]) -> dict[Any, RunConfig]:
    """Start a task for every part, and before it those for the ensembles that it shares with others.

    So no two tasks train the same ensemble, and none holds resources while it waits for another.
    """
    from divtf.pipeline import shared_paths

    shared: dict[Path, Any] = {}
    tasks = {}
    for part in parts:
        config = json.dumps(dataclasses.asdict(part))
        seeds = [] if _finished(part) else list(shared_paths.seeds(part).values())
        needed = {shared_paths.directory_of(part.base(seed)): seed for seed in seeds}
        for directory, seed in needed.items():
            if directory not in shared:
                shared[directory] = start(config, seed)
        tasks[start(config, None, *(shared[directory] for directory in needed))] = part
    return tasks


def _has_room(nodes: Sequence[dict[str, Any]], cluster: Cluster) -> bool:
    """Whether a run fits on one of Ray's nodes when nothing else is there."""
    wanted = {"CPU": cluster.cpus_per_run, "GPU": cluster.gpus_per_run}
    return any(
        node["Alive"] and all(node["Resources"].get(name, 0) >= count for name, count in wanted.items())
        for node in nodes
    )


def _gather(ray: Any, tasks: dict[Any, RunConfig]) -> list[TargetRecord]:
    """The records of all tasks, or the first failure once all have ended."""
    records: dict[str, TargetRecord] = {}
    failures: dict[str, Exception] = {}
    waiting = list(tasks)
    while waiting:
        (ended,), waiting = ray.wait(waiting)
        name = tasks[ended].name
        try:
            records[name] = TargetRecord.from_json(ray.get(ended))
            _LOG.info(f"done {len(records)}/{len(tasks)}: {name}")
        except ray.exceptions.RayError as error:
            failures[name] = error
            _LOG.info(f"failed: {name}")
    if failures:
        reasons = [_reason(error) for error in failures.values()]
        raise InputError(f"{reasons[0]} ({len(failures)} of {len(tasks)} runs failed: {', '.join(failures)})")
    return [records[part.name] for part in tasks.values()]


def _reason(error: Exception) -> str:
    """One line for what the user can mend; an error of the program is raised with its traceback.

    Raises:
        RayTaskError: what came out of a task for any other reason.
    """
    cause = getattr(error, "cause", None)
    if isinstance(cause, InputError):
        return str(cause)
    if isinstance(cause, OSError):
        return f"Expected usable files and directories on every node. Received: {cause}"
    if cause is not None:
        if not (reason := lacking_resource(cause)):
            raise error
        return f"Expected memory, and files that can be written, on every node. Received: {reason}"
    what = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return f"Expected nodes that live until a run ends. Received: {what}"


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Any]:
    """The module ray, connected to the cluster."""
    # To Ray, lines of two runs that differ in their numbers only are repetitions.
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    import ray

    match = ADDRESS.fullmatch(address)
    try:
        if match and match["port"]:  # Ray itself would try for minutes, and then end the process.
            socket.create_connection((match["host"], int(match["port"])), _CONNECT_SECONDS).close()
        ray.init(address=address, logging_level=logging.WARNING)
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"Expected --cluster as the address of a Ray cluster that runs. Received: {address}: {reason}"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _with_absolute_paths(part: RunConfig) -> RunConfig:
    """The part as other processes can run it: they have another working directory and environment."""

    def absolute(path: str) -> str:
        return path if "://" in path else os.path.abspath(path)

    data_dir = part.data_dir or os.environ.get("TFDS_DATA_DIR")
    return dataclasses.replace(
        part,
        run_dir=absolute(part.run_dir),
        data_dir=data_dir and absolute(data_dir),
        export=part.export and absolute(part.export),
    )


def _finished(part: RunConfig) -> bool:
    return (Path(part.run_dir) / run_directory.RESULTS).exists()
