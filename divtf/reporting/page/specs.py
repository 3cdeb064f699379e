"""Charts in the words of Vega-Lite: lines over a number, drawn in the colours of the project's pictures.

A chart knows the name of the target of each of its points: the page's script sets the parameter "off" to
the targets that are switched off.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from divtf.reporting.figures.style import COLOURS, MARKERS, target_style

# The shape that stands for a marker of the pictures.
_SHAPES = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "P": "cross",
    "X": "triangle-right",
}
_DASHES = ((1, 0), (6, 3), (6, 3, 1, 3), (1, 3), (10, 3), (3, 3), (10, 3, 3, 3))
_INK = "currentColor"
CONFIG: dict[str, Any] = {
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        **{"labelColor": _INK, "titleColor": _INK, "tickColor": _INK, "domainColor": _INK},
        **{"gridColor": _INK, "gridOpacity": 0.12, "labelFontSize": 12, "titleFontSize": 12},
        "titleFontWeight": "normal",
    },
}


@dataclasses.dataclass(frozen=True)
class Style:
    """How a series looks: the same everywhere on a page.

    Attributes:
        colour: of CSS.
        shape: of its points, a name of Vega's.
        dash: lengths of strokes and gaps.
    """

    colour: str
    shape: str
    dash: tuple[int, ...]


Looks = Mapping[str, Style]
"""Target -> its style, for all charts of a model and data set: none picks colours of its own."""


def chosen(looks: Looks, targets: Sequence[str]) -> dict[str, Style]:
    """The styles of some targets, in their order."""
    return {target: looks[target] for target in targets}


def styles(targets: Sequence[str]) -> dict[str, Style]:
    """The style of each target, that of the project's pictures."""
    found = {}
    for target in targets:
        colour, marker = target_style(target, targets)
        dash = _DASHES[MARKERS.index(marker) % len(_DASHES)]
        found[target] = Style(_INK if colour == "#000000" else colour, _SHAPES[marker], dash)
    return found


def series_styles(names: Sequence[str]) -> dict[str, Style]:
    """The style of each of other series, as scores, in turn."""
    return {
        name: Style(
            _INK if (colour := COLOURS[place % len(COLOURS)]) == "#000000" else colour,
            _SHAPES[MARKERS[place % len(MARKERS)]],
            _DASHES[place % len(_DASHES)],
        )
        for place, name in enumerate(names)
    }


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        title: what stands beside it.
        domain: its ends; None where the values say.
        ticks: where its ticks are; None where the library chooses.
        scale: "linear", "log" or "symlog".
    """

    title: str
    domain: tuple[float, float] | None = None
    ticks: Sequence[float] | None = None
    scale: str = "linear"

    def encoding(self, field: str) -> dict[str, Any]:
        """The channel that shows a field on this axis."""
        scale: dict[str, Any] = {"type": self.scale, "nice": self.domain is None and self.scale == "linear"}
        if self.domain:
            scale |= {"domain": list(self.domain)}
        axis: dict[str, Any] = {"title": self.title, "tickCount": 5, "labelOverlap": True}
        if self.ticks is not None:
            # As an expression: a format of the axis would be given the precision of its ticks, as "1e+1".
            axis |= {"values": list(self.ticks), "labelExpr": "format(datum.value, '~g')"}
        return {"field": field, "type": "quantitative", "scale": scale, "axis": axis}


def lines(
    points: Sequence[Mapping[str, Any]],
    looks: Mapping[str, Style],
    x: Axis,
    y: Axis,
    words: str,
    *,
    mark: str = "points",
    dashes: Mapping[str, Sequence[int]] | None = None,
    rules: Sequence[float] = (),
) -> dict[str, Any]:
    """A line for each series.

    Args:
        points: in the order of x; each has "target" (what can be switched off), "series" (of `looks`),
            "x", "y" and "words", what hovering tells; with bars "low" and "high"; with `dashes` "kind".
        looks: series -> style.
        x: the axis across.
        y: the axis upwards.
        words: what the chart shows, for a screen reader.
        mark: "points" draws points and, where there are bounds, bars; "steps" holds each value until the next
            point; "plain" draws lines alone; "areas" fills steps down to 0.
        dashes: kind -> its dash, in place of that of the series.
        rules: values of x at which a dotted line stands.
    """
    names = list(looks)
    of_series = {"field": "series", "type": "nominal", "legend": None}
    colour = {**of_series, "scale": {"domain": names, "range": [looks[name].colour for name in names]}}
    dash: dict[str, Any]
    if dashes is None:
        dash = {**of_series, "scale": {"domain": names, "range": [list(looks[name].dash) for name in names]}}
    else:
        ranges = {"domain": list(dashes), "range": [list(each) for each in dashes.values()]}
        dash = {"field": "kind", "type": "nominal", "legend": None, "scale": ranges}
    across, upwards = x.encoding("x"), y.encoding("y")
    encoding: dict[str, Any] = {"x": across, "y": upwards, "color": colour}
    told = {"description": {"field": "words"}, "tooltip": {"field": "words"}}
    detail: dict[str, Any] = {
        "detail": [{"field": "series"}, {"field": "kind"}] if dashes else [{"field": "series"}]
    }
    drawn = {"interpolate": {"steps": "step-after", "areas": "step-after"}.get(mark, "linear")}
    line = {"type": "line", "strokeWidth": 2, "clip": True, "aria": False, **drawn}
    layers: list[dict[str, Any]] = [{"mark": line, "encoding": {**encoding, **detail, "strokeDash": dash}}]
    if mark == "areas":
        area = {"type": "area", "opacity": 0.18, "clip": True, "aria": False, **drawn}
        # Histograms lie behind each other; what is not told so is stacked.
        behind = {**encoding, **detail, "y": {**upwards, "stack": None}}
        layers.insert(0, {"mark": area, "encoding": behind})
    if mark == "points" and any("low" in point for point in points):
        bars = {**encoding, "y": {**upwards, "field": "low"}, "y2": {"field": "high"}}
        layers.append({"mark": {"type": "rule", "strokeWidth": 1.5, "aria": False}, "encoding": bars})
    shapes = {**of_series, "scale": {"domain": names, "range": [looks[name].shape for name in names]}}
    # Lines without points of their own are touched at invisible ones.
    visible = {"opacity": 1, "size": 70} if mark == "points" else {"opacity": 0, "size": 120}
    spot = {"type": "point", "filled": True, "clip": True, **visible}
    layers.append({"mark": spot, "encoding": {**encoding, **told, "shape": shapes}})
    if rules:
        dotted = {"type": "rule", "strokeDash": [2, 3], "opacity": 0.6, "color": _INK, "aria": False}
        at = {"x": {"field": "rule", "type": "quantitative"}}
        layers.append(
            {"data": {"values": [{"rule": rule} for rule in rules]}, "mark": dotted, "encoding": at}
        )
    switch = {"filter": "indexof(off, datum.target) < 0"}
    for layer in layers:
        if "data" not in layer:
            layer["transform"] = [switch]
    return {
        "description": words,
        "width": "container",
        "height": 230,
        "autosize": {"type": "fit", "contains": "padding"},
        "config": CONFIG,
        "params": [{"name": "off", "value": []}],
        "data": {"values": [dict(point) for point in points]},
        "layer": layers,
    }
