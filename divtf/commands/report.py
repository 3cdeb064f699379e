"""The command for pages; `--help` shows the docstring of `divtf/report.py`."""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from divtf.commands import command_line
from divtf.errors import require

flags.disclaim_key_flags()  # `--help` is to list those of the command that was started.


def main(arguments: Sequence[str]) -> None:
    """Make the page of a result's directory; or those of the results below a directory, and their index.

    Raises:
        InputError: if it is no directory, holds no records, or they are damaged or of another version.
        OSError: if a page cannot be written.
    """
    require(len(arguments) == 1, "one directory", " ".join(arguments) or "none")
    root = Path(arguments[0])
    require(root.is_dir(), "a directory of results", f"{root}, which is none")
    # Matplotlib, which takes half a second, loads once the arguments are known to be right.
    from divtf.pipeline import indexed, results

    if results.is_result(root):
        print(f"  {'page':<14} {results.make_page(root)}")
        return
    print(f"  {'index':<14} {indexed.make_index(root)}")


def launch() -> None:
    """The command: a directory, and what it does with it."""
    command_line.run_with_arguments(main)
