"""The picture of the method: its numbers are the cosines of the vectors that it draws."""

import itertools

import numpy as np
import pytest
from scipy.spatial.distance import cosine

from divtf.reporting.figures.method import cosines, method_figure

RNG = np.random.default_rng(3)
IMAGE = RNG.random((5, 4, 1))
GRADIENTS = {"T_Base": RNG.normal(size=(3, 5, 4, 1)) + 0.5, "GAL": RNG.normal(size=(3, 5, 4, 1))}


def rows(figure):
    """The panels, five a row."""
    return [figure.axes[:5], figure.axes[5:]]


def test_cosines_written_are_those_of_the_vectors_and_the_largest_pair_is_framed():
    for axes, gradients in zip(rows(method_figure(IMAGE, GRADIENTS)), GRADIENTS.values(), strict=True):
        expected = np.array([[1 - cosine(a.ravel(), b.ravel()) for b in gradients] for a in gradients])
        written = np.array([float(text.get_text()) for text in axes[-1].texts]).reshape(3, 3)
        np.testing.assert_allclose(written, expected, atol=0.0051)
        np.testing.assert_allclose(axes[-1].images[0].get_array(), expected, atol=1e-12)
        pairs = {pair: expected[pair] for pair in itertools.combinations(range(3), 2)}
        largest = max(pairs, key=pairs.get)
        (frame,) = axes[-1].patches
        assert (frame.get_y() + 0.5, frame.get_x() + 0.5) == largest
        assert axes[-1].get_xlabel() == f"coherence {pairs[largest]:.2f}"


def test_panels_hold_the_image_and_each_members_gradient():
    figure = method_figure(IMAGE, GRADIENTS)
    for axes, (name, gradients) in zip(rows(figure), GRADIENTS.items(), strict=True):
        assert axes[0].get_ylabel() == name
        np.testing.assert_array_equal(axes[0].images[0].get_array(), IMAGE[..., 0])
        for panel, gradient in zip(axes[1:-1], gradients, strict=True):
            (drawn,) = panel.images
            np.testing.assert_array_equal(drawn.get_array(), gradient[..., 0])
            assert drawn.get_clim() == (-np.abs(gradient).max(), np.abs(gradient).max()), "0 is white"
    titles = [axes.get_title() for axes in figure.axes[:5]]
    assert titles == ["image", *(f"gradient, member {n}" for n in (1, 2, 3)), "cosines of the pairs"]


def test_channels_are_drawn_as_their_sum():
    colours = RNG.normal(size=(2, 5, 4, 3))
    figure = method_figure(RNG.random((5, 4, 3)), {"GAL": colours})
    np.testing.assert_allclose(figure.axes[1].images[0].get_array(), colours[0].sum(axis=-1))


def test_a_zero_gradient_has_a_cosine_of_zero():
    gradients = np.array([[0.0, 0.0], [3.0, 4.0], [4.0, -3.0]])
    np.testing.assert_allclose(cosines(gradients), [[0, 0, 0], [0, 1, 0], [0, 0, 1]], atol=1e-15)


@pytest.mark.parametrize("shapes", [[], [1], [2, 3]])
def test_unlike_numbers_of_members_are_refused(shapes):
    with pytest.raises(ValueError, match="the same 2 or more members"):
        method_figure(IMAGE, {str(count): np.ones((count, 5, 4)) for count in shapes})
