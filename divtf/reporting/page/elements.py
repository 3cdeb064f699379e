"""What a page is made of: tables, heat maps, charts, pictures. Values only; templates write them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from divtf.reporting.page.specs import Style


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: what stands there.
        small: below it, as an interval.
        key: what the column is sorted by: a number, or the text itself where None.
        strong: whether it is marked as the strongest attack of its line.
        paper: the paper's figure and the difference, shown on demand; "" where there is none.
    """

    text: str
    small: str = ""
    key: float | None = None
    strong: bool = False
    paper: str = ""


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a table.

    Attributes:
        cells: one a column; the first names the line.
        target: whose line it is, so that a switch can hide it; "" of no single one's.
    """

    cells: tuple[Cell, ...]
    target: str = ""


@dataclasses.dataclass(frozen=True)
class Grid:
    """A table that readers can sort.

    Attributes:
        caption: what it is.
        head: what stands above the columns.
        lines: at least one.
    """

    caption: str
    head: tuple[str, ...]
    lines: tuple[Line, ...]


@dataclasses.dataclass(frozen=True)
class Shade:
    """A cell of a heat map: its text, its colour, and that of the text on it."""

    text: str
    colour: str = ""
    ink: str = ""
    strong: bool = False


@dataclasses.dataclass(frozen=True)
class Heat:
    """A heat map as a table.

    Attributes:
        caption: what it is.
        corner: what the names of rows and of columns stand for.
        columns: their names.
        rows: (name, cells) of each.
        target: whose it is, so that a switch can hide it; "" of no single one's.
        names: column -> how it is written, where otherwise.
    """

    caption: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Shade, ...]], ...]
    target: str = ""
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart, and the same figures as a table for who cannot see it, or wants the digits.

    Attributes:
        title: what stands above it.
        words: what it shows, in a sentence.
        spec: in the words of Vega-Lite.
        table: its figures.
        target: as in `Heat`.
    """

    title: str
    words: str
    spec: Mapping[str, Any]
    table: Grid
    target: str = ""


@dataclasses.dataclass(frozen=True)
class View:
    """One picture of an image: clean or attacked, and what each member and all together make of it.

    Attributes:
        name: "clean", or attack and epsilon.
        png: the picture, base64.
        together: the ensemble's class, in words.
        members: each member's class, in words.
        right: whether the ensemble's is the label.
        members_right: whether each member's is.
    """

    name: str
    png: str
    together: str
    members: tuple[str, ...]
    right: bool
    members_right: tuple[bool, ...]


@dataclasses.dataclass(frozen=True)
class Strip:
    """Images of a target, clean and attacked.

    Attributes:
        target: whose predictions they are.
        caption: what is shown.
        images: (what the label says, its views) of each image.
    """

    target: str
    caption: str
    images: tuple[tuple[str, tuple[View, ...]], ...]


@dataclasses.dataclass(frozen=True)
class Block:
    """A part of a section under one title; what it does not have is empty.

    Attributes:
        title: what stands above it.
        name: by which links find it.
        notes: sentences above its tables.
        grids: its tables.
        folded: whether these wait behind their captions until they are asked for.
        charts: its charts.
        legend: series -> style, what lines of the charts stand for.
        names: series -> how it is written in the legend, where otherwise.
        heats: its heat maps.
        strips: its images.
        bullets: what its figures say of themselves, folded.
    """

    title: str
    name: str
    notes: Sequence[str] = ()
    grids: Sequence[Grid] = ()
    folded: bool = False
    charts: Sequence[Chart] = ()
    legend: Mapping[str, Style] = dataclasses.field(default_factory=dict)
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    heats: Sequence[Heat] = ()
    strips: Sequence[Strip] = ()
    bullets: Sequence[str] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return not any((self.grids, self.charts, self.heats, self.strips, self.bullets))
