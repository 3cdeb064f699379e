"""The charts of a page, each with its figures as a table."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from divtf.reporting.cells import heading
from divtf.reporting.figures.coherence import coherence_bins
from divtf.reporting.figures.gaas import pooled
from divtf.reporting.figures.queries import query_curve
from divtf.reporting.figures.roc import IMAGES
from divtf.reporting.figures.sparsity import mean_gal
from divtf.reporting.marks import name_of, names_of
from divtf.reporting.page.elements import Chart
from divtf.reporting.page.grids import text_grid
from divtf.reporting.page.specs import Axis, Looks, Style, chosen, lines, series_styles
from divtf.reporting.tables import Cell, Table
from divtf.storage.evaluations import QUERY, EvaluationRecord
from divtf.storage.records import CLEAN, WORST_CASE, GaasRecord, Record, SparsityRecord, grouped

_PERCENT = Axis("accuracy, %", (0, 100))
_LINES = ((1, 0), (6, 3), (6, 3, 1, 3), (1, 3))


def counted(cell: Cell) -> str:
    """Accuracy, uncertainty and counts, as "86.5 % [81.1-90.6], 173 of 200"; counts of each seed."""
    counts = "; ".join(f"{result.correct} of {result.total}" for result in cell.results)
    return f"{cell.accuracy:.1f} % {cell.spread}, {counts}"


def accuracy_charts(table: Table, looks: Looks) -> list[Chart]:
    """Accuracy against epsilon, a chart for each attack, the worst case of all first."""
    order = [*table.worst_cases, *table.attacks]
    return [_accuracy_chart(table, name, looks) for name in order]


def _accuracy_chart(table: Table, attack: str, looks: Looks) -> Chart:
    title = "worst case of all attacks" if attack == WORST_CASE else heading(attack)
    # Bars of targets stand beside each other.
    step = 0.012 * max(table.epsilons)
    points, grid = [], [["target", "epsilon", "accuracy, %", "interval", "images right"]]
    for place, row in enumerate(table.rows):
        shift = step * (place - (len(table.rows) - 1) / 2)
        for epsilon, name in [(0.0, CLEAN), *((each, attack) for each in table.epsilons)]:
            if cell := row.cell(name, epsilon):
                low, high = cell.bounds
                point = {"target": row.target, "series": row.target, "x": round(epsilon + shift, 6)}
                point |= {"y": round(cell.accuracy, 3), "low": round(low, 3), "high": round(high, 3)}
                words = f"{row.name}, {title}, epsilon {epsilon:g}: {counted(cell)}"
                points.append(point | {"words": words})
                counts = "; ".join(f"{result.correct} of {result.total}" for result in cell.results)
                grid.append([row.name, f"{epsilon:g}", f"{cell.accuracy:.1f}", cell.spread, counts])
    ends = (-0.04 * max(table.epsilons), 1.04 * max(table.epsilons))
    words = f"Accuracy of {', '.join(table.names.values())} against epsilon, {title}, clean images at 0."
    across = Axis("epsilon", ends, (0.0, *table.epsilons))
    spec = lines(points, chosen(looks, table.targets), across, _PERCENT, words)
    return Chart(title, words, spec, text_grid(title, grid, table.names))


def query_charts(
    records: Sequence[EvaluationRecord], looks: Looks, beside: Sequence[Record] = ()
) -> list[Chart]:
    """Accuracy against queries, a chart for each epsilon; none where nothing was asked."""
    asked = [record for record in records if any(trial.kind == QUERY for trial in record.trials)]
    by_target, names = grouped(asked, lambda record: record.target), names_of(asked, beside)
    charts = []
    for epsilon in asked[0].epsilons if asked else ():
        points, grid = [], [["target", "queries", "accuracy, %"]]
        for target, name in names.items():
            for count, accuracy in zip(*query_curve(by_target[target], epsilon), strict=True):
                words = f"{name}, epsilon {epsilon:g}: {accuracy:.1f} % left after {count} queries"
                point = {"target": target, "series": target, "x": int(count), "y": round(float(accuracy), 3)}
                points.append(point | {"words": words})
                grid.append([name, str(count), f"{accuracy:.1f}"])
        title = f"epsilon {epsilon:g}"
        words = f"Accuracy of {', '.join(names.values())} against the queries of Square, {title}."
        spec = lines(
            points,
            chosen(looks, list(names)),
            Axis("queries", ticks=_powers(points), scale="symlog"),
            _PERCENT,
            words,
            mark="steps",
        )
        charts.append(Chart(title, words, spec, text_grid(f"Accuracy against queries, {title}", grid, names)))
    return charts


def _powers(points: Sequence[Mapping[str, Any]]) -> list[int]:
    """0 and the powers of 10 up to the last point, and the last point."""
    last = max(point["x"] for point in points)
    return [0, *(10**power for power in range(len(str(last))) if 10**power < last / 1.5), last]


def coherence_chart(table: Table, looks: Looks) -> Chart:
    """Histograms of coherence over clean test images, seeds pooled (section 4.3, Figure 4).

    Args:
        table: of records that hold coherence.
        looks: target -> its style.
    """
    bins = coherence_bins(table)
    points, grid = [], [["target", "from", "to", "images", "density"]]
    means = []
    for row in table.rows:
        values = np.concatenate([record.coherence for record in row.records])
        counts, _ = np.histogram(values, bins)
        density = counts / (len(values) * np.diff(bins))
        means.append(f"{row.name} {values.mean() + 0.0:.2f}")
        for low, high, count, height in zip(bins[:-1], bins[1:], counts, density, strict=True):
            words = f"{row.name}, coherence {low:.2f} to {high:.2f}: {count} of {len(values)} images"
            point = {"target": row.target, "series": row.target, "x": round(low, 4), "y": round(height, 4)}
            points.append(point | {"words": words})
            if count:
                grid.append([row.name, f"{low:.2f}", f"{high:.2f}", str(count), f"{height:.2f}"])
        points.append({"target": row.target, "series": row.target, "x": bins[-1], "y": 0.0, "words": ""})
    words = f"Histograms of coherence on clean test images; means: {', '.join(means)}."
    across = Axis("coherence of the input gradients (Equation 7)", (bins[0], bins[-1]))
    spec = lines(points, chosen(looks, table.targets), across, Axis("density"), words, mark="areas")
    return Chart(f"Mean {', '.join(means)}", words, spec, text_grid("Coherence", grid, table.names))


def gaas_legend(records: Sequence[GaasRecord], looks: Looks) -> dict[str, Style]:
    """The colour of each target, and the dash of each order."""
    own = chosen(looks, list(names_of(records)))
    colours = {name: dataclasses.replace(style, dash=_LINES[0]) for name, style in own.items()}
    return colours | {name: Style("currentColor", "", dash) for name, dash in _order_dashes(records).items()}


def _order_dashes(records: Sequence[GaasRecord]) -> dict[str, tuple[int, ...]]:
    orders = sorted({curve["order"] for record in records for curve in record.curves})
    return {f"k = {order}": _LINES[place % len(_LINES)] for place, order in enumerate(orders)}


def gaas_charts(records: Sequence[GaasRecord], looks: Looks, beside: Sequence[Record] = ()) -> list[Chart]:
    """Probability of at least m orthogonal adversarial directions, a chart for each epsilon (Figure 5)."""
    by_target, names = grouped(records, lambda record: record.target), names_of(records, beside)
    curves = [curve for record in records for curve in record.curves]
    orders = sorted({curve["order"] for curve in curves})
    dashes = _order_dashes(records)
    charts = []
    for epsilon in sorted({curve["epsilon"] for curve in curves}):
        points, grid = [], [["target", "k", "m", "probability"]]
        for target, name in names.items():
            for order in orders:
                for m, share in enumerate(pooled(by_target[target], epsilon, order), 1):
                    words = f"{name}, at least {m} of {order} directions, epsilon {epsilon:g}: {share:.3f}"
                    point = {"target": target, "series": target, "kind": f"k = {order}", "x": m}
                    points.append(point | {"y": round(float(share), 4), "words": words})
                    grid.append([name, str(order), str(m), f"{share:.3f}"])
        title = f"epsilon {epsilon:g}"
        fooled = ", ".join(names.values())
        words = f"Probability that at least m of k orthogonal directions fool {fooled}, {title}."
        across = Axis("m, number of directions", ticks=sorted({1, *orders}), scale="log")
        upwards = Axis("P(at least m of k succeed)", (0, 1))
        spec = lines(points, chosen(looks, list(names)), across, upwards, words, mark="plain", dashes=dashes)
        charts.append(Chart(title, words, spec, text_grid(f"Directions, {title}", grid, names)))
    return charts


def roc_charts(
    records: Sequence[EvaluationRecord], scores: Sequence[str], beside: Sequence[Record] = ()
) -> list[Chart]:
    """Flagged images against false alarms, a chart for each attack on each target, its first seed.

    Args:
        records: of evaluations.
        scores: of suspicion, the ones drawn, in order.
        beside: as in `marks.marks`.
    """
    charts = []
    firsts = {record.target: record for record in reversed(records) if record.detection}
    for record in (record for record in records if firsts.get(record.target) is record):
        drawn = [
            curve
            for curve in record.detection["curves"]
            if curve["images"] == "fooled" and curve["score"] in scores
        ]
        for attack in dict.fromkeys(curve["attack"] for curve in drawn):
            of_attack = [curve for curve in drawn if curve["attack"] == attack]
            charts.append(_roc_chart(record, name_of([record], beside), attack, of_attack, scores))
    return charts


def roc_legend(scores: Sequence[str]) -> dict[str, Style]:
    """The style of each score's line."""
    return series_styles([score.replace("_", " ") for score in scores])


def _roc_chart(
    record: EvaluationRecord,
    target: str,
    attack: str,
    curves: Sequence[Mapping[str, Any]],
    scores: Sequence[str],
) -> Chart:
    """One chart; `target` is how it is written."""
    least = 0.5 / record.detection["clean"]["images"]
    looks = roc_legend(scores)
    points, grid = [], [["score", "area under it", *(_at(rate) for rate in curves[0]["at"])]]
    for curve in curves:
        name = curve["score"].replace("_", " ")
        for fpr, tpr in curve["points"]:
            words = f"{name}: {100 * tpr:.1f} % flagged at {100 * fpr:.1f} % false alarms"
            point = {"target": record.target, "series": name, "x": round(max(fpr, least), 5)}
            points.append(point | {"y": round(tpr, 4), "words": words})
        rates = [
            f"{100 * rate['tpr']:.1f} [{100 * rate['low']:.1f}-{100 * rate['high']:.1f}]"
            for rate in curve["at"]
        ]
        grid.append([name, f"{curve['auc']:.3f}", *rates])
    count = record.detection["attacks"][attack]["fooled"]
    title = f"{target}, seed {record.seed}: {attack}, {count} {IMAGES['fooled']}"
    words = f"Share of images flagged against false alarms, {title}."
    across = Axis(
        "false alarms, share of clean images",
        (least, 1.0),
        [tick for tick in (0.01, 0.1, 1) if tick >= least],
        "log",
    )
    rules = [rate["false_alarms"] for rate in curves[0]["at"] if rate["false_alarms"] >= least]
    spec = lines(points, looks, across, Axis("flagged, share", (0, 1)), words, mark="steps", rules=rules)
    return Chart(title, words, spec, text_grid(title, grid), record.target)


def _at(rate: Mapping[str, Any]) -> str:
    return f"flagged at {100 * rate['false_alarms']:g} % false alarms, %"


def gal_chart(records: Sequence[SparsityRecord], looks: Looks, beside: Sequence[Record] = ()) -> Chart:
    """GAL by epoch, the mean over a target's seeds (section 3.4)."""
    by_target, names = grouped(records, lambda record: record.target), names_of(records, beside)
    points, grid = [], [["target", "epoch", "GAL"]]
    for target, name in names.items():
        for epoch, value in enumerate(mean_gal(by_target[target]), 1):
            words = f"{name}, epoch {epoch}: GAL {value:.3f}"
            points.append(
                {"target": target, "series": target, "x": epoch, "y": round(value, 4), "words": words}
            )
            grid.append([name, str(epoch), f"{value:.3f}"])
    words = f"GAL of {', '.join(names.values())} over the epochs of training."
    spec = lines(points, chosen(looks, list(names)), Axis("epoch"), Axis("GAL (Equation 8)"), words)
    return Chart("GAL over training", words, spec, text_grid("GAL over training", grid, names))
