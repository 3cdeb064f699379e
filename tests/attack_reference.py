"""The attacks of section 2.3 in NumPy and float64, from the paper's equations and a gradient to climb.

Nothing here comes from divtf or from the library behind it. A gradient is a function from images
[B, H, W, C] to the gradient of each image's loss, in their shape.
"""

import numpy as np


class Climb:
    """The images of an attack under way, and where their signs can be trusted.

    `sure` is False at pixels whose direction at some step was so small, beside the image's largest, that
    float32 may see it with the other sign.
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

    def step(self, size, direction):
        """Equation 4: `size` along the sign of the direction."""
        scale = np.abs(direction).max(axis=(1, 2, 3), keepdims=True)
        self.sure &= np.abs(direction) > self.resolution * scale
        self.move(size * np.sign(direction))


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


ATTACKS = {"fgsm": fgsm, "rfgsm": rfgsm, "ifgsm": ifgsm, "mifgsm": mifgsm, "pgd_cw": pgd_cw}


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
