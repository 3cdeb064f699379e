"""Training batches: what each source does to an image, and which images come when."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from divtf.data.datasets import DatasetSpec, ImageData
from divtf.data.images import LazyImages
from divtf.data.mixture import SOURCES, Draw, Mixture
from divtf.errors import InputError
from divtf.runtime import worker_fit

# Standard deviation of a unit normal cut at 2 sigma: 1 - 2 * 2 phi(2) / (2 Phi(2) - 1).
_PHI = math.exp(-2) / math.sqrt(2 * math.pi)
_INSIDE = math.erf(math.sqrt(2))
TRUNCATED = math.sqrt(1 - 4 * _PHI / _INSIDE)


def image_data(images, labels=None, flips=False):
    """A data set of these uint8 images."""
    labels = np.arange(len(images)) if labels is None else labels
    spec = DatasetSpec(images.shape[1:], 10, (0.1, 0.3), flips)
    return ImageData("made", spec, images, labels.astype("int64"), images, labels.astype("int64"))


def numbered_images(count, shape=(16, 24, 2)):
    """Images in each of which every value is the image's own number + 1, so that it can be known again."""
    numbers = np.arange(1, count + 1, dtype="uint8")
    return np.broadcast_to(numbers[:, None, None, None], (count, *shape)).copy()


def mixture(images, sources, *, flips=False, epsilon=0.2, batch_size=8, seed=0, **others):
    return Mixture(image_data(images, flips=flips), sources, epsilon, batch_size, seed, **others)


def apply(source, images, *, flips=False, epsilon=0.2, seed=0, signs=None, uniform=False):
    """What the source makes of float images [B, H, W, C]."""
    signs = [None] * len(images) if signs is None else signs

    def one(number):
        stream = tf.constant([seed, number], tf.int64)
        return SOURCES[source](
            Draw(tf.constant(images[number], tf.float32), stream, epsilon, flips, signs[number], uniform)
        )

    return np.stack([one(number).numpy() for number in range(len(images))])


def take(batches, count):
    return [(x.numpy(), y.numpy()) for x, y in batches.take(count)]


def test_closed_form_of_the_truncated_deviation():
    assert pytest.approx(0.8796, abs=1e-4) == TRUNCATED


# D_noise.


def test_noise_is_a_normal_cut_at_two_sigma():
    epsilon = 0.2
    images = np.full((40, 16, 16, 1), 0.5)
    noise = apply("noise", images, epsilon=epsilon) - 0.5
    sigma = epsilon / 2
    assert np.abs(noise).max() <= epsilon + 1e-6
    assert np.abs(noise).max() > 0.98 * epsilon
    # 10,240 draws: the deviation is known to about 1 / sqrt(2 * 10240) = 0.7 %, the mean to 1 %.
    assert noise.std() == pytest.approx(TRUNCATED * sigma, rel=0.03)
    assert abs(noise.mean()) < 4 * TRUNCATED * sigma / math.sqrt(noise.size)
    # P(|z| < 1 | |z| < 2) for the normal; a uniform would give 1/2.
    inner = math.erf(math.sqrt(0.5)) / _INSIDE
    assert (np.abs(noise) < sigma).mean() == pytest.approx(inner, abs=0.02)


def test_noise_is_independent_from_pixel_to_pixel_and_image_to_image():
    noise = apply("noise", np.full((40, 16, 16, 1), 0.5)) - 0.5
    flat = noise.reshape(40, -1)
    between = np.corrcoef(flat)[np.triu_indices(40, 1)]
    # 780 correlations of 256 values each: standard deviation 1 / 16.
    assert np.abs(between).max() < 5 / 16
    beside = np.corrcoef(noise[:, :, 1:].ravel(), noise[:, :, :-1].ravel())[0, 1]
    assert abs(beside) < 0.05


def test_noise_is_clipped_to_the_image_range():
    for value in (0.0, 1.0):
        noisy = apply("noise", np.full((10, 8, 8, 1), value))
        assert noisy.min() >= 0 and noisy.max() <= 1
        # One half of the draws lead out of the range.
        assert (noisy == value).mean() == pytest.approx(0.5, abs=0.1)


# D'.


def shifts_of(image, reach_rows, reach_columns):
    """Every shift of an image, with zeros from outside, by slices."""
    height, width, _ = image.shape
    for down in range(-reach_rows, reach_rows + 1):
        for right in range(-reach_columns, reach_columns + 1):
            moved = np.zeros_like(image)
            rows = slice(max(down, 0), height + min(down, 0))
            columns = slice(max(right, 0), width + min(right, 0))
            source_rows = slice(max(-down, 0), height + min(-down, 0))
            source_columns = slice(max(-right, 0), width + min(-right, 0))
            moved[rows, columns] = image[source_rows, source_columns]
            yield (down, right), moved


def found_shifts(flips, count=1500, width=24):
    """For copies of one random image 16 pixels high: the shift of each result, and whether mirrored."""
    image = np.random.default_rng(0).uniform(0.1, 1, (16, width, 2)).astype("float32")
    table = {moved.tobytes(): (shift, False) for shift, moved in shifts_of(image, 2, width // 8)}
    if flips:
        # What is mirrored is the shifted image.
        mirrors = {
            moved[:, ::-1].tobytes(): (shift, True) for shift, moved in shifts_of(image, 2, width // 8)
        }
        table |= mirrors
    results = apply("augmented", np.broadcast_to(image, (count, *image.shape)), flips=flips)
    return [table[result.tobytes()] for result in results]


@pytest.mark.parametrize("flips", [False, True])
def test_augmented_image_is_a_shift_by_up_to_an_eighth_with_zeros_from_outside(flips):
    shifts = [shift for shift, _ in found_shifts(flips)]
    counts = np.array([shifts.count(s) for s in itertools.product(range(-2, 3), range(-3, 4))])
    assert counts.sum() == len(shifts) == 1500
    # 35 equally likely shifts: chi-square with 34 degrees of freedom exceeds 66 once in a thousand.
    expected = len(shifts) / 35
    assert ((counts - expected) ** 2 / expected).sum() < 66


def test_images_are_mirrored_half_the_time_where_flips_are_fair():
    mirrored = np.mean([mirror for _, mirror in found_shifts(True)])
    assert mirrored == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(1500))


def test_images_are_never_mirrored_where_flips_are_not_fair():
    assert not any(mirror for _, mirror in found_shifts(False))


@pytest.mark.parametrize("width", [16, 24])
def test_shift_does_not_depend_on_that_of_the_other_axis_or_the_flip(width):
    found = found_shifts(True, width=width)
    down, right, mirror = np.array([(s[0], s[1], m) for s, m in found], float).T
    for a, b in ((down, right), (down, mirror), (right, mirror)):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / math.sqrt(len(found))


@pytest.mark.parametrize(("size", "reach"), [(28, 3), (32, 4), (7, 0)])
def test_reach_is_an_eighth_of_the_size(size, reach):
    images = np.zeros((300, size, size, 1), "float32")
    images[:, size // 2, size // 2] = 1
    places = np.argwhere(apply("augmented", images))[:, 1:3] - size // 2
    assert places.min() == -reach and places.max() == reach


# D_adv.


def test_adversarial_step_is_one_budget_an_image_along_the_signs():
    rng = np.random.default_rng(1)
    signs = rng.integers(-1, 2, (2000, 4, 4, 1)).astype("float32")
    change = apply("adversarial", np.full(signs.shape, 0.5), epsilon=0.3, signs=signs) - 0.5
    budgets = np.abs(change).max(axis=(1, 2, 3))
    np.testing.assert_allclose(change, budgets[:, None, None, None] * signs, atol=1e-6)
    sigma = 0.15
    assert budgets.max() <= 0.3 + 1e-6 and budgets.max() > 0.95 * 0.3
    # E z^2 of the truncated normal is its variance; the mean of |z| is 2 (phi(0) - phi(2)) / inside.
    mean = 2 * (1 / math.sqrt(2 * math.pi) - _PHI) / _INSIDE
    assert budgets.mean() == pytest.approx(mean * sigma, rel=0.06)
    assert np.sqrt((budgets**2).mean()) == pytest.approx(TRUNCATED * sigma, rel=0.06)


def test_adversarial_image_is_clipped_to_the_image_range():
    ones = np.ones((20, 4, 4, 1), "float32")
    assert (apply("adversarial", ones, signs=ones) == 1).all()
    assert (apply("adversarial", 0 * ones, signs=-ones) == 0).all()


def test_adversarial_images_follow_the_signs_of_their_own_image_through_the_shuffle():
    images = numbered_images(20, (4, 4, 1)) + 100
    signs = np.where(np.arange(20) % 2, 1, -1).astype("int8")[:, None, None, None]
    signs = np.broadcast_to(signs, images.shape)
    batches = mixture(images, ["adversarial"], changes=[127 * signs]).batches()
    for x, y in take(batches, 6):
        change = x - images[y] / np.float32(255)
        assert (np.sign(change) == signs[y]).all()


def test_adversarial_images_are_drawn_anew_each_epoch_by_seed_and_step():
    """Mid-grey images with signs +1, so that an image shows its budget; an epoch is 4 steps of 3 images."""
    images = np.full((12, 4, 4, 1), 128, "uint8")
    signs = np.ones(images.shape, "int8")

    def budgets(first_step=0, seed=0):
        """[epoch, image]: how far D_adv has moved each image in each of 3 epochs."""
        found = np.full((3, 12), np.nan)
        union = mixture(images, ["adversarial"], batch_size=3, seed=seed, changes=[127 * signs])
        batches = union.batches(first_step)
        for step, (x, y) in enumerate(take(batches, 12 - first_step), first_step):
            found[step // 4, y] = x[:, 0, 0, 0] - np.float32(128 / 255)
        return found

    drawn = budgets()
    assert np.isfinite(drawn).all(), "every image once an epoch"
    assert len(np.unique(drawn)) == 36, "another budget for each image in each epoch"
    np.testing.assert_array_equal(budgets(), drawn)
    np.testing.assert_array_equal(budgets(first_step=4)[1:], drawn[1:])
    assert not np.isin(budgets(seed=1), drawn).any()


def test_uniform_budgets_are_uniform():
    signs = np.ones((4000, 2, 2, 1), "float32")
    budgets = apply("adversarial", np.full(signs.shape, 0.5), epsilon=0.4, signs=signs, uniform=True)[
        :, 0, 0, 0
    ]
    budgets = (budgets - 0.5) / 0.4
    assert scipy.stats.kstest(budgets, "uniform").pvalue > 0.01


def test_fgsm_of_one_static_model_gives_the_images_of_version_0_2_0():
    """Values that it gave, of one pixel of each image in two batches: seed, shuffle, budgets and shifts."""
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(6, 4, 4, 1)).astype("uint8")
    signs = rng.integers(-1, 2, size=images.shape).astype("int8")
    union = mixture(images, ALL, batch_size=9, seed=3, changes=[127 * signs])
    labels = [[0, 3, 4, 5, 1, 3, 3, 0, 4], [2, 2, 1, 1, 5, 2, 0, 5, 4]]
    pixels = [
        (
            0.07450980,
            0.80784314,
            0.51672470,
            0.50588238,
            0.67058825,
            0.72216916,
            0.83905196,
            0.06018095,
            0.3051894,
        ),
        (
            0.48235294,
            0.52438360,
            0.74162459,
            0.84774839,
            0.41520729,
            0.54509580,
            0.03488579,
            0.68077570,
            0.3764706,
        ),
    ]
    for (x, y), expected_y, expected in zip(take(union.batches(), 2), labels, pixels, strict=True):
        np.testing.assert_array_equal(y, expected_y)
        np.testing.assert_allclose(x[:, 1, 2, 0], expected, atol=2e-8)


def test_each_image_draws_one_of_the_static_attacks_and_another_each_epoch():
    """Mid-grey images; attack a changes its row a alone, by 127 - image number: who made it shows."""
    count, attacks = 30, 3
    images = np.full((count, 4, 4, 1), 128, "uint8")
    changes = [np.zeros(images.shape, "int8") for _ in range(attacks)]
    for attack, change in enumerate(changes):
        change[:, attack] = (127 - np.arange(count))[:, None, None]
    union = mixture(images, ["adversarial"], batch_size=7, changes=changes)
    drawn = np.full((20, count), -1)
    for step, (x, y) in enumerate(take(union.batches(), 20 * union.steps_per_epoch)):
        moved = (x - np.float32(128 / 255))[:, :, 0, 0]
        attack = moved.argmax(axis=1)
        assert (np.count_nonzero(moved > 1e-6, axis=1) == 1).all()
        drawn[step // union.steps_per_epoch, y] = attack
    # 600 draws of thirds: each is met 200 times give or take 4 deviations of 11.5.
    assert np.abs(np.bincount(drawn.ravel(), minlength=3) - 200).max() < 46
    again = take(union.batches(2 * union.steps_per_epoch), 1)[0]
    np.testing.assert_array_equal(again[0], take(union.batches(), 2 * union.steps_per_epoch + 1)[-1][0])
    assert (drawn[0] != drawn[1]).any()


def test_a_change_is_in_127ths_of_the_budget():
    images = np.full((8, 4, 4, 1), 128, "uint8")
    halves = np.zeros(images.shape, "int8")
    halves[:, 0], halves[:, 1] = 127, -64
    (x, _), *_ = take(mixture(images, ["adversarial"], changes=[halves]).batches(), 1)
    moved = x - np.float32(128 / 255)
    np.testing.assert_allclose(moved[:, 1], -64 / 127 * moved[:, 0], atol=1e-6)
    assert (moved[:, 2:] == 0).all() and (moved[:, 0] > 0).all()


# Images of no class.


@pytest.mark.parametrize(("height", "width"), [(28, 28), (8, 12), (5, 7), (4, 4)])
def test_outside_image_has_its_quarters_in_another_order(height, width):
    image = np.arange(height * width, dtype="float32").reshape(height, width, 1)
    rows = np.array_split(np.arange(height), [-(-height * quarter // 4) for quarter in (1, 2, 3)])
    columns = np.array_split(np.arange(width), [-(-width * quarter // 4) for quarter in (1, 2, 3)])
    every = {
        image[np.concatenate(down)][:, np.concatenate(right)].tobytes(): (up, across)
        for up, down in enumerate(itertools.permutations(rows))
        for across, right in enumerate(itertools.permutations(columns))
    }
    drawn = [every[made.tobytes()] for made in apply("outside", np.repeat(image[None], 200, axis=0))]
    # All 24 orders of each axis come, and not the same one along both.
    assert {up for up, _ in drawn} == {across for _, across in drawn} == set(range(24))
    assert len(set(drawn)) > 100


def test_outside_images_weigh_nothing_in_the_cross_entropy(monkeypatch):
    monkeypatch.setitem(SOURCES, "augmented", lambda draw: draw.image)
    monkeypatch.setitem(SOURCES, "outside", lambda draw: draw.image + 0.5)
    union = mixture(numbered_images(11, (4, 4, 1)), ("augmented", "outside"), batch_size=4)
    weights = []
    for x, y, weight in union.batches().take(6):
        moved = x[:, 0, 0, 0] - (tf.cast(y, tf.float32) + 1) / 255
        np.testing.assert_allclose(weight["cross_entropy"], 1 - 2 * moved, atol=1e-6)
        weights.append(weight["cross_entropy"])
    assert np.sum(np.concatenate(weights)) == 11
    # One of two workers has the first half of each batch, weights too.
    cut = union.batches(cut=lambda plan: worker_fit.shares(plan, 0, 1, 2))
    for whole, part in zip(weights, cut, strict=False):
        np.testing.assert_array_equal(whole[: len(whole) // 2], part[2]["cross_entropy"])


# The union.


ALL = ("augmented", "noise", "adversarial")


def all_sources(count=11, batch_size=4, seed=0):
    images = np.random.default_rng(2).integers(0, 256, (count, 8, 8, 1)).astype("uint8")
    signs = np.random.default_rng(3).integers(-1, 2, images.shape).astype("int8")
    return mixture(images, ALL, batch_size=batch_size, seed=seed, changes=[127 * signs])


def marking_sources(monkeypatch):
    """Sources that leave the image as it is and add 0.25 x their number, to see who made it."""
    for number, name in enumerate(ALL):
        monkeypatch.setitem(SOURCES, name, lambda draw, n=number: draw.image + 0.25 * n)


def test_each_epoch_passes_exactly_once_over_every_image_of_every_source(monkeypatch):
    marking_sources(monkeypatch)
    images = numbered_images(11, (2, 2, 1))
    signs = np.zeros(images.shape, "int8")
    union = mixture(images, ALL, batch_size=4, changes=[signs])
    assert union.examples_per_epoch == 33 and union.steps_per_epoch == 9
    orders = []
    for epoch in range(3):
        batches = take(union.batches(9 * epoch), 9)
        assert [len(y) for _, y in batches] == [4] * 8 + [1]
        x = np.concatenate([x for x, _ in batches])[:, 0, 0, 0]
        y = np.concatenate([y for _, y in batches])
        source = np.floor(x / 0.25).astype(int)
        np.testing.assert_allclose(x - 0.25 * source, (y + 1) / 255, atol=1e-6)
        pairs = list(zip(source.tolist(), y.tolist(), strict=True))
        assert sorted(pairs) == list(itertools.product(range(3), range(11)))
        orders.append(pairs)
    assert orders[0] != orders[1] != orders[2] != orders[0]
    # A shuffle, not a pass over one source after the other.
    assert len({source for source, _ in orders[0][:11]}) == 3


def test_mixture_of_all_sources_is_the_sources_own_work():
    """Without the marks: images of the union are the noisy, shifted or adversarial versions of their own."""
    union = all_sources()
    for x, y in take(union.batches(), 9):
        assert x.dtype == np.float32 and y.dtype == np.int64
        assert x.min() >= 0 and x.max() <= 1
        clean = union.data.x_train[y] / np.float32(255)
        near = np.abs(x - clean).max(axis=(1, 2, 3)) <= 0.2 + 1e-6
        for image, original, close in zip(x, clean, near, strict=True):
            shifted = {moved.tobytes() for _, moved in shifts_of(original, 1, 1)}
            assert close or image.tobytes() in shifted


def equal(some, others):
    return len(some) == len(others) and all(
        np.array_equal(a, b)
        for one, other in zip(some, others, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def test_two_runs_with_a_seed_are_identical_to_the_bit():
    tf.random.set_seed(1)
    first = take(all_sources(seed=5).batches(), 20)
    tf.random.set_seed(2)
    np.random.seed(3)
    assert equal(first, take(all_sources(seed=5).batches(), 20))


def test_another_seed_gives_other_order_and_other_noise():
    first, other = take(all_sources(seed=5).batches(), 9), take(all_sources(seed=6).batches(), 9)
    assert [y.tolist() for _, y in first] != [y.tolist() for _, y in other]
    assert not any(np.array_equal(a[0], b[0]) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("skipped", [1, 4, 8, 9, 10, 18, 23])
def test_batches_from_a_step_on_equal_the_batches_after_it(skipped):
    union = all_sources()
    whole = take(union.batches(), skipped + 12)
    assert equal(take(union.batches(first_step=skipped), 12), whole[skipped:])


def test_no_two_batches_share_their_noise():
    """Mid-grey images everywhere, so that equal draws would give equal batches."""
    grey = np.full((8, 6, 6, 1), 128, "uint8")
    batches = take(mixture(grey, ["noise"], batch_size=8).batches(), 40)
    noise = np.concatenate([x for x, _ in batches]).reshape(320, -1)
    assert len(np.unique(noise, axis=0)) == 320
    correlations = np.corrcoef(noise)[np.triu_indices(320, 1)]
    # 51,040 pairs of 36 values: standard deviation 1/6; equal noise would give 1.
    assert correlations.max() < 0.85


def test_each_image_of_each_step_draws_from_a_stream_of_its_own(monkeypatch):
    def first_draw(draw):
        return tf.zeros_like(draw.image) + tf.random.stateless_uniform([], draw.seed)

    for name in ALL:
        monkeypatch.setitem(SOURCES, name, first_draw)
    # A batch holds the whole epoch, and so all three sources.
    draws = [np.unique(x) for x, _ in take(all_sources(batch_size=33).batches(), 5)]
    assert [len(values) for values in draws] == [33] * 5
    assert len(np.unique(draws)) == 165


@pytest.mark.parametrize("replicas", [1, 2, 3, 5])
def test_shares_of_workers_make_up_the_batch_and_each_reads_its_own_only(replicas):
    """Batches of 4, the last of an epoch of 1 image, of which some workers have none."""
    whole = take(all_sources().batches(5), 10)
    shares = []
    for worker in range(replicas):
        union, read = all_sources(), []
        images = union.data.x_train

        def reading(numbers, images=images, read=read):
            read.append(len(numbers))
            return images[numbers]

        lazy = LazyImages(reading, len(images), images.shape[1:])
        union = dataclasses.replace(union, data=dataclasses.replace(union.data, x_train=lazy))
        batches = union.batches(5, lambda plan, worker=worker: worker_fit.shares(plan, worker, 1, replicas))
        own = take(batches, 10)
        # In any order, and batches that come later too: but never more than its share of one.
        assert max(read) <= -(-4 // replicas) and len(read) >= 10
        shares.append(own)
    for step, (x, y) in enumerate(whole):
        parts = [own[step] for own in shares]
        np.testing.assert_array_equal(np.concatenate([part for part, _ in parts]), x)
        np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), y)
        assert max(len(part) for part, _ in parts) == -(-len(y) // replicas)


def test_batch_larger_than_the_epoch_holds_the_epoch():
    union = all_sources(batch_size=100)
    assert union.steps_per_epoch == 1
    for _, y in take(union.batches(), 3):
        np.testing.assert_array_equal(np.sort(y), np.repeat(np.arange(11), 3))


def test_labels_stay_with_their_images():
    images, labels = numbered_images(12, (2, 2, 1)), np.arange(12) % 5
    batches = Mixture(image_data(images, labels), ["augmented"], 0.2, 5, 0).batches()
    for x, y in take(batches, 6):
        # An image of 2 x 2 pixels is not shifted, so its value tells its number.
        numbers = np.rint(x[:, 0, 0, 0] * 255).astype(int) - 1
        np.testing.assert_array_equal(numbers % 5, y)


# What is refused.


@pytest.mark.parametrize(
    ("sources", "others", "expected"),
    [
        (
            ["augmented", "snow"],
            {},
            "sources among ['adversarial', 'augmented', 'noise', 'outside']. Received: 'snow'",
        ),
        (["adversarial"], {}, "changes by static attacks if, and only if, adversarial images are a source"),
        (
            ["noise"],
            {"changes": [np.zeros((4, 16, 24, 2), "int8")]},
            "changes by static attacks if, and only if",
        ),
        (["noise"], {"batch_size": 0}, "batch_size >= 1. Received: batch_size=0"),
    ],
)
def test_mixture_that_cannot_be_is_refused(sources, others, expected):
    with pytest.raises(InputError) as caught:
        mixture(numbered_images(4), sources, **others)
    assert expected in str(caught.value)
