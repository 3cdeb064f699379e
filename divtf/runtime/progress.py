"""Progress bars with the time left, where a command runs in a terminal; elsewhere nothing is drawn."""

import sys
from typing import Any

_SHOWN = False


def show_bars() -> None:
    """Draw bars from now on, if standard error is a terminal; the commands ask for it."""
    global _SHOWN
    _SHOWN = sys.stderr is not None and sys.stderr.isatty()  # None where it was closed.


def are_shown() -> bool:
    """Whether bars take the place of lines: they are drawn, and lines go to the same terminal."""
    return _SHOWN and sys.stdout.isatty()


def bar(what: str, total: int, done: int = 0) -> Any:
    """A bar of `total` steps, `done` of them before, as a context manager whose `update(n)` advances it.

    It is tqdm's, and does nothing where no bars are shown.
    """
    from tqdm import tqdm  # Late: `--help` does without.

    return tqdm(
        total=total,
        initial=done,
        desc=what,
        unit="batch",
        file=sys.stderr,
        leave=False,
        dynamic_ncols=True,
        disable=not _SHOWN,
    )


def write(line: str) -> None:
    """Write a line to standard output, above any bar."""
    if not _SHOWN:
        print(line, flush=True)
        return
    from tqdm import tqdm

    tqdm.write(line)
