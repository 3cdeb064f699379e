"""Attacks in NumPy and float64, from their papers' equations and a gradient to climb.

Nothing here comes from divtf or from the library behind it. A gradient is a function from images
[B, H, W, C] to the gradient of each image's loss, in their shape. Random numbers are given: `draws` has
`fold(number)` for a step, a copy or one of several draws, `uniform(shape, low, high)` and
`normal(shape, deviation)`, each for every image.
"""

import numpy as np
import scipy.fft
import scipy.ndimage


class Climb:
    """The images of an attack under way, and where their signs can be trusted.

    `sure` is False at pixels whose direction at some step was so small, beside the image's largest, that
    float32 may see it with the other sign. What is exactly zero is so in float32 as well.
    """

    def __init__(self, x, epsilon, low=0.0, high=1.0, resolution=1e-4):
        self.origin = self.images = np.asarray(x, np.float64)
        self.epsilon, self.low, self.high, self.resolution = epsilon, low, high, resolution
        self.sure = np.ones(self.images.shape, bool)

    def move(self, change):
        """Add the change, then go back into the ball and the image range."""
        moved = np.maximum(self.images + change, self.origin - self.epsilon)
        moved = np.minimum(moved, self.origin + self.epsilon)
        self.images = np.minimum(np.maximum(moved, self.low), self.high)

    def sign(self, direction):
        """The direction's sign, and a note where it is not sure."""
        scale = np.abs(direction).max(axis=(1, 2, 3), keepdims=True)
        self.sure &= (np.abs(direction) > self.resolution * scale) | (direction == 0)
        return np.sign(direction)

    def step(self, size, direction):
        """Equation 4: `size` along the sign of the direction."""
        self.move(size * self.sign(direction))


def fgsm(gradient, climb, start=None):
    """Equation 2."""
    climb.step(climb.epsilon, gradient(climb.images))
    return climb


def rfgsm(gradient, climb, start):
    """A step from U(-epsilon, epsilon), then Equation 2, and back into the ball."""
    climb.move(start)
    return fgsm(gradient, climb)


def ifgsm(gradient, climb, start=None, steps=10):
    """Equations 3 and 4."""
    for _ in range(steps):
        climb.step(climb.epsilon / steps, gradient(climb.images))
    return climb


def mifgsm(gradient, climb, start=None, steps=10, decay=1.0):
    """Equation 5."""
    velocity = np.zeros(climb.images.shape)
    for _ in range(steps):
        raw = gradient(climb.images)
        velocity = decay * velocity + raw / np.abs(raw).sum(axis=(1, 2, 3), keepdims=True)
        climb.step(climb.epsilon / steps, velocity)
    return climb


def pgd_cw(gradient, climb, start, steps=30, step=0.1):
    """Iterated sign steps from a random start; the gradient is the hinge's."""
    climb.move(start)
    for _ in range(steps):
        climb.step(step * climb.epsilon, gradient(climb.images))
    return climb


def pgd(gradient, climb, start, steps=40, step=0.25):
    """Madry et al. (2018), of the members' mean loss; steps shrink along half a cosine."""
    climb.move(start)
    for t in range(steps):
        climb.step(step * climb.epsilon * (1 + np.cos(np.pi * t / steps)) / 2, gradient(climb.images))
    return climb


ATTACKS = {"fgsm": fgsm, "rfgsm": rfgsm, "ifgsm": ifgsm, "mifgsm": mifgsm, "pgd_cw": pgd_cw, "pgd": pgd}


# What others' gradients are: each is a function of a gradient of (images, draws), and gives one.


def diverse(gradient, smallest=0.875, probability=0.5):
    """DI, Xie et al. (2019): the gradient of J(T(x)), T shrinks at random and pads with zeros."""

    def at(x, draws):
        numbers = draws.fold(0).uniform([4])
        maps = [shrinking(x.shape[1:3], *each, smallest, probability) for each in numbers]
        shrunk = np.stack([along(image, *pair) for image, pair in zip(x, maps, strict=True)])
        found = gradient(shrunk, draws.fold(1))
        return np.stack([along(image, *(m.T for m in pair)) for image, pair in zip(found, maps, strict=True)])

    return at


def along(image, rows, columns):
    """An image [H, W, C] with a matrix along its rows, and one along its columns."""
    return np.stack([rows @ channel @ columns.T for channel in np.moveaxis(image, -1, 0)], axis=-1)


def shrinking(sides, chance, size, top, left, smallest, probability):
    """Matrices along rows and columns: bilinear at the centres of pixels, then a border of zeros."""
    maps = []
    for side, place in zip(sides, (top, left), strict=True):
        new = int(np.rint((smallest + (1 - smallest) * size) * side)) if chance < probability else side
        first = int(place * (side - new + 1))
        centres = (np.arange(new) + 0.5) * side / new - 0.5
        padded = np.zeros((side, side))
        for j, unit in enumerate(np.eye(side)):
            padded[first : first + new, j] = np.interp(centres, np.arange(side), unit)
        maps.append(padded)
    return maps


def smoothed(gradient, kernel=5):
    """TI, Dong et al. (2019): the gradient convolved with a normal kernel that sums to 1."""
    distance = np.linspace(-3, 3, kernel)
    weights = np.exp(-(distance[:, None] ** 2 + distance**2) / 2)

    def at(x, draws):
        return scipy.ndimage.correlate(
            gradient(x, draws), (weights / weights.sum())[None, :, :, None], mode="constant"
        )

    return at


def scaled(gradient, scales=3):
    """SI, Lin et al. (2020): the gradient of the mean of J(x / 2^i)."""

    def at(x, draws):
        return sum(gradient(x / 2**i, draws.fold(i)) / 2**i for i in range(scales)) / scales

    return at


def mixed(gradient, labels, pool, pool_labels, others=3, strength=0.2):
    """Admix, Wang et al. (2021): the mean over images x' of other classes of the gradient at x + .2 x'."""
    foreign = [np.flatnonzero(pool_labels != label) for label in labels]

    def at(x, draws):
        total = 0
        for i in range(others):
            shares = draws.fold(i).uniform([])
            chosen = [few[int(share * len(few))] for few, share in zip(foreign, shares, strict=True)]
            total = total + gradient(x + strength * pool[chosen], draws.fold(i))
        return total / others

    return at


def flat_around(gradient, epsilon, alpha, samples=20, reach=3.0, balance=0.5):
    """PGN, Ge et al. (2023), algorithm 1: g' at neighbours x', and g* at x' - alpha g' / |g'|."""

    def at(x, draws):
        total = 0
        for i in range(samples):
            drawn = draws.fold(i)
            near = x + drawn.uniform(x.shape[1:], -reach * epsilon, reach * epsilon)
            first = gradient(near, drawn.fold(0))
            ahead = near - alpha * first / np.abs(first).mean(axis=(1, 2, 3), keepdims=True)
            total = total + (1 - balance) * first + balance * gradient(ahead, drawn.fold(1))
        return total / samples

    return at


def spectral(gradient, epsilon, copies=20, spread=0.5, noise=1.0):
    """SSA, Long et al. (2022): the gradient of the mean of J(IDCT(mask * DCT(x + noise)))."""
    over = {"axes": (1, 2), "norm": "ortho"}

    def at(x, draws):
        total = 0
        for i in range(copies):
            drawn = draws.fold(i)
            noisy = x + drawn.fold(0).normal(x.shape[1:], noise * epsilon)
            mask = drawn.fold(1).uniform(x.shape[1:], 1 - spread, 1 + spread)
            copy = scipy.fft.idctn(mask * scipy.fft.dctn(noisy, **over), **over)
            found = gradient(copy, drawn.fold(2))
            # The transform's transpose is its inverse.
            total = total + scipy.fft.idctn(mask * scipy.fft.dctn(found, **over), **over)
        return total / copies

    return at


# How others climb, given a gradient of (images, draws).


def sign_steps(gradient, climb, draws, steps, alpha, shrink=False):
    """Equation 4; with `shrink` steps go along half a cosine from alpha to nothing, as of learning rates."""
    for t in range(steps):
        size = alpha * np.cos(np.pi * t / (2 * steps)) ** 2 if shrink else alpha
        climb.step(size, gradient(climb.images, draws.fold(t)))
    return climb


def momentum(gradient, climb, draws, steps, alpha, decay=1.0, nesterov=False):
    """MI; with `nesterov` NI, Lin et al. (2020): the gradient at x + alpha mu g. Norms are means."""
    velocity = np.zeros(climb.images.shape)
    for t in range(steps):
        at = climb.images + alpha * decay * velocity if nesterov else climb.images
        velocity = decay * velocity + of_mean_one(gradient(at, draws.fold(t)))
        climb.step(alpha, velocity)
    return climb


def of_mean_one(gradient):
    """Over the mean of each image's absolute entries."""
    return gradient / np.abs(gradient).mean(axis=(1, 2, 3), keepdims=True)


def variance_tuned(gradient, climb, draws, steps, alpha, neighbours=20, reach=1.5, decay=1.0):
    """VMI, Wang & He (2021), algorithm 1."""
    velocity = variance = np.zeros(climb.images.shape)
    radius = reach * climb.epsilon
    for t in range(steps):
        x, drawn = climb.images, draws.fold(t)
        here = gradient(x, drawn.fold(0))
        velocity = decay * velocity + of_mean_one(here + variance)
        around = 0
        for i in range(1, neighbours + 1):
            one = drawn.fold(i)
            around = around + gradient(x + one.uniform(x.shape[1:], -radius, radius), one.fold(0))
        variance = around / neighbours - here
        climb.step(alpha, velocity)
    return climb


def member_by_member(gradient, each, climb, draws, steps, alpha, inner, reverse=0.0, decay=1.0):
    """MI-CWA, Chen et al. (2024), algorithm 1; without the reverse step MI-CSE.

    The length of a member's step is sqrt(D) times `inner` epsilon, D being an image's number of values.
    """
    x = climb.images
    length = inner * climb.epsilon * np.sqrt(x[0].size)
    of_members, of_steps = np.zeros(x.shape), np.zeros(x.shape)

    def kept(images):
        ball = np.clip(images, climb.origin - climb.epsilon, climb.origin + climb.epsilon)
        return np.clip(ball, climb.low, climb.high)

    for t in range(steps):
        x, drawn = climb.images, draws.fold(t)
        at = x
        if reverse:
            at = kept(x - reverse * climb.epsilon * climb.sign(gradient(x, drawn.fold(0))))
        for i, one in enumerate(each, 1):
            found = one(at, drawn.fold(i))
            norm = np.sqrt(np.square(found).sum(axis=(1, 2, 3), keepdims=True))
            of_members = decay * of_members + found / norm
            at = kept(at + length * of_members)
        of_steps = decay * of_steps + of_mean_one(at - x)
        climb.step(alpha, of_steps)
    return climb


def best_of_starts(climbs, values):
    """Of several climbs of the same images, each image of the one whose value [B] is greatest."""
    best = np.argmax(values, axis=0)
    chosen = np.arange(len(best))
    climbs[0].images = np.stack([climb.images for climb in climbs])[best, chosen]
    climbs[0].sure = np.stack([climb.sure for climb in climbs])[best, chosen]
    return climbs[0]


class LinearMembers:
    """Closed forms of members with logits z = x W_n + b_n; W [N, D, C], b [N, C]."""

    def __init__(self, weights, biases):
        self.weights, self.biases = np.asarray(weights, np.float64), np.asarray(biases, np.float64)

    def logits(self, x):
        """[N, B, C]."""
        flat = np.reshape(x, (len(x), -1)).astype(np.float64)
        return np.stack([flat @ w + b for w, b in zip(self.weights, self.biases, strict=True)])

    def cross_entropies(self, x, y):
        """[N, B]: the logarithm of 1 + the sum over other classes j of exp(z_j - z_y)."""
        return np.log1p(self._odds(x, y).sum(axis=-1))

    def hinges(self, x, y, confidence=50.0):
        """[N, B]: how far the best other class leads, at most `confidence`."""
        return np.minimum(self._leads(x, y).max(axis=-1), confidence)

    def cross_entropy_gradient(self, x, y):
        """Gradient of the members' mean cross-entropy.

        With r_j = exp(z_j - z_y), d log(1 + sum_j r_j) / dx = sum_j r_j (W_j - W_y) / (1 + sum_j r_j): no
        difference of nearly equal numbers, however small the loss.
        """
        odds = self._odds(x, y)
        shares = odds / (1 + odds.sum(axis=-1, keepdims=True))
        return self._average(shares, x, y)

    def hinge_gradient(self, x, y, confidence=50.0):
        """Gradient of the members' mean hinge: W_best - W_y, or 0 where the lead exceeds `confidence`."""
        leads = self._leads(x, y)
        shares = np.zeros(leads.shape)
        np.put_along_axis(shares, leads.argmax(axis=-1)[..., None], 1.0, axis=-1)
        shares[leads.max(axis=-1) > confidence] = 0
        return self._average(shares, x, y)

    def _leads(self, x, y):
        """z_j - z_y [N, B, C], -inf at the true class."""
        logits = self.logits(x)
        leads = logits - np.take_along_axis(logits, np.asarray(y)[None, :, None], axis=-1)
        leads[:, np.arange(len(x)), y] = -np.inf
        return leads

    def _odds(self, x, y):
        return np.exp(self._leads(x, y))

    def _average(self, shares, x, y):
        """Mean over members of sum_j shares_j (W_j - W_y), in the shape of x."""
        ahead = np.einsum("nbc,ndc->nbd", shares, self.weights)
        behind = shares.sum(axis=-1)[..., None] * np.moveaxis(self.weights[:, :, y], 1, 2)
        return np.reshape((ahead - behind).mean(axis=0), np.shape(x))
