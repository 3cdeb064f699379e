"""Accuracy against the number of queries, as a picture."""

from collections.abc import Iterable, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from divtf.reporting.figures.style import STYLE, colour_entries, panels, shared_legend, target_style
from divtf.reporting.marks import names_of
from divtf.storage.evaluations import QUERY, EvaluationRecord
from divtf.storage.records import Record, grouped, unpacked


@matplotlib.rc_context(STYLE)
def queries_figure(records: Iterable[EvaluationRecord], beside: Sequence[Record] = ()) -> Figure:
    """What each target keeps against the queries that an image may take; one panel an epsilon.

    `beside` is as in `marks.marks`.

    Raises:
        ValueError: if no target was asked.
    """
    asked = [record for record in records if any(trial.kind == QUERY for trial in record.trials)]
    if not asked:
        raise ValueError("Expected records of attacks by queries. Received: none")
    groups = grouped(asked, lambda record: record.table)
    counts = [(group[0].subject, len(group[0].epsilons)) for group in groups.values()]
    figure, drawn = panels(counts, size=(3.1, 2.6), columns=3)
    for group, (band, axes_row) in zip(groups.values(), drawn, strict=True):
        names = names_of(group, beside)
        targets = list(names)
        for epsilon, axes in zip(group[0].epsilons, axes_row, strict=True):
            for target in targets:
                of_target = [record for record in group if record.target == target]
                counts_allowed, accuracy = query_curve(of_target, epsilon)
                axes.step(counts_allowed, accuracy, where="post", color=target_style(target, targets)[0])
            axes.set(title=f"epsilon {epsilon:g}", xscale="symlog", xlabel="queries", ylim=(-3, 103))
            axes.set_xlim(0, None)
        axes_row[0].set_ylabel(f"accuracy on the first {group[0].query_images}, %")
        shared_legend(band, colour_entries(names))
    return figure


def query_curve(records: Sequence[EvaluationRecord], epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy in percent of a target, all seeds together, after so many queries: two arrays [k].

    It is over the first images of each record, `query_images` of them: others were asked for only where they
    withstood all else. Images that the target gets wrong when clean took no query.
    """
    taken: list[int] = []
    allowed = 0
    for record in records:
        for trial in record.trials:
            if trial.kind == QUERY and trial.epsilon == epsilon:
                tried = np.flatnonzero(unpacked(trial.tried, record.images))
                of_first = np.array(trial.queries_taken, int)[tried < record.query_images].tolist()
                taken += [0] * (record.query_images - len(of_first)) + of_first
                allowed = max(allowed, trial.queries)
    counts = np.unique([0, *(count for count in taken if count <= allowed), allowed])
    return counts, np.array([100 * np.mean(np.array(taken) > count) for count in counts])
