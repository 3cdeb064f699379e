"""Detection of attacked images (section 6) as a picture: ROC curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from divtf.reporting.figures.style import COLOURS, LINES, STYLE, panels, shared_legend

# Which images a panel may be of, by what it is called.
IMAGES = {"fooled": "images that fool", "all": "attacked images"}


@matplotlib.rc_context(STYLE)
def roc_figure(results: Mapping[str, Mapping[str, Any]], images: str = "fooled") -> Figure:
    """ROC curves, one band a target, one panel an attack, one line a score, with the area under it.

    The axis of false alarms is logarithmic, since only low ones are of use; it ends on the left at half a
    clean image, where those stand that are flagged without any. Vertical lines are the shares of false alarms
    at which rates are reported.

    Args:
        results: by the target's name what `evaluation.detection.evaluate_detection` gives.
        images: "fooled" for images that fool the target, "all" for all that were attacked.

    Raises:
        ValueError: if there is no curve of such images.
    """
    if images not in IMAGES:
        raise ValueError(f"Expected images as one of {list(IMAGES)}. Received: {images!r}")
    curves = {
        target: [curve for curve in result["curves"] if curve["images"] == images]
        for target, result in results.items()
    }
    curves = {target: drawn for target, drawn in curves.items() if drawn}
    if not curves:
        raise ValueError(f"Expected at least one ROC curve of {IMAGES[images]}. Received: none")
    scores = _distinct([curve for drawn in curves.values() for curve in drawn], "score")
    counts = [(target, len(_distinct(drawn, "attack"))) for target, drawn in curves.items()]
    figure, drawn_panels = panels(counts, size=(3.6, 3.3), columns=3)
    for (target, drawn), (band, axes_row) in zip(curves.items(), drawn_panels, strict=True):
        least = 0.5 / results[target]["clean"]["images"]
        for attack, axes in zip(_distinct(drawn, "attack"), axes_row, strict=True):
            of_attack = [curve for curve in drawn if curve["attack"] == attack]
            for curve in of_attack:
                _draw(axes, curve, scores, least)
            count = results[target]["attacks"][attack]["fooled" if images == "fooled" else "images"]
            axes.set(
                title=f"{attack.replace('_', ' ')}: {count} {IMAGES[images]}",
                xlabel="false alarms, share of clean images",
                xscale="log",
                xlim=(least, 1.0),
                ylim=(-0.02, 1.02),
            )
            axes.legend(loc="best", fontsize=7, title="area under it", title_fontsize=7, frameon=True)
        for axes in axes_row[::3]:
            axes.set_ylabel("flagged, share of attacked images")
        shared_legend(band, [_entry(score, scores) for score in scores])
    return figure


def _draw(axes: Axes, curve: Mapping[str, Any], scores: Sequence[str], least: float) -> None:
    """One line, in steps: between two of its points no more than at the left one is sure to be flagged."""
    entry = _entry(curve["score"], scores)
    fpr, tpr = zip(*curve["points"], strict=True)
    axes.plot(
        [max(share, least) for share in fpr],
        tpr,
        drawstyle="steps-post",
        color=entry.get_color(),
        linestyle=entry.get_linestyle(),
        label=f"{curve['auc']:.3f}",
    )
    for rate in curve["at"]:
        axes.axvline(rate["false_alarms"], color="#555555", linestyle=":", linewidth=0.8)


def _entry(score: str, scores: Sequence[str]) -> Line2D:
    """The score's entry in the legend."""
    place = scores.index(score)
    colour, style = COLOURS[place % len(COLOURS)], LINES[place % len(LINES)]
    return Line2D([], [], color=colour, linestyle=style, label=score.replace("_", " "))


def _distinct(curves: Sequence[Mapping[str, Any]], entry: str) -> list[str]:
    return list(dict.fromkeys(curve[entry] for curve in curves))
