"""First step and peak memory, in a process of its own: python -m benchmarks.start MODEL MEMBERS BATCH."""

import json
import os
import resource
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main(model: str, count: int, batch: int) -> None:
    from benchmarks.steps import Steps
    from divtf import GradientAlignment

    step = Steps(model, batch).training(GradientAlignment(0.5), count)
    start = time.perf_counter()
    step()
    first = time.perf_counter() - start
    step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"first": first, "peak": peak}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
