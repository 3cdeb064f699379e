"""Independent twins of the numerics, in NumPy and float64, for tests to compare with.

Nothing here comes from the package: every formula is written from the paper, as directly as it reads.
N members, B examples, C classes, D input values an example, P = N(N-1)/2 pairs.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def cross_entropy(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """-log p_y, [..., B, C], [B] -> [..., B]."""
    return -log_softmax(logits)[..., np.arange(len(y)), y]


def log_mean_probability(member_logits: np.ndarray) -> np.ndarray:
    """Log of the mean over members of the probabilities, [N, B, C] -> [B, C]."""
    return np.logaddexp.reduce(log_softmax(member_logits), axis=0) - np.log(len(member_logits))


def accuracy(scores: np.ndarray, y: np.ndarray) -> float:
    """Share of examples whose largest score is the label's."""
    return float((scores.argmax(axis=-1) == y).mean())


def cosine_similarities(gradients: np.ndarray) -> np.ndarray:
    """Equation 6 for the pairs a < b in row order, [N, B, D] -> [B, P]; none of the gradients zero."""
    columns = []
    for a, b in itertools.combinations(gradients.astype("float64"), 2):
        lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
        columns.append((a * b).sum(axis=-1) / lengths)
    return np.stack(columns, axis=-1)


def coherence(gradients: np.ndarray) -> np.ndarray:
    """Equation 7, [N, B, D] -> [B]."""
    return cosine_similarities(gradients).max(axis=-1)


def gal(gradients: np.ndarray) -> np.ndarray:
    """Equation 8, [N, B, D] -> [B]."""
    return np.log(np.exp(cosine_similarities(gradients)).sum(axis=-1))


@dataclasses.dataclass
class Linear:
    """z = x W + b, with x flattened; W [D, C], b [C]."""

    weight: np.ndarray
    bias: np.ndarray

    def logits(self, x: np.ndarray) -> np.ndarray:
        """[B, ...] -> [B, C]."""
        return x.reshape(len(x), -1) @ self.weight + self.bias

    def input_gradient(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """d cross-entropy / dx = (softmax(z) - onehot(y)) W^T, [B, D]."""
        return self._residual(x, y) @ self.weight.T

    def parameter_gradients(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """d mean cross-entropy / d(W, b) = (x^T r / B, sum r / B) with r = softmax(z) - onehot(y)."""
        residual = self._residual(x, y) / len(x)
        return x.reshape(len(x), -1).T @ residual, residual.sum(axis=0)

    def _residual(self, x, y):
        return softmax(self.logits(x)) - np.eye(len(self.bias))[y]


@dataclasses.dataclass
class Mlp:
    """z = tanh(x W1 + b1) W2 + b2, with x flattened; W1 [D, H], W2 [H, C]."""

    weight1: np.ndarray
    bias1: np.ndarray
    weight2: np.ndarray
    bias2: np.ndarray

    def logits(self, x: np.ndarray) -> np.ndarray:
        """[B, ...] -> [B, C]."""
        return self._hidden(x) @ self.weight2 + self.bias2

    def input_gradient(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """((softmax(z) - onehot(y)) W2^T * (1 - h^2)) W1^T, [B, D], h the hidden values."""
        residual = softmax(self.logits(x)) - np.eye(len(self.bias2))[y]
        return (residual @ self.weight2.T * (1 - self._hidden(x) ** 2)) @ self.weight1.T

    def _hidden(self, x):
        return np.tanh(x.reshape(len(x), -1) @ self.weight1 + self.bias1)


def mean_objective(members: Sequence, x: np.ndarray, y: np.ndarray, gal_weight: float) -> dict[str, float]:
    """Equation 9 and its parts as means over the examples, for members with closed-form gradients."""
    gradients = np.stack([member.input_gradient(x, y) for member in members])
    parts = {
        "cross_entropy": np.mean([cross_entropy(member.logits(x), y) for member in members]),
        "gal": gal(gradients).mean(),
        "coherence": coherence(gradients).mean(),
    }
    return parts | {"loss": parts["cross_entropy"] + gal_weight * parts["gal"]}


def derivative_at_zero(function: Callable[[float], float], step: float) -> float:
    """Central difference of fourth order: its error is O(step^4) and O(rounding / step)."""
    near = function(step) - function(-step)
    far = function(2 * step) - function(-2 * step)
    return (8 * near - far) / (12 * step)


def numeric_gradient(function: Callable[[], float], array: np.ndarray, step: float = 1e-3) -> np.ndarray:
    """Gradient of `function()` with respect to an array that it reads, entry by entry."""
    gradient = np.zeros_like(array)
    for index in np.ndindex(*array.shape):
        start = array[index]

        def moved(distance, index=index, start=start):
            array[index] = start + distance
            return function()

        gradient[index] = derivative_at_zero(moved, step)
        array[index] = start
    return gradient


def batch_normalised(x: np.ndarray, gamma, beta, epsilon: float) -> np.ndarray:
    """Batch normalisation of [..., channels] by the moments of the batch."""
    axes = tuple(range(x.ndim - 1))
    return gamma * (x - x.mean(axis=axes)) / np.sqrt(x.var(axis=axes) + epsilon) + beta


def padded_subsample(x: np.ndarray, stride: int, filters: int) -> np.ndarray:
    """He et al.'s shortcut A: every stride-th pixel, [B, H, W, c] -> [B, H', W', filters], zeros added."""
    batch, height, width, channels = x.shape
    rows, columns = range(0, height, stride), range(0, width, stride)
    result = np.zeros((batch, len(rows), len(columns), filters))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            result[:, i, j, :channels] = x[:, row, column]
    return result


def hadamard_entry(order: int, i: int, j: int) -> int:
    """H[i, j], regular Hadamard: cells of a Latin square, or a factor -1 for each base-4 digit in common."""
    if order == 36:
        (a, b), (c, d) = divmod(i, 6), divmod(j, 6)
        return -1 if i != j and (a == c or b == d or (a + b - c - d) % 6 == 0) else 1
    digits = {4: (1,), 16: (1, 4), 64: (1, 4, 16)}[order]
    return math.prod(-1 if i // digit % 4 == j // digit % 4 else 1 for digit in digits)


def adam(weights, gradients, learning_rate, *, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """Weights after a step by each of the gradients; Kingma & Ba (2015), the last lines of section 2.

    That form corrects the step size for the moments' bias; epsilon is Keras's.
    """
    m, v = np.zeros_like(weights), np.zeros_like(weights)
    for step, gradient in enumerate(gradients, 1):
        m = beta_1 * m + (1 - beta_1) * gradient
        v = beta_2 * v + (1 - beta_2) * gradient**2
        rate = learning_rate * np.sqrt(1 - beta_2**step) / (1 - beta_1**step)
        weights = weights - rate * m / (np.sqrt(v) + epsilon)
    return weights
