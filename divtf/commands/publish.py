"""The command for published figures; `--help` shows the docstring of `divtf/publish.py`."""

from pathlib import Path

from absl import flags

from divtf.commands import command_line

flags.disclaim_key_flags()  # `--help` is to list those of the command that was started.


def main(root: Path, name: str, anew: bool = False, added: bool = False) -> None:
    """Publish the runs below `root`; or, `anew`, what is made of the records of every published name.

    Args:
        root: directory that holds the run directories.
        name: of the published figures.
        anew: publish no run.
        added: keep what is published under the name of other seeds and targets.
    """
    # Matplotlib, which takes half a second, loads once the flags are known to be right.
    from divtf.commands import publish_pages
    from divtf.storage import pooling

    results = publish_pages.load_all()
    if not anew:
        found = publish_pages.collect(root)
        results[name] = pooling.pooled(results.get(name, {}), found) if added else found
        publish_pages.publish(name, dict(sorted(results.items())))
        return
    for known, published in results.items():
        if published:
            publish_pages.redraw(known, results)
        else:
            print(f"{known}: nothing published yet")


def launch() -> None:
    """The command: its flags, and what it does with them."""
    defined = flags.FLAGS
    flags.DEFINE_string("run", "runs/table2", "Directory that holds the run directories.")
    flags.DEFINE_string("name", "table2", "Name of the published figures.")
    flags.DEFINE_bool("add", False, "Keep what is published under the name of other seeds and targets.")
    flags.DEFINE_bool("redraw", False, "Make all published pictures and texts anew from their records.")
    command_line.run_without_config(
        lambda: main(Path(defined.run), defined.name, defined.redraw, defined.add)
    )
