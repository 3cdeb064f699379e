"""Side-by-side timing, and the tables of its figures.

What is compared is timed in turn, so that a drift of the machine hits all of it.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from divtf.storage import checked_json, environment, files


@dataclasses.dataclass(frozen=True)
class Row:
    """One measured figure.

    Attributes:
        name: what it is.
        value: a ratio, or seconds, GB or GFLOP/s where the name says so.
        most: the target, which the value is not to exceed; None for a figure without one.
    """

    name: str
    value: float
    most: float | None = None

    def cells(self) -> tuple[str, str, str]:
        """Name, value and target, as the tables show them."""
        target = (
            "" if self.most is None else f"<= {self.most:g}: {'met' if self.value <= self.most else 'MISSED'}"
        )
        return self.name, f"{self.value:.4g}", target


def medians(things: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each thing, timed in turn after two rounds that are not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in things}
    for round_number in range(repeats + 2):
        for name, thing in things.items():
            start = time.perf_counter()
            thing()
            if round_number > 1:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


class BestRate:
    """This machine's best single-precision rate: the fastest product or convolution ever seen."""

    def __init__(self):
        a = tf.random.normal([2048, 2048])
        x, kernel = tf.random.normal([128, 28, 28, 64]), tf.random.normal([3, 3, 64, 128])
        self._work = {
            2 * 2048**3: tf.function(lambda: tf.linalg.matmul(a, a)),
            2 * 128 * 28 * 28 * 128 * 9 * 64: tf.function(lambda: tf.nn.conv2d(x, kernel, 1, "SAME")),
        }
        self.flops_per_second = 0.0

    def __call__(self) -> None:
        """Measure once more."""
        for flops, call in self._work.items():
            start = time.perf_counter()
            float(tf.reshape(call(), [-1])[0])  # Read, so that the device has finished.
            rate = flops / (time.perf_counter() - start)
            self.flops_per_second = max(rate, self.flops_per_second)


def in_child(module: str, *arguments: object, **environment: str) -> dict[str, float]:
    """The JSON that a fresh process prints, with some variables of its own: python -m MODULE ARGUMENTS."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    own = os.environ | environment
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=own).stdout
    return json.loads(printed.splitlines()[-1])


def write_tables(path: Path, title: str, budget: Mapping, tables: Mapping[str, Sequence[Row]]) -> None:
    """Keep figures with what they depend on: PATH.json and, for reading, PATH.md."""
    record = made(title, budget) | {
        "tables": {name: [vars(row) for row in rows] for name, rows in tables.items()},
    }
    write(path, record, markdown(record))


def made(title: str, budget: Mapping) -> dict[str, Any]:
    """The beginning of a record: what it is of, and what its figures depend on."""
    return {"title": title, "budget": dict(budget), "environment": environment.environment()}


def write(path: Path, record: Mapping[str, Any], text: str) -> None:
    """Keep a record as PATH.json and its text as PATH.md."""
    checked_json.write_json(path.with_suffix(".json"), record)
    files.write_file(path.with_suffix(".md"), text)


def head(record: Mapping[str, Any]) -> list[str]:
    """The first lines of a record's text: title, command, commit, budget and machine."""
    environment = record["environment"]
    budget = ", ".join(f"{name} {value}" for name, value in record["budget"].items())
    lines = [f"# {record['title']}", "", f"- Command: `{environment['command']}`"]
    lines += [f"- Commit: {environment['commit']}", f"- Budget: {budget}"]
    # Older records do not tell.
    vectors = {True: ", with AVX-512", False: ", without AVX-512"}.get(environment.get("avx512"), "")
    return [*lines, f"- Machine: {environment['cpus']} cores, {environment['platform']}{vectors}", ""]


def markdown(record: Mapping[str, Any]) -> str:
    """The tables of a written record."""
    lines = head(record)
    for name, rows in record["tables"].items():
        lines += [f"## {name}", "", "| figure | value | target |", "| --- | ---: | --- |"]
        lines += ["| {} | {} | {} |".format(*Row(**row).cells()) for row in rows] + [""]
    return "\n".join(lines)
