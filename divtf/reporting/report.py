"""Report: records -> tables in text and Markdown, and a folder that holds them with the plots and data.

This module reads records only and imports no TensorFlow, so that any machine can make a report.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Sequence

from matplotlib.figure import Figure

from divtf.reporting.classes import classes_markdown, has_classes
from divtf.reporting.figures.accuracy import accuracy_figure
from divtf.reporting.figures.coherence import coherence_figure
from divtf.reporting.figures.pair_cosines import pair_cosine_figure
from divtf.reporting.figures.style import png
from divtf.reporting.figures.table import table_figure
from divtf.reporting.markdown import table_markdown
from divtf.reporting.table_data import table_csv, table_json
from divtf.reporting.tables import tables
from divtf.storage import files
from divtf.storage.records import Record, TargetRecord

REPORT = "report.md"
READING = """\
## How to read this

- An accuracy under attack is that of the target on images made on a *surrogate*: an ensemble trained apart.
  It tells how well attacks transfer. It is no white-box robustness: an attacker who has the target's own
  gradients is a stronger one, and is not measured here.
- The worst case counts an image as correct only if the target withstands every attack of that epsilon on
  it; it is never above the strongest single attack, which is what bold marks.
- *Saturated* is the share of images for which the loss of every surrogate member is below 1e-7. Softmax's own
  gradient is partly rounding noise there in single precision. Attacks here take logits relative to the true
  class, which keeps the direction down to losses near 1e-38; figures of attacks that do not may differ by
  points where this share is large.
- A Wilson interval covers the choice of test images only. What another training run would give shows in the
  standard deviation over seeds, where there are several.
- *Image by image* compares two targets by the images in which they differ; p is that of McNemar's exact
  test. It covers the choice of test images only, too.
- Coherence is the largest cosine similarity between the input gradients of two members (Eq. 7): low means
  that what fools one member need not fool another. It is measured on clean test images.
"""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A plot of a report: its title, what draws it, and whether records hold values for it."""

    title: str
    draw: Callable[[Sequence[TargetRecord], Sequence[Record]], Figure]
    has_values: Callable[[Sequence[TargetRecord]], bool]


def has_attacks(records: Sequence[TargetRecord]) -> bool:
    """Whether some target was attacked."""
    return any(table.columns for table in tables(records))


def has_coherence(records: Sequence[TargetRecord]) -> bool:
    """Whether the coherence of some target was measured."""
    return any(record.coherence for record in records)


def has_pair_cosines(records: Sequence[TargetRecord]) -> bool:
    """Whether the pair cosines of some target were measured."""
    return any(record.pair_cosines for record in records)


# In the order of the report.
PICTURES = {
    "accuracy": Picture("Accuracy against epsilon", accuracy_figure, has_attacks),
    "coherence": Picture("Distribution of coherence (paper, Figure 4)", coherence_figure, has_coherence),
    "pair_cosines": Picture(
        "Mean cosine similarity of the members' input gradients (Eq. 6)", pair_cosine_figure, has_pair_cosines
    ),
}


def write_report(
    directory: pathlib.Path,
    records: Iterable[TargetRecord],
    beside: Sequence[Record] = (),
    *,
    against_paper: bool = False,
) -> dict[str, pathlib.Path]:
    """Writes report.md, table.csv, table.json and the pictures; each file appears whole or not at all.

    Args:
        directory: where to write; made if it is not there.
        records: what to report. Plots that they hold nothing for are left out.
        beside: evaluations of the targets, as in `marks.marks`.
        against_paper: as in `table_markdown` and `table_figure`.

    Returns:
        The files by name: "report", "table", "data", "picture", and "accuracy", "coherence", "pair_cosines"
        where drawn.
    """
    records = list(records)
    plots = {
        name: png(plot.draw(records, beside)) for name, plot in PICTURES.items() if plot.has_values(records)
    }
    names = {"report": REPORT, "table": "table.csv", "data": "table.json", "picture": "table.png"}
    contents = {
        "table": table_csv(records, beside).encode(),
        "data": table_json(records, beside).encode(),
        "picture": png(table_figure(records, beside, against_paper=against_paper)),
        **plots,
        # Last: where it is, all that it shows is.
        "report": _report(records, beside, list(plots), against_paper).encode(),
    }
    paths = {}
    for name, content in contents.items():
        paths[name] = pathlib.Path(directory) / names.get(name, f"{name}.png")
        files.write_file(paths[name], content)
    return paths


def _report(
    records: Sequence[TargetRecord], beside: Sequence[Record], pictures: Sequence[str], against_paper: bool
) -> str:
    commands = dict.fromkeys(str(record.provenance.get("command") or "not recorded") for record in records)
    parts = ["# Transfer robustness", "Made by:", "```\n" + "\n".join(commands) + "\n```"]
    parts += ["## Accuracy under transfer attacks (paper, Table 2)"]
    parts += [table_markdown(records, beside, against_paper=against_paper).rstrip()]
    if has_classes(records):
        parts += ["## Accuracy by class", classes_markdown(records, beside)]
    parts += [f"## {PICTURES[name].title}\n\n![{PICTURES[name].title}]({name}.png)" for name in pictures]
    return "\n\n".join([*parts, READING])
