"""First step, later ones and memory, in a process: python -m benchmarks.start MODEL MEMBERS BATCH [low]."""

import json
import resource
import sys
import time


def main(model: str, count: int, batch: int, memory: str = "usual") -> None:
    from benchmarks.steps import Steps
    from benchmarks.timing import medians
    from divtf import GradientAlignment

    imported = peak_memory()
    low = "low" if memory == "low" else None
    step = Steps(model, batch).training(GradientAlignment(0.5), count, memory=low)
    start = time.perf_counter()
    step()
    first = time.perf_counter() - start
    later = medians({"step": step}, 3)["step"]
    print(json.dumps({"first": first, "later": later, "peak": peak_memory(), "imported": imported}))


def peak_memory() -> float:
    """The most that this process has had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
