"""Devices: where an ensemble is trained and evaluated."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from divtf.runtime import cluster_place
from divtf.runtime.workers import Team, team_of


@functools.cache
def team(name: str) -> Team:
    """The processes and devices of the strategy of that name; one for the process: a cluster is joined once.

    Args:
        name: "single"; "mirrored" for all GPUs of this machine, or else all CPU devices that TensorFlow was
            told to make of it; "multi_worker" for the machines of TF_CONFIG. The last one waits for them,
            and must come before anything that starts TensorFlow.

    Raises:
        InputError: if TF_CONFIG does not name this worker's place in a cluster, or it cannot be taken.
    """
    if name == "multi_worker":
        return team_of(cluster_place.join())
    if name == "mirrored":
        # Left to itself the strategy takes one CPU device only, and reads TF_CONFIG.
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return team_of(tf.distribute.MirroredStrategy([device.name for device in devices]))
    return team_of(tf.distribute.get_strategy())


def devices_of(model: Any) -> Sequence[str]:
    """The devices that hold replicas of a Keras model in this process; none if it is not distributed."""
    strategy = getattr(model, "distribute_strategy", None)
    if strategy is None or strategy.num_replicas_in_sync == 1 or team_of(strategy).has_several:
        return ()
    return strategy.extended.worker_devices


def map_batches(
    function: Callable[..., Any], batches: Iterable[tuple], devices: Sequence[str] = ()
) -> Iterator[Any]:
    """The function's result for each batch, in order; as many batches at a time as there are devices.

    A device gets whole batches, so that sums are those of one device.

    Args:
        function: a tf.function, or a function of tensors that can be traced.
        batches: its arguments, tensors or arrays.
        devices: where to run; none leaves that to TensorFlow, one batch after another.
    """
    if not devices:
        yield from (function(*batch) for batch in batches)
        return

    @tf.function
    def side_by_side(group):
        results = []
        for device, batch in zip(devices, group, strict=False):  # The last group may be smaller.
            with tf.device(device):
                results.append(function(*batch))
        return results

    waiting = (tuple(map(tf.convert_to_tensor, batch)) for batch in batches)
    traced: dict[Any, Any] = {}  # Concrete, a smaller last group is not mistaken for needless retracing.
    while group := list(itertools.islice(waiting, len(devices))):
        shapes = tuple(tuple(part.shape) for batch in group for part in batch)
        traced[shapes] = traced.get(shapes) or side_by_side.get_concrete_function(group)
        yield from traced[shapes](group)
