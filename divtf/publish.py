"""Put a table's figures into the repository: python -m divtf.publish --run=runs/demo --name=demo.

The records of every target below the run go to runs/results/NAME.json, its pictures beside it, and the
table into README.md between the lines <!-- NAME --> and <!-- /NAME -->, so that no figure is typed by hand.
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from divtf import cli, plots, report, run_dir
from divtf.errors import require
from divtf.records import TargetRecord

_RESULTS = Path("runs/results")
_README = Path("README.md")
_FIGURES = {
    "coherence": plots.coherence_figure,
    "pair_cosines": plots.pair_cosine_figure,
    "accuracy": plots.accuracy_figure,
}


def collect(root: Path) -> list[TargetRecord]:
    """The records of all finished runs below a directory, in the order of their training."""
    paths = sorted(root.glob(f"*/{run_dir.RESULTS}"), key=lambda path: path.stat().st_mtime)
    require(bool(paths), f"finished runs below {root}", "none")
    return [_public(TargetRecord.from_json(run_dir.read_json(path))) for path in paths]


def _public(record: TargetRecord) -> TargetRecord:
    """The record without what concerns nobody elsewhere: the machine's kernel."""
    provenance = {name: value for name, value in record.provenance.items() if name != "platform"}
    return dataclasses.replace(record, provenance=provenance)


def load(path: Path) -> list[TargetRecord]:
    """The records of a published file."""
    return [TargetRecord.from_json(record) for record in run_dir.read_json(path)]


def section(name: str, records: Sequence[TargetRecord]) -> str:
    """The generated part of the README for a published name, Markdown."""
    pictures = [f"![{figure}](runs/results/{name}-{figure}.png)" for figure in ("accuracy", "coherence")]
    return "\n\n".join([report.table_markdown(records, against_paper=True).strip(), *pictures])


def insert(readme: str, name: str, text: str) -> str:
    """The README with the text between the name's two marks.

    Raises:
        InputError: if the marks are not there, once each and in order.
    """
    marks = f"<!-- {name} -->", f"<!-- /{name} -->"
    pattern = re.compile(f"({re.escape(marks[0])}\n).*?({re.escape(marks[1])})", re.DOTALL)
    found = len(pattern.findall(readme))
    require(found == 1, f"the marks {marks[0]} and {marks[1]} once in the README", f"{found} pairs of them")
    return pattern.sub(lambda match: f"{match[1]}\n{text}\n\n{match[2]}", readme)


def publish(root: Path, name: str) -> None:
    """Write runs/results/NAME.json, its pictures and the README's section."""
    records = collect(root)
    readme = insert(_README.read_text(), name, section(name, records))
    run_dir.write_json(_RESULTS / f"{name}.json", [record.to_json() for record in records])
    for figure, draw in _FIGURES.items():
        with run_dir.atomic_path(_RESULTS / f"{name}-{figure}.png") as partial:
            partial.write_bytes(plots.png(draw(records)))
    with run_dir.atomic_path(_README) as partial:
        partial.write_text(readme)


if __name__ == "__main__":
    flags.DEFINE_string("run", "runs/table2", "Directory that holds the run directories.")
    flags.DEFINE_string("name", "table2", "Name of the published figures.")
    flags.adopt_module_key_flags(cli)
    cli.launch_without_config(lambda: publish(Path(flags.FLAGS.run), flags.FLAGS.name))
