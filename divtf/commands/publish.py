"""Put figures into the repository: python -m divtf.publish --run=runs/demo --name=demo.

What the runs below a directory have recorded goes to runs/results/NAME.json (and NAME-gaas.json,
NAME-transfer.json and NAME-sparsity.json, where `divtf.figure5` or `divtf.transfer_matrix` has measured or
the ReLU ablation has run), the pictures and the CSV made of it beside them, and the text into README.md
between the lines <!-- NAME --> and <!-- /NAME -->, so that no figure is typed by hand. `--redraw` makes what
is made of the JSON anew, for every published name.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from divtf.commands import command_line, figure3, figure5, transfer_matrix
from divtf.errors import require
from divtf.pipeline import finished
from divtf.pipeline.modes import MODES
from divtf.reporting import captions, markdown, report, table_data
from divtf.reporting.figures import style
from divtf.reporting.figures.gaas import gaas_figure
from divtf.reporting.figures.sparsity import sparsity_figure
from divtf.reporting.figures.table import table_figure
from divtf.reporting.figures.transfer_matrix import matrix_figure
from divtf.storage import checked_json, files
from divtf.storage.records import MatrixRecord, Record, SparsityRecord, SubspaceRecord, TargetRecord, grouped

flags.disclaim_key_flags()  # They are those of the command at the door.

RESULTS = Path("runs/results")
README = Path("README.md")


@dataclasses.dataclass(frozen=True)
class Kind:
    """Records of one kind, published as one JSON file.

    Attributes:
        ending: what follows the published name in the file's name, before ".json".
        collect: the records of the finished runs below a directory; may be none.
        load: a record from its JSON object.
        text: Markdown that says what the records are.
    """

    ending: str
    collect: Callable[[Path], Sequence[Any]]
    load: Callable[[Mapping[str, Any]], Any]
    text: Callable[[Sequence[Any]], str]


@dataclasses.dataclass(frozen=True)
class Output:
    """One file that is made of the records of one kind.

    Attributes:
        kind: a name of `KINDS`.
        make: the file's content from the records.
        title: what it is, for the README.
        shown: whether the README shows it as a picture or only links to it.
        has_values: whether the records hold values for it; else it is left out.
    """

    kind: str
    make: Callable[[Sequence[Any]], bytes]
    title: str
    shown: bool = True
    has_values: Callable[[Sequence[Any]], bool] = lambda records: True


def _of_report(name: str, title: str, *, shown: bool = True) -> Output:
    """A picture of the report of a table."""
    picture = report.PICTURES[name]
    return Output("table", functools.partial(_picture, picture.draw), title, shown, picture.has_values)


def _collect_targets(root: Path) -> list[TargetRecord]:
    return [finished.read_record(path) for path in finished.directories(root)]


def _collect_ablation(root: Path) -> list[SparsityRecord]:
    """Runs with GAL, if some have ReLU and some have not: otherwise there is nothing to compare."""
    with_gal = [
        config
        for path in finished.directories(root)
        if MODES[(config := finished.read_config(path)).mode].gal
    ]
    return figure3.collect(root) if len({config.rectified for config in with_gal}) > 1 else []


def _bullets(lines: Callable[[Sequence[Any]], Sequence[str]], records: Sequence[Any]) -> str:
    """The lines on each model and data set as a Markdown list."""
    parts = []
    for subject, own in grouped(records, lambda record: record.subject).items():
        parts.append("\n".join([f"**{subject}**", "", *(f"- {line}" for line in lines(own))]))
    return "\n\n".join(parts)


def _picture(draw: Callable[[Sequence[Any]], Any], records: Sequence[Any]) -> bytes:
    return style.png(draw(records))


KINDS = {
    "table": Kind(
        "",
        _collect_targets,
        TargetRecord.from_json,
        lambda records: markdown.table_markdown(records, against_paper=True).strip(),
    ),
    "gaas": Kind(
        "-gaas",
        figure5.collect,
        SubspaceRecord.from_json,
        functools.partial(_bullets, captions.subspace),
    ),
    "transfer": Kind(
        "-transfer",
        transfer_matrix.collect,
        MatrixRecord.from_json,
        functools.partial(_bullets, captions.transfer),
    ),
    "sparsity": Kind(
        "-sparsity",
        _collect_ablation,
        SparsityRecord.from_json,
        functools.partial(_bullets, captions.sparsity),
    ),
}

OUTPUTS = {
    "accuracy.png": _of_report("accuracy", "accuracy against epsilon"),
    "coherence.png": _of_report("coherence", "coherence (Figure 4)"),
    "gaas.png": Output(
        "gaas", functools.partial(_picture, gaas_figure), "orthogonal adversarial directions (Figure 5)"
    ),
    "transfer.png": Output(
        "transfer", functools.partial(_picture, matrix_figure), "accuracy on the images of each source"
    ),
    "sparsity.png": Output(
        "sparsity", functools.partial(_picture, sparsity_figure), "ReLU against LeakyReLU (section 3.4)"
    ),
    "pair_cosines.png": _of_report("pair_cosines", "mean cosine of each pair", shown=False),
    "table.png": Output(
        "table",
        functools.partial(_picture, functools.partial(table_figure, against_paper=True)),
        "the table as a picture",
        shown=False,
    ),
    "table.csv": Output(
        "table", lambda records: table_data.table_csv(records).encode(), "the table as CSV", shown=False
    ),
}

Published = Mapping[str, Sequence[Any]]
"""Kind -> its records, kinds without records left out."""


def collect(root: Path) -> Published:
    """What the finished runs below a directory have recorded, in the order of their training.

    Raises:
        InputError: if there are none, or if two of them are of one target, model, data set and seed.
    """
    found = {name: [_public(record) for record in kind.collect(root)] for name, kind in KINDS.items()}
    require(bool(found["table"]), f"finished runs below {root}", "none")
    for records in found.values():
        finished.require_distinct(records, root)
    return {name: records for name, records in found.items() if records}


def _public(record: Record) -> Record:
    """The record without what concerns nobody elsewhere: the machine's kernel."""
    named = {"provenance", "analysis"} & {field.name for field in dataclasses.fields(record)}
    values: dict[str, Any] = {name: _without_platform(getattr(record, name)) for name in named}
    return dataclasses.replace(record, **values)


def _without_platform(environment: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in environment.items() if name != "platform"}


def load(name: str, results: Path = RESULTS) -> Published:
    """The published records of a name."""
    paths = {kind: results / f"{name}{made.ending}.json" for kind, made in KINDS.items()}
    return {
        kind: [KINDS[kind].load(record) for record in checked_json.read_json(path)]
        for kind, path in paths.items()
        if path.exists()
    }


def published_names(readme: str) -> list[str]:
    """The names that the README has marks for, in its order."""
    return re.findall(r"^<!-- /([\w-]+) -->$", readme, re.MULTILINE)


def contents(published: Published) -> dict[str, bytes]:
    """Every file that is made of the records, by the end of its name, as "accuracy.png"."""
    return {end: output.make(published[output.kind]) for end, output in _outputs(published).items()}


def _outputs(published: Published) -> dict[str, Output]:
    """The outputs for which there are records with values."""
    return {
        end: output
        for end, output in OUTPUTS.items()
        if output.kind in published and output.has_values(published[output.kind])
    }


def section(name: str, published: Published) -> str:
    """The generated part of the README for a published name, Markdown."""
    parts, made = [], _outputs(published)
    for kind, records in published.items():
        parts.append(KINDS[kind].text(records))
        for end, output in made.items():
            if output.kind == kind and output.shown:
                parts.append(f"![{output.title}]({RESULTS}/{name}-{end})")
    files = {f"{name}-{end}": output.title for end, output in made.items() if not output.shown}
    files |= {f"{name}{KINDS[kind].ending}.json": f"records: {kind}" for kind in published}
    links = [f"[{title}]({RESULTS}/{file})" for file, title in files.items()]
    return "\n\n".join([*parts, f"Also: {', '.join(links)}."])


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


def publish(name: str, published: Published) -> None:
    """Write the records and all that is made of them; remove the records of other kinds under this name.

    Raises:
        InputError: if the README has no marks for the name, or if the name ends as a kind's files do.
    """
    endings = [kind.ending for kind in KINDS.values() if kind.ending]
    holds = re.fullmatch(r"[\w-]+", name) is not None and not name.endswith(tuple(endings))
    require(holds, f"--name of letters, digits, - and _, not ending in {' or '.join(endings)}", name)
    # What is refused, or cannot be drawn, is so before anything is written.
    readme, made_now = _rendered(name, published)
    for kind, made in KINDS.items():
        path = RESULTS / f"{name}{made.ending}.json"
        if kind in published:
            checked_json.write_json(path, [record.to_json() for record in published[kind]])
        else:
            path.unlink(missing_ok=True)
    _write(name, readme, made_now)


def draw(name: str, published: Published) -> None:
    """Write what is made of a name's records: its pictures, CSV and section of the README; no others stay."""
    _write(name, *_rendered(name, published))


def _rendered(name: str, published: Published) -> tuple[str, dict[str, bytes]]:
    """The README with the name's section made anew, and the name's files as in `contents`."""
    return insert(README.read_text(), name, section(name, published)), contents(published)


def _write(name: str, readme: str, made_now: Mapping[str, bytes]) -> None:
    for end in OUTPUTS:
        path = RESULTS / f"{name}-{end}"
        if end in made_now:
            files.write_file(path, made_now[end])
        else:
            path.unlink(missing_ok=True)
    files.write_file(README, readme)


def main(root: Path, name: str, redraw: bool) -> None:
    """Publish the runs below `root`; or make anew what is made of the records of every name in the README."""
    if redraw:
        for known in published_names(README.read_text()):
            if published := load(known):
                draw(known, published)
            else:
                print(f"{known}: nothing published yet")
    else:
        publish(name, collect(root))


def launch() -> None:
    """The command: its flags, and what it does with them."""
    defined = flags.FLAGS
    flags.DEFINE_string("run", "runs/table2", "Directory that holds the run directories.")
    flags.DEFINE_string("name", "table2", "Name of the published figures.")
    flags.DEFINE_bool("redraw", False, "Make all published pictures and texts anew from their records.")
    command_line.run_without_config(lambda: main(Path(defined.run), defined.name, defined.redraw))
