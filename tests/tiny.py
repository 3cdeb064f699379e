"""A model and a data set so small that a whole run takes seconds; also for processes that tests fork."""

from pathlib import Path

import numpy as np
import pytest
import reference

from divtf.data.datasets import DATASETS, DatasetSpec
from divtf.data.paper import SETUPS, Setup
from divtf.pipeline.config import RunConfig

CLASSES, SHAPE = 3, (8, 8, 1)


def load():
    """Noisy images, each with a bright stripe whose place is the class."""
    rng = np.random.default_rng(7)

    def part(count):
        labels = np.arange(count) % CLASSES
        images = rng.integers(0, 80, (count, *SHAPE))
        for label in range(CLASSES):
            images[labels == label, 2 * label + 1] += 120
        return images.astype("uint8"), labels

    return part(72), part(24)


def member(make, x, num_classes):
    from keras import layers

    return make.dense(make.activate(make.dense(layers.Flatten()(x), 6)), num_classes)


def name(patch: pytest.MonkeyPatch) -> None:
    """Make `tiny` and `stripes` known to configurations, without TensorFlow."""
    patch.setitem(DATASETS, "stripes", DatasetSpec(SHAPE, CLASSES, (0.1, 0.3), False, load))
    patch.setitem(SETUPS, "tiny", Setup("stripes", 2))


def register(patch: pytest.MonkeyPatch) -> None:
    """Make `tiny` a model, and `stripes` its data set."""
    from divtf.networks.models import MODELS

    name(patch)
    patch.setitem(MODELS, "tiny", member)


def config(**values) -> RunConfig:
    """A resolved configuration of 2 members and 9 steps an epoch, div's being 18."""
    defaults = {"model": "tiny", "num_members": 2, "batch_size": 8, "learning_rate": 0.01}
    return RunConfig(**defaults | values)


def data():
    from divtf.data.datasets import load_dataset

    return load_dataset("stripes")


def train(directory: Path, **values):
    """Train, or go on, in a directory without a lock; gives what `training.train` gives."""
    from divtf.pipeline import trained

    return trained.train(config(**values), data(), directory)


def weights(ensemble) -> list[list[np.ndarray]]:
    """The weights of each member, float64."""
    return [[weight.astype("float64") for weight in member.get_weights()] for member in ensemble.members]


def forward(members, x):
    """(gradient of a class's cross-entropy, probabilities) of each member of `weights`, without TensorFlow.

    z = h(x A + a) B + b with h the LeakyReLU of slope 0.1; the gradient of -log softmax(z)_y is
    (softmax(z) - onehot(y)) B^T, times h', times A^T. The first of the pair takes y; x is [B, pixels].
    """
    for first, offset, second, bias in members:
        before = x @ first + offset
        slope = np.where(before > 0, 1.0, 0.1)
        p = reference.softmax(before * slope @ second + bias)

        def gradient(y, p=p, slope=slope, first=first, second=second):
            return ((p - np.eye(CLASSES)[y]) @ second.T * slope) @ first.T

        yield gradient, p


def train_in_a_process(directory: Path, epochs: int) -> None:
    """Train in a process of its own, which may be killed, with a checkpoint after each batch."""
    register(pytest.MonkeyPatch())
    train(directory, checkpoint_minutes=1e-9, epochs=epochs)
