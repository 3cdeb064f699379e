"""Pieces and losses alone: transforms against TensorFlow's and SciPy's, gradients against differences."""

import math

import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
import tensorflow as tf
from attacked import CLASSES, SEED, Draws, images_and_labels, plain_losses

from divtf.attacks.context import Context, streams
from divtf.attacks.losses import LOSSES
from divtf.attacks.pieces import (
    DiverseInputs,
    MixedImages,
    Neighbourhood,
    ScaledCopies,
    SpectralCopies,
    TranslationKernel,
)
from divtf.attacks.threat import ThreatModel

EPSILON, STEP_SIZE = 0.1, 0.02
SIDES = (9, 7, 2)


def pictures(count=5, shape=SIDES):
    return np.random.default_rng(3).random((count, *shape), "float32")


def context_of(x, labels=None, pool=None, pool_labels=None):
    count = len(x)
    labels = np.zeros(count, int) if labels is None else labels
    pool, pool_labels = (x, labels) if pool is None else (pool, pool_labels)
    threat, numbers = ThreatModel(EPSILON), streams(tf.constant(SEED), tf.range(count))
    return Context(
        threat, tf.constant(labels), numbers, STEP_SIZE, tf.constant(pool), tf.constant(pool_labels)
    )


def looked_at(piece, x, back=None, **pool):
    """The images at which a piece asks for gradients, and what it gives if they are `back` [B, ...]."""
    asked = []

    def gradient(images, context):
        tf.numpy_function(lambda at: asked.append(at.copy()), [images], [])
        return tf.ones_like(images) if back is None else tf.constant(back)

    given = piece(gradient, tf.constant(x), context_of(x, **pool))
    return asked, given.numpy()


# Shrinking.


def test_shrunk_images_are_tensorflow_s_with_a_border_of_zeros():
    x = pictures(40)
    (shrunk,), _ = looked_at(DiverseInputs(smallest=0.4, probability=0.6), x)
    numbers = Draws.of(range(40)).fold(0).uniform([4])
    sizes = set()
    for image, found, (chance, size, top, left) in zip(x, shrunk, numbers, strict=True):
        share = 0.4 + 0.6 * size if chance < 0.6 else 1.0
        height, width = (int(np.rint(share * side)) for side in SIDES[:2])
        small = tf.image.resize(image, [height, width], method="bilinear", antialias=False)
        above, before = int(top * (9 - height + 1)), int(left * (7 - width + 1))
        padded = tf.image.pad_to_bounding_box(small, above, before, 9, 7)
        np.testing.assert_allclose(found, padded, atol=1e-6)
        sizes.add((height, width))
    assert len(sizes) > 4 and (9, 7) in sizes


def test_share_of_shrunk_images_is_the_probability():
    x = pictures(400, (8, 8, 1))
    (shrunk,), _ = looked_at(DiverseInputs(smallest=0.4, probability=0.3), x)
    changed = (np.abs(shrunk - x).max(axis=(1, 2, 3)) > 0).mean()
    # Of those that are, one in ten is shrunk by less than half a pixel.
    assert changed == pytest.approx(0.3 * (1 - 0.5 / (8 * 0.6)), abs=4 * math.sqrt(0.3 * 0.7 / 400))


@pytest.mark.parametrize("smallest", [0.001, 1.0])
def test_least_and_greatest_sides_are_one_pixel_and_all(smallest):
    x = pictures(30)
    (shrunk,), _ = looked_at(DiverseInputs(smallest=smallest, probability=1.0), x)
    lit = (shrunk > 0).sum(axis=(1, 2, 3))
    if smallest == 1:
        np.testing.assert_array_equal(shrunk, x)
    else:
        assert lit.min() == SIDES[2], "a pixel of each channel"


# The gradient that a piece gives back, against differences of the loss through its transform.


def bowl(images):
    """A smooth loss [B] of images, in float64, and its gradient."""
    weights = np.random.default_rng(9).normal(size=images.shape[1:])
    return np.sin(weights * images * 2).sum(axis=(1, 2, 3)), 2 * weights * np.cos(weights * images * 2)


def spectral(x, spread, noise):
    """Copy 0 of `SpectralCopies`, by SciPy."""
    drawn, over = Draws.of(range(len(x))).fold(0), {"axes": (1, 2), "norm": "ortho"}
    mask = drawn.fold(1).uniform(x.shape[1:], 1 - spread, 1 + spread)
    noisy = x + drawn.fold(0).normal(x.shape[1:], noise * EPSILON)
    return scipy.fft.idctn(mask * scipy.fft.dctn(noisy, **over), **over)


def shrunk(x):
    """By TensorFlow in float64, which resizes in float32: a matrix, found from unit images."""
    rows, numbers = [], Draws.of(range(len(x))).fold(0).uniform([4])
    for image, (chance, size, top, left) in zip(x, numbers, strict=True):
        share = 0.4 + 0.6 * size if chance < 0.9 else 1.0
        maps = []
        for side, place in zip(SIDES[:2], (top, left), strict=True):
            new = int(np.rint(share * side))
            units = np.eye(side, dtype="float32")[:, :, None, None]
            small = tf.image.resize(units, [new, 1], method="bilinear", antialias=False)[:, :, 0, 0]
            begin = int(place * (side - new + 1))
            maps.append(np.pad(small, ((0, 0), (begin, side - new - begin))).T.astype("float64"))
        rows.append(np.einsum("ij,jlc,kl->ikc", maps[0], image, maps[1]))
    return np.stack(rows)


TRANSFORMS = {
    "shrinking": (DiverseInputs(smallest=0.4, probability=0.9), shrunk),
    "spectrum": (SpectralCopies(copies=1), lambda x: spectral(x, 0.5, 1.0)),
    "wide spectrum": (SpectralCopies(copies=1, spread=1.0, noise=0.0), lambda x: spectral(x, 1.0, 0.0)),
    "mixture": (MixedImages(others=1, strength=0.3), lambda x: x + 0.3 * pictures()[[1, 0, 0, 1, 1]]),
    "scales": (ScaledCopies(scales=3), None),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_gradient_is_that_of_the_loss_of_the_transformed_image(name):
    piece, transform = TRANSFORMS[name]
    x = pictures().astype("float64")
    labels = np.array([0, 1, 1, 0, 0])

    def loss(at):
        if transform is None:
            return np.mean([bowl(at / 2**i)[0] for i in range(3)], axis=0)
        return bowl(transform(at))[0]

    def gradient(images, context):
        return tf.numpy_function(
            lambda at: bowl(at.astype("float64"))[1].astype("float32"), [images], tf.float32
        )

    def shaped(images, context):
        return tf.ensure_shape(gradient(images, context), images.shape)

    # One image of each class: which one is mixed in is known.
    pool = {"pool": pictures()[:2], "pool_labels": np.array([0, 1])}
    found = piece(shaped, tf.constant(x, tf.float32), context_of(x.astype("float32"), labels, **pool)).numpy()
    rng, step = np.random.default_rng(2), 1e-5
    for _ in range(4):
        direction = rng.normal(size=x.shape)
        differences = (loss(x + step * direction) - loss(x - step * direction)) / (2 * step)
        along = (found * direction).sum(axis=(1, 2, 3))
        np.testing.assert_allclose(along, differences, rtol=1e-4, atol=1e-4 * np.abs(differences).max())


# Smoothing.


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_smoothing_is_scipy_s_correlation_with_a_kernel_that_sums_to_one(kernel):
    x, raw = pictures(), np.random.default_rng(1).normal(size=(5, *SIDES)).astype("float32")
    (at,), found = looked_at(TranslationKernel(kernel), x, raw)
    np.testing.assert_array_equal(at, x)
    offsets = np.linspace(-3, 3, kernel) if kernel > 1 else np.zeros(1)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets**2) / 2)
    weights /= weights.sum()
    for image, smooth in zip(raw, found, strict=True):
        for channel in range(2):
            expected = scipy.ndimage.correlate(image[..., channel], weights, mode="constant")
            np.testing.assert_allclose(smooth[..., channel], expected, atol=1e-6)
    flat = looked_at(TranslationKernel(kernel), x, np.ones_like(raw))[1]
    np.testing.assert_allclose(flat[:, 3:6, 3:4], 1, atol=1e-6)


# Copies.


def test_spectrum_s_copies_are_scipy_s():
    x = pictures()
    asked, given = looked_at(SpectralCopies(copies=3, spread=0.5, noise=1.0), x)
    np.testing.assert_allclose(asked[0], spectral(x.astype("float64"), 0.5, 1.0), atol=1e-5)
    assert len(asked) == 3 and np.abs(asked[0] - asked[1]).mean() > 0.05
    assert given.shape == x.shape
    (same,), _ = looked_at(SpectralCopies(copies=1, spread=0.0, noise=0.0), x)
    np.testing.assert_allclose(same, x, atol=1e-5)


def test_images_of_every_other_class_are_mixed_in_alike_and_none_of_one_s_own():
    """A pool of grey values tells which image was taken."""
    x, labels = np.zeros((300, 2, 2, 1), "float32"), np.arange(300) % 3
    pool = np.arange(6, dtype="float32")[:, None, None, None] * np.ones((1, 2, 2, 1), "float32")
    asked, _ = looked_at(
        MixedImages(others=2, strength=0.5),
        x,
        labels=labels,
        pool=pool,
        pool_labels=np.array([0, 1, 2, 2, 1, 0]),
    )
    for taken in asked:
        chosen = np.rint(taken[:, 0, 0, 0] / 0.5).astype(int)
        for label, foreign in enumerate(([1, 2, 3, 4], [0, 2, 3, 5], [0, 1, 4, 5])):
            counts = np.bincount(chosen[labels == label], minlength=6)
            assert set(np.flatnonzero(counts)) == set(foreign)
            assert np.abs(counts[foreign] - 25).max() < 5 * math.sqrt(25 * 0.75)
    assert (asked[0] != asked[1]).mean() > 0.5, "drawn anew"


def test_where_there_is_no_other_class_an_image_of_the_same_is_mixed_in():
    x = pictures()
    (at,), _ = looked_at(MixedImages(others=1, strength=0.5), x)
    np.testing.assert_allclose(at, x + 0.5 * x[:1], atol=1e-6)


def test_neighbours_fill_their_box_and_half_of_them_lie_a_step_below():
    x = np.full((40, *SIDES), 0.5, "float32")
    back = np.random.default_rng(1).normal(size=x.shape).astype("float32")
    asked, given = looked_at(Neighbourhood(samples=2, reach=3.0), x, back)
    assert len(asked) == 4
    for near, below in zip(asked[::2], asked[1::2], strict=True):
        assert np.abs(near - x).max() == pytest.approx(0.3, abs=1e-3)
        assert (near - x).std() == pytest.approx(0.3 / math.sqrt(3), rel=0.03)
        step = STEP_SIZE * back / np.abs(back).mean(axis=(1, 2, 3), keepdims=True)
        np.testing.assert_allclose(below, near - step, atol=1e-6)
    np.testing.assert_allclose(given, back, atol=1e-6)


# Losses.


@pytest.mark.parametrize("scale", [0.3, 3.0])
@pytest.mark.parametrize("name", LOSSES)
def test_gradient_of_a_loss_is_that_of_the_plain_one_in_float64(name, scale):
    """Its size too: copies of an image are weighed by it."""
    rng = np.random.default_rng(0)
    logits, y = scale * rng.normal(size=(3, 20, CLASSES)), images_and_labels(20)[1]
    wide, narrow = tf.constant(logits), tf.constant(logits, tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([wide, narrow])
        plain, own = plain_losses(wide, y, name), LOSSES[name](narrow, tf.constant(y))
    assert own.shape == [20]
    expected, found = tape.gradient(plain, wide), tape.gradient(own, narrow)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("lead", [30.0, 200.0, 1e4])
@pytest.mark.parametrize("name", LOSSES)
def test_direction_of_a_loss_is_kept_where_members_are_sure(name, lead):
    """All but a share exp(-lead) of the probability is at class 0: the gradient is along class 1."""
    logits = np.zeros((2, 1, CLASSES), "float32")
    logits[:, :, 0], logits[:, :, 1] = lead, 10.0
    narrow = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(narrow)
        own = LOSSES[name](narrow, tf.constant([0]))
    gradient = tape.gradient(own, narrow).numpy()
    direction = gradient / np.abs(gradient).max()
    np.testing.assert_allclose(direction[..., :2], np.tile([-1.0, 1.0], (2, 1, 1)), atol=2e-4)
    assert np.abs(direction[..., 2:]).max() < 1e-4
