"""This process's place in the cluster that TF_CONFIG names, for --strategy=multi_worker."""

import dataclasses
import json
import os
import re

import tensorflow as tf

from divtf.errors import InputError, first_line
from divtf.runtime.logs import get_logger

_LOG = get_logger(__name__)
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+):([1-9]\d{0,4})")


@dataclasses.dataclass(frozen=True)
class Place:
    """A worker's place: its job ("chief" or "worker"), its index there, and the addresses of all workers."""

    job: str
    index: int
    addresses: tuple[str, ...]

    def __str__(self):
        return f"{self.job} {self.index}"


def join() -> tf.distribute.Strategy:
    """Take this process's place in the cluster of TF_CONFIG, and wait until the others have taken theirs.

    Raises:
        InputError: if TF_CONFIG names no such place, or it cannot be taken.
    """
    place = read_place(os.environ.get("TF_CONFIG", ""))
    count, addresses = len(place.addresses), ", ".join(place.addresses)
    _LOG.info(f"{place} of {count}: waits until all are there: {addresses}")
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError) as error:
        reason = first_line(error)
        raise InputError(
            f"Expected to join the cluster of TF_CONFIG as {place}. Received: {reason}"
        ) from None


def read_place(text: str) -> Place:
    """The place that the text of TF_CONFIG names.

    Raises:
        InputError: if it names none.
    """
    try:
        place = _parse(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        place = None
    if place is None:
        raise InputError(
            'Expected TF_CONFIG as {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", '
            '"index": 0}}, another index on each machine, for --strategy=multi_worker. '
            f"Received: {text or 'none'}"
        )
    return place


def _parse(values) -> Place | None:
    """The place, if the values of TF_CONFIG fit together; they may be anything that JSON can hold."""
    jobs, job, index = values["cluster"], values["task"]["type"], values["task"]["index"]
    chiefs, workers = jobs.get("chief", []), jobs.get("worker", [])
    addresses = (*chiefs, *workers)
    fits = (
        set(jobs) <= {"chief", "worker"}
        and len(chiefs) <= 1
        and len(set(addresses)) == len(addresses)
        and all(map(_is_address, addresses))
        and type(index) is int
        and 0 <= index < len(jobs[job])
    )
    return Place(job, index, addresses) if fits else None


def _is_address(text: str) -> bool:
    match = _ADDRESS.fullmatch(text)
    return match is not None and int(match[2]) < 2**16
