"""Rival objectives in NumPy and float64, from their papers' equations, for members of closed-form gradients.

Nothing here comes from the package. Members are those of `reference.py`: they have `logits(x)` and
`input_gradient(x, y)`. N members, B examples, C classes, D input values an example, images [B, ...].
"""

import itertools

import numpy as np
import reference


def streams(x):
    """[B, 2] int32: the sums of the bits of an image's float32 values, plain and times 1, 3, 5, ..."""
    bits = np.asarray(x, "float32").reshape(len(x), -1).view("int32").astype("int64")
    sums = np.stack([bits.sum(axis=1), (bits * np.arange(1, 2 * bits.shape[1], 2)).sum(axis=1)], axis=1)
    return ((sums + 2**31) % 2**32 - 2**31).astype("int32")


def sign_steps(x, direction, *, epsilon, steps, step, start=0.0, decay=0.0, low=0.0, high=1.0):
    """`steps` steps of step x epsilon along the sign of the directions, whose earlier ones decay.

    `direction` is a function from images to [B, D]. Each is put in the measure of its mean absolute entry.
    """

    def inside(images):
        return np.clip(np.clip(images, x - epsilon, x + epsilon), low, high)

    images, velocity = inside(x + start), np.zeros(x.shape)
    for _ in range(steps):
        along = direction(images).reshape(x.shape)
        size = np.abs(along).mean(axis=tuple(range(1, x.ndim)), keepdims=True)
        velocity = decay * velocity + along / size
        images = inside(images + step * epsilon * np.sign(velocity))
    return images


def mean_cross_entropy(members, x, y):
    """[B]."""
    return np.mean([reference.cross_entropy(member.logits(x), y) for member in members], axis=0)


# GAL


def sharpened_gal(gradients, sharpness):
    """log(sum over the pairs of exp(t cos)) / t, [N, B, D] -> [B]."""
    return np.logaddexp.reduce(sharpness * reference.cosine_similarities(gradients), axis=-1) / sharpness


# ADP: Pang et al. (2019)


def entropy(logits):
    """Equation 5, of probabilities that do not underflow, [N, B, C] -> [B]."""
    mean = reference.softmax(logits).mean(axis=0)
    return -(mean * np.log(mean)).sum(axis=-1)


def log_diversity(logits, y):
    """Equation 4 with 1e-6 on the diagonal, [N, B, C], [B] -> [B]."""
    probabilities, values = reference.softmax(logits), []
    for example, label in enumerate(y):
        others = np.delete(probabilities[:, example], label, axis=-1)
        units = others / np.linalg.norm(others, axis=-1, keepdims=True)
        sign, value = np.linalg.slogdet(units @ units.T + 1e-6 * np.eye(len(units)))
        assert sign == 1
        values.append(value)
    return np.array(values)


def adp(members, x, y, alpha, beta):
    """Equation 8 over N, [B]."""
    logits = np.stack([member.logits(x) for member in members])
    total = len(members) * mean_cross_entropy(members, x, y)
    return (total - alpha * entropy(logits) - beta * log_diversity(logits, y)) / len(members)


# TRS: Yang et al. (2021)


def similarity(gradients):
    """L_sim of each pair as it reads, their mean, [N, B, D] -> [B]."""
    return np.abs(reference.cosine_similarities(gradients)).mean(axis=-1)


def steepness(gradients):
    """The sum of both gradients' lengths of each pair, their mean, [N, B, D] -> [B]."""
    lengths = np.linalg.norm(gradients, axis=-1)
    return np.mean([a + b for a, b in itertools.combinations(lengths, 2)], axis=0)


def gradients_of(members, x, y):
    """[N, B, D]."""
    return np.stack([member.input_gradient(x, y) for member in members])


def steepness_gradient(members, x, y):
    """Of linear members: with g = W (p - e_y), d|g|/dx = W (diag p - p p^T) W^T g / |g|, [B, D]."""
    total = 0
    for member in members:
        p = reference.softmax(member.logits(x))
        gradient = member.input_gradient(x, y)
        along = gradient / np.linalg.norm(gradient, axis=-1, keepdims=True) @ member.weight
        total += (p * along - p * (p * along).sum(axis=-1, keepdims=True)) @ member.weight.T
    return total  # Each member is in as many pairs as every other one.


def trs(members, x, y, similar, smooth, steepest):
    """L_TRS over N, [B], with the images at which the steepness is taken."""
    added = similar * similarity(gradients_of(members, x, y))
    added += smooth * steepness(gradients_of(members, steepest, y))
    return mean_cross_entropy(members, x, y) + added / len(members)


# PARL: Shukla et al. (2025)


def dense_layers(member, x):
    """Of an `Mlp`: outputs of its layers, [B, units] each, and its layers' gradients, one vector each."""
    images = x.reshape(len(x), -1)
    hidden = np.tanh(images @ member.weight1 + member.bias1)
    slope = 1 - hidden**2
    own = hidden.sum(axis=0)[:, None] + np.zeros(member.weight2.shape)
    through = images.T @ (slope * member.weight2.sum(axis=1))
    gradients = [(images.T @ slope).ravel(), np.concatenate([through.ravel(), own.ravel()])]
    return [hidden, hidden @ member.weight2 + member.bias2], gradients


def conv_layers(weights, x):
    """The same of tanh of a convolution [k, k, 1, filters] without padding, and a dense layer."""
    kernel, bias, weight, offset = weights
    side = kernel.shape[0]
    windows = np.lib.stride_tricks.sliding_window_view(x[..., 0], (side, side), axis=(1, 2))
    hidden = np.tanh(np.einsum("bhwij,ijf->bhwf", windows, kernel[:, :, 0]) + bias)
    slope, rows = 1 - hidden**2, hidden.reshape(len(x), -1)
    after = weight.sum(axis=1).reshape(hidden.shape[1:])
    first = np.einsum("bhwij,bhwf->ijf", windows, slope)
    through = np.einsum("bhwij,bhwf->ijf", windows, slope * after)
    own = rows.sum(axis=0)[:, None] + np.zeros(weight.shape)
    gradients = [first.ravel(), np.concatenate([through.ravel(), own.ravel()])]
    return [rows, rows @ weight + offset], gradients


def correlation(outputs):
    """Mean over the units of NumPy's correlation of a pair, their sum, N x [B, units] -> one number."""
    total = 0.0
    for a, b in itertools.combinations(outputs, 2):
        total += np.mean([np.corrcoef(unit, same)[0, 1] for unit, same in zip(a.T, b.T, strict=True)])
    return total


def parl_product(looked_into, layers):
    """Similarity times correlation over the number of layers, of each member's `dense_layers`."""
    similar = correlated = 0.0
    for layer in range(layers):
        correlated += correlation([outputs[layer] for outputs, _ in looked_into])
        for a, b in itertools.combinations([gradients[layer] for _, gradients in looked_into], 2):
            similar += a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    return similar * correlated / layers


# DVERGE: Yang et al. (2020)


def feature_gradient(member, images, wanted, layer):
    """Of an `Mlp`: the gradient of the mean squared difference of its layer's outputs, for each image."""
    images, wanted = images.reshape(len(images), -1), wanted.reshape(len(wanted), -1)
    hidden, other = (np.tanh(each @ member.weight1 + member.bias1) for each in (images, wanted))
    at_hidden = 2 * (hidden - other) / hidden.shape[1]
    logits = (hidden - other) @ member.weight2
    at_logits = 2 * logits / logits.shape[1] @ member.weight2.T
    chosen = np.where((layer == 0)[:, None], at_hidden, at_logits)
    return (chosen * (1 - hidden**2)) @ member.weight1.T


def neighbours(count):
    """Of an odd number of images: the other one of each pair, and for the last one the first."""
    return [*(place for first in range(0, count - 1, 2) for place in (first + 1, first)), 0]


def distilled(member, x, layer, **steps):
    """Equation 1: images near x with the features of the image beside each in the batch; momentum 1."""
    wanted = x[neighbours(len(x))]
    return sign_steps(x, lambda images: -feature_gradient(member, images, wanted, layer), decay=1.0, **steps)


def dverge(members, y, images):
    """Equation 3 as a mean: each member on what was distilled from every other one, [B]."""
    losses = [
        reference.cross_entropy(member.logits(images[other]), y)
        for place, member in enumerate(members)
        for other in range(len(members))
        if other != place
    ]
    return np.mean(losses, axis=0)


# Adversarial training: Madry et al. (2018)


def mean_probability_gradient(members, x, y):
    """Of linear members: that of -log of the mean p_y, whose parts are p_y W (p - e_y), [B, D]."""
    total = mean = 0
    for member in members:
        p = reference.softmax(member.logits(x))[np.arange(len(y)), y][:, None]
        total, mean = total + p * member.input_gradient(x, y), mean + p
    return total / mean
