"""The method as a picture: one image, each member's input gradient there, and the cosines between them."""

import itertools
from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from divtf.reporting.figures.style import STYLE


@matplotlib.rc_context(STYLE | {"axes.grid": False})
def method_figure(image: np.ndarray, gradients: Mapping[str, np.ndarray]) -> Figure:
    """A row for each ensemble: the image, its members' gradients, and their cosines (Eq. 6).

    Each gradient has a scale of its own, as the cosine does not know their lengths. The pair of the largest
    cosine, which is the coherence (Eq. 7), is framed.

    Args:
        image: [H, W] or [H, W, C].
        gradients: by the ensemble's name, those of its members' losses at the image, [N, H, W] or
            [N, H, W, C], N >= 2 and the same for all. Channels are drawn as their sum.

    Raises:
        ValueError: if there are none, fewer than two members, or unlike numbers of them.
    """
    counts = {len(each) for each in gradients.values()}
    if len(counts) != 1 or min(counts) < 2:
        raise ValueError(f"Expected gradients of the same 2 or more members. Received: {sorted(counts)}")
    (count,) = counts
    size = (1.55 * (count + 2) + 0.4, 1.75 * len(gradients) + 0.35)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.add_gridspec(len(gradients), count + 2)
    for row, (name, of_members) in enumerate(gradients.items()):
        axes = [figure.add_subplot(grid[row, column]) for column in range(count + 2)]
        for each in axes:
            each.set(xticks=[], yticks=[])
            each.spines[:].set(visible=True, color="#B0B0B0", linewidth=0.6)
        axes[0].imshow(image, cmap="gray", vmin=0, vmax=1)
        axes[0].set_ylabel(name, fontsize=10.5, fontweight="bold")
        for member, (panel, gradient) in enumerate(zip(axes[1:-1], of_members, strict=True), 1):
            _draw_gradient(panel, np.asarray(gradient, "float64"))
            if row == 0:
                panel.set_title(f"gradient, member {member}")
        _draw_cosines(axes[-1], cosines(of_members))
        if row == 0:
            axes[0].set_title("image")
            axes[-1].set_title("cosines of the pairs")
    return figure


def cosines(gradients: np.ndarray) -> np.ndarray:
    """Equation 6 for each pair of members, [N, ...] -> [N, N]; that with a zero gradient is 0."""
    flat = np.asarray(gradients, "float64").reshape(len(gradients), -1)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    units = np.divide(flat, lengths, out=np.zeros_like(flat), where=lengths > 0)
    return units @ units.T


def _draw_gradient(axes: Axes, gradient: np.ndarray) -> None:
    pixels = gradient.sum(axis=-1) if gradient.ndim == 3 else gradient
    largest = np.abs(pixels).max() or 1.0
    axes.imshow(pixels, cmap="PuOr_r", vmin=-largest, vmax=largest)


def _draw_cosines(axes: Axes, values: np.ndarray) -> None:
    axes.imshow(values, cmap="PuOr_r", vmin=-1, vmax=1)
    for (i, j), value in np.ndenumerate(values):
        tone = "white" if abs(value) > 0.6 else "black"
        axes.text(j, i, f"{round(value, 2) + 0.0:.2f}", ha="center", va="center", color=tone, fontsize=8)
    pairs = list(itertools.combinations(range(len(values)), 2))
    one, other = max(pairs, key=lambda pair: values[pair])
    axes.add_patch(
        Rectangle((other - 0.5, one - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1.4, clip_on=False)
    )
    axes.set_xlabel(f"coherence {values[one, other]:.2f}")
