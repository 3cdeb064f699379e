"""The processes that train together, of which the first, the chief, is the only one that writes."""

import contextlib
import hashlib
import json
import socket
from collections.abc import Iterator
from typing import Any

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
_CONNECT_SECONDS = 5.0


class Team:
    """A team of one process: it is the chief, agrees with itself and waits for nobody.

    Attributes:
        strategy: TensorFlow's, of whose replicas the team holds all.
        is_chief: whether this process is the one that writes.
        has_several: whether there are other processes.
    """

    is_chief = True
    has_several = False

    def __init__(self, strategy: tf.distribute.Strategy):
        self.strategy = strategy

    def from_chief(self, value: int) -> int:
        """The chief's value, a whole number, on every worker; each waits here until all have come."""
        return value

    def require_same(self, value: Any, expected: str, received: str) -> None:
        """Refuse a worker whose value, which JSON can hold, is not the chief's."""

    def chief_first(self) -> contextlib.AbstractContextManager[None]:
        """Let the chief do something before the others, so that they find what it has written."""
        return contextlib.nullcontext()

    def clear_errors(self) -> contextlib.AbstractContextManager[None]:
        """Make the loss of a worker an InputError that names it."""
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """The strategy's scope; the loss of a worker in it is an InputError."""
        with self.clear_errors(), self.strategy.scope():
            yield


class WorkerTeam(Team):
    """The processes of a MultiWorkerMirroredStrategy; methods raise InputError when one of them is lost."""

    has_several = True

    def __init__(self, strategy: tf.distribute.MultiWorkerMirroredStrategy):
        super().__init__(strategy)
        resolver = strategy.cluster_resolver
        self._place = resolver.task_type, resolver.task_id
        self._addresses = resolver.cluster_spec().as_dict()
        first = ("chief", 0) if "chief" in self._addresses else ("worker", 0)
        self.is_chief = self._place == first

    def from_chief(self, value: int) -> int:
        """As `Team.from_chief`: all add up what they have, which is nothing on any but the chief."""

        @tf.function
        def receive():
            return self.strategy.run(_sum_of_first_replica, args=(tf.constant(value, tf.int64),))

        with self.clear_errors():
            return int(self.strategy.experimental_local_results(receive())[0])

    def require_same(self, value: Any, expected: str, received: str) -> None:
        """As `Team.require_same`.

        Raises:
            InputError: on a worker that has another value; the chief then learns that it is gone.
        """
        digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()
        number = int.from_bytes(digest[:7], "big")  # What a whole number of 64 bits can hold.
        require(self.from_chief(number) == number, expected, received)

    @contextlib.contextmanager
    def chief_first(self) -> Iterator[None]:
        """As `Team.chief_first`."""
        if not self.is_chief:
            self.from_chief(0)
        yield
        if self.is_chief:
            self.from_chief(0)

    @contextlib.contextmanager
    def clear_errors(self) -> Iterator[None]:
        """As `Team.clear_errors`."""
        try:
            yield
        except _LOST:
            if not (lost := ", ".join(self._lost())):
                raise
            raise InputError(
                f"Expected every worker to stay until the training's end. Received: {lost} is gone; start "
                f"all workers again with --resume"
            ) from None

    def _lost(self) -> list[str]:
        """The other workers that no longer answer, with their addresses."""
        others = [
            (f"{job} {index}", address)
            for job, addresses in self._addresses.items()
            for index, address in enumerate(addresses)
            if (job, index) != self._place
        ]
        return [f"{name} ({address})" for name, address in others if not _answers(address)]


def team_of(strategy: tf.distribute.Strategy) -> Team:
    """The team of a strategy."""
    several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    return WorkerTeam(strategy) if several else Team(strategy)


def _sum_of_first_replica(value: tf.Tensor) -> tf.Tensor:
    """The first replica's value, on every replica."""
    replica = tf.distribute.get_replica_context()
    summand = tf.where(replica.replica_id_in_sync_group == 0, value, 0)
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, summand)


def _answers(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
