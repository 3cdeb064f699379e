"""Workers: training by several processes, of which the first, the chief, is the only one that writes."""

import contextlib
import json
import os
import re
from collections.abc import Iterator

import tensorflow as tf

from divtf.errors import InputError, require

# What a collective operation raises in a worker whose peer is gone.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+):([1-9]\d{0,4})")
_TASK = re.compile(r"/job:(\w+)(?:/replica:\d+)?/task:(\d+)")
_SUM = tf.distribute.ReduceOp.SUM


def has_several(on: tf.distribute.Strategy) -> bool:
    """Whether the strategy's replicas are in several processes."""
    return isinstance(on, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(on: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes: the first worker, or the only process."""
    if not has_several(on):
        return True
    here = on.cluster_resolver
    return here.task_type == "chief" or ("chief" not in here.cluster_spec().jobs and here.task_id == 0)


def from_chief(on: tf.distribute.Strategy, value: int) -> int:
    """The chief's value, on every worker; each waits here until all have come.

    Raises:
        InputError: if a worker is gone.
    """
    if not has_several(on):
        return int(value)

    @tf.function
    def receive():
        def receive_on_replica():
            here = tf.distribute.get_replica_context()
            own = tf.where(here.replica_id_in_sync_group == 0, tf.constant(value, tf.int64), 0)
            return here.all_reduce(_SUM, own)

        return on.run(receive_on_replica)

    with clear_errors(on):
        return int(on.experimental_local_results(receive())[0])


@contextlib.contextmanager
def chief_first(on: tf.distribute.Strategy) -> Iterator[None]:
    """Do something on the chief before the others do it, so that they find what the chief has written."""
    if not is_chief(on):
        from_chief(on, 0)
    yield
    if is_chief(on):
        from_chief(on, 0)


@contextlib.contextmanager
def clear_errors(on: tf.distribute.Strategy) -> Iterator[None]:
    """Make the loss of a worker an InputError that names it."""
    try:
        yield
    except _LOST as error:
        if not has_several(on):
            raise
        here = on.cluster_resolver
        addresses = here.cluster_spec().as_dict()
        tasks = {(job, int(task)) for job, task in _TASK.findall(str(error)) if job in addresses}
        others = sorted(tasks - {(here.task_type, here.task_id)})
        if not others:
            raise
        who = ", ".join(f"{job} {task} ({addresses[job][task]})" for job, task in others)
        raise InputError(
            f"Expected every worker to stay until the training's end. Received: {who} is gone; start all "
            f"workers again with --resume"
        ) from None


def join_cluster() -> tf.distribute.Strategy:
    """Take this process's place in the cluster of TF_CONFIG, and wait until the others have taken theirs.

    Raises:
        InputError: if TF_CONFIG names no such place, or it cannot be taken.
    """
    addresses, place = _read_cluster(os.environ.get("TF_CONFIG", ""))
    print(f"{place} of {len(addresses)}: waits until all are there: {', '.join(addresses)}", flush=True)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"Expected to join the cluster of TF_CONFIG as {place}. Received: {reason}"
        ) from None


def _read_cluster(text: str) -> tuple[list[str], str]:
    """Every worker's address and this one's place, from the text of TF_CONFIG."""
    expected = (
        'TF_CONFIG as {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}, '
        "another index on each machine, for --strategy=multi_worker"
    )
    try:
        values = json.loads(text)
        jobs, job, index = values["cluster"], values["task"]["type"], values["task"]["index"]
        addresses = [address for job in ("chief", "worker") for address in jobs.get(job, [])]
        ports = [int(_ADDRESS.fullmatch(address)[2]) for address in addresses]  # type: ignore[index]
        sound = (
            set(jobs) <= {"chief", "worker"}
            and len(jobs.get("chief", [])) <= 1
            and len(set(addresses)) == len(addresses) > 0
            and max(ports) < 2**16
            and type(index) is int
            and 0 <= index < len(jobs[job])
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        sound = False
    require(sound, expected, text or "none")
    return addresses, f"{job} {index}"
