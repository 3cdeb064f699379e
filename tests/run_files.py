"""What lies in a run directory, for tests."""

import json

from divtf.storage import run_directory


def metrics(directory):
    return [json.loads(line) for line in (directory / run_directory.METRICS).read_text().splitlines()]


def checkpoints(directory):
    return sorted(path.name for path in (directory / run_directory.CHECKPOINTS).iterdir())


def step_files(*steps):
    return [f"step-{step:08d}.{suffix}" for step in steps for suffix in ("json", "keras")]
