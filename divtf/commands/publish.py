"""Put figures into the repository: python -m divtf.publish --run=runs/demo --name=demo.

What the runs below a directory have recorded goes to runs/results/NAME/: records as JSON, the pictures and
the CSV made of them, and text in README.md between the lines <!-- NAME --> and <!-- /NAME -->, so that no
figure is typed by hand; words written around them stay. The index, runs/results/README.md, follows, and for
the demo the main README.md. `--redraw` makes all that is made of the records anew, for every name.
"""

from pathlib import Path

from absl import flags

from divtf.commands import command_line

flags.disclaim_key_flags()  # They are those of the command at the door.


def main(root: Path, name: str, anew: bool) -> None:
    """Publish the runs below `root`; or, `anew`, what is made of the records of every published name."""
    # Matplotlib, which takes half a second, loads once the flags are known to be right.
    from divtf.commands import publish_pages

    results = publish_pages.load_all()
    if not anew:
        results[name] = publish_pages.collect(root)
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
    flags.DEFINE_bool("redraw", False, "Make all published pictures and texts anew from their records.")
    command_line.run_without_config(lambda: main(Path(defined.run), defined.name, defined.redraw))
