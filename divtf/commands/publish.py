"""The command for published figures; `--help` shows the docstring of `divtf/publish.py`."""

from pathlib import Path

from absl import flags

from divtf.commands import command_line
from divtf.errors import require

flags.disclaim_key_flags()  # `--help` is to list those of the command that was started.


def main(root: Path, name: str, *, added: bool = False) -> None:
    """Publish the runs below `root` under a name; `added` to what is published under it."""
    # Matplotlib, which takes half a second, loads once the flags are known to be right.
    from divtf.commands import publish_pages

    publish_pages.publish_runs(root, name, added=added)


def redraw() -> None:
    """Make anew what is made of the records of every published name."""
    from divtf.commands import publish_pages

    publish_pages.redraw_all()


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Declare what this command has."""
    texts = {
        "add": "Keep what is published under the name of other seeds and targets.",
        "redraw": "Make all published pictures and texts anew from their records.",
    }
    run, name = "Directory that holds the run directories.", "Name of the published figures."
    flags.DEFINE_string("run", "runs/table2", run, flag_values=flag_values)
    flags.DEFINE_string("name", "table2", name, flag_values=flag_values)
    for flag, text in texts.items():
        flags.DEFINE_bool(flag, False, text, flag_values=flag_values)


def launch() -> None:
    """The command: its flags, and what it does with them."""
    define_flags()
    command_line.run_without_config(lambda: as_told(flags.FLAGS))


def as_told(flag_values: flags.FlagValues) -> None:
    """What the flags say.

    Raises:
        InputError: as `main` and `redraw` do, or if they do not go together.
    """
    if not flag_values.redraw:
        main(Path(flag_values.run), flag_values.name, added=flag_values.add)
        return
    others = [f"--{name}" for name in ("run", "name", "add") if flag_values[name].present]
    require(not others, "--redraw alone, which is of every name", ", ".join(others))
    redraw()
