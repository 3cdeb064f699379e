"""Heat maps as tables: mean cosines of pairs of members, and transfer matrices."""

import math
from collections.abc import Sequence

import matplotlib
from matplotlib.colors import rgb2hex

from divtf.reporting.figures.pair_cosines import mean_pair_cosines
from divtf.reporting.marks import names_of
from divtf.reporting.page.elements import Heat, Shade
from divtf.reporting.tables import Table
from divtf.reporting.transfer_matrix import TransferMatrix
from divtf.storage.records import Record, TransferMatrixRecord, epsilons


def pair_cosine_heats(table: Table) -> list[Heat]:
    """Mean cosine of each two members' input gradients (Equation 6), a map for each target."""
    heats = []
    for row in table.rows:
        cosines = mean_pair_cosines(row)
        names = tuple(str(member + 1) for member in range(len(cosines)))
        rows = [
            (name, tuple(_shade(value, f"{round(value, 2) + 0.0:.2f}", "PuOr_r", -1, 1) for value in line))
            for name, line in zip(names, cosines.tolist(), strict=True)
        ]
        heats.append(Heat(row.name, "member", names, tuple(rows), row.target))
    return heats


def transfer_heats(records: Sequence[TransferMatrixRecord], beside: Sequence[Record] = ()) -> list[Heat]:
    """Accuracy of each target on the images of each source, a map for each epsilon."""
    matrix, names = TransferMatrix(records), names_of(records, beside)
    heats = []
    for epsilon in epsilons(records):
        rows = []
        for source in matrix.sources:
            values = [(target, matrix.accuracy(source, target, epsilon)) for target in matrix.targets]
            shades = [_shade(v, f"{v:.1f}", "viridis", 0, 100, target == source) for target, v in values]
            rows.append((source, tuple(shades)))
        corner = "images of ↓, accuracy of →"
        caption = f"epsilon {epsilon:g}"
        heats.append(Heat(caption, corner, tuple(matrix.targets), tuple(rows), names=names))
    return heats


def _shade(value: float, text: str, name: str, low: float, high: float, strong: bool = False) -> Shade:
    if math.isnan(value):
        return Shade("-")
    red, green, blue, _ = matplotlib.colormaps[name]((value - low) / (high - low))
    # Whichever of black and white is further from it, by the luminance of WCAG 2.
    parts = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue)
    ]
    luminance = sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))
    return Shade(text, rgb2hex((red, green, blue)), "#000000" if luminance > 0.179 else "#ffffff", strong)
