"""What is attacked in tests, and the random numbers that an attack draws, told again without the package."""

import math

import attack_reference
import keras
import numpy as np
import tensorflow as tf
from keras import layers

from divtf import CrossEntropy
from divtf.attacks.attack import make_attack
from divtf.ensembles.ensemble import Ensemble

SHAPE, CLASSES = (6, 6, 2), 4
EPSILON = 0.1
SEED = 7


class Draws:
    """The streams of random numbers of some images, by their numbers: each a chain of folds of the seed."""

    def __init__(self, streams):
        self.streams = streams

    @classmethod
    def of(cls, numbers, seed=SEED):
        """Those of the images of these numbers."""
        return cls([_fold((seed, 0), number) for number in numbers])

    def fold(self, number):
        """Streams for a step, a copy or one of several draws."""
        return Draws([_fold(stream, number) for stream in self.streams])

    def uniform(self, shape, low=0.0, high=1.0):
        """[B, *shape], float64 of float32 numbers."""
        drawn = [tf.random.stateless_uniform(shape, stream, low, high) for stream in self.streams]
        return np.stack(drawn).astype("float64")

    def normal(self, shape, deviation):
        """[B, *shape], float64 of float32 numbers."""
        drawn = [tf.random.stateless_normal(shape, stream, stddev=deviation) for stream in self.streams]
        return np.stack(drawn).astype("float64")


def _fold(stream, number):
    return tf.random.experimental.stateless_fold_in(tf.constant(stream, tf.int32), number)


def random_start(shape, epsilon, seed=SEED):
    """What the first random start adds to images [B, ...], numbered from 0."""
    return Draws.of(range(shape[0]), seed).fold(0).fold(0).uniform(shape[1:], -epsilon, epsilon)


def linear_ensemble(count, scale=1.0, seed=0, biases=None):
    """An Ensemble of linear members, and their closed forms."""
    rng = np.random.default_rng(seed)
    weights = scale * rng.normal(size=(count, math.prod(SHAPE), CLASSES)).astype("float32") / 6
    biases = np.zeros((count, CLASSES), "float32") if biases is None else biases
    members = []
    for n in range(count):
        images = keras.Input(SHAPE)
        member = keras.Model(images, layers.Dense(CLASSES)(layers.Flatten()(images)), name=f"linear_{n}")
        member.set_weights([weights[n], biases[n]])
        members.append(member)
    return Ensemble(members, CrossEntropy()), attack_reference.LinearMembers(weights, biases)


def conv_members(count, dtype="float32", scale=2.0):
    """Curved members with the same weights for every dtype."""
    rng, members = np.random.default_rng(4), []
    for n in range(count):
        images = keras.Input(SHAPE, dtype=dtype)
        x = layers.Conv2D(5, 3, padding="same", dtype=dtype)(images)
        x = layers.LeakyReLU(negative_slope=0.1, dtype=dtype)(x)
        x = layers.Conv2D(5, 3, strides=2, activation="tanh", dtype=dtype)(x)
        x = layers.Flatten(dtype=dtype)(x)
        member = keras.Model(images, layers.Dense(CLASSES, dtype=dtype)(x), name=f"conv_{n}")
        member.set_weights([scale * rng.normal(size=w.shape) / 3 for w in member.get_weights()])
        members.append(member)
    return members


def images_and_labels(count=6, seed=1):
    """Images with many pixels at the borders of the range."""
    rng = np.random.default_rng(seed)
    x = np.clip(rng.uniform(-0.3, 1.3, (count, *SHAPE)), 0, 1).astype("float32")
    return x, rng.integers(0, CLASSES, count)


# Fewer steps and copies, where more would only take time.
_QUICK = {
    **{name: {"steps": 3} for name in ("ifgsm", "mifgsm", "pgd_cw", "pgd", "dim", "tim", "sim")},
    **{name: {"steps": 3} for name in ("mi_di_ti_si", "admix", "cwa", "cse")},
    "vmi": {"steps": 3, "neighbours": 3},
    "pgn": {"steps": 3, "samples": 3},
    "ssa": {"steps": 3, "copies": 3},
}


def quick_params(name):
    """What `quick_attack` changes of the attack."""
    return _QUICK.get(name, {})


def quick_attack(name, threat):
    """The attack, with fewer steps and copies."""
    return make_attack(name, threat, **quick_params(name))


def plain_losses(logits, y, loss="cross_entropy", confidence=50.0):
    """Each image's loss [B] of logits [N, B, C], written as plainly as it reads."""
    if loss == "mean_logit":
        return keras.losses.sparse_categorical_crossentropy(y, tf.reduce_mean(logits, axis=0), True)
    if loss == "mean_probability":
        return keras.losses.sparse_categorical_crossentropy(
            y, tf.reduce_mean(tf.nn.softmax(logits), axis=0), False
        )
    of_members = []
    for one in tf.unstack(logits):
        if loss == "margin":
            true = tf.gather(one, y, batch_dims=1)
            others = tf.reduce_max(one - 1e9 * tf.one_hot(y, CLASSES, dtype=one.dtype), axis=1)
            of_members.append(tf.minimum(others - true, confidence))
        else:
            of_members.append(keras.losses.sparse_categorical_crossentropy(y, one, True))
    return tf.reduce_mean(of_members, axis=0)


def tape_gradient(members, y, loss="cross_entropy"):
    """Gradient of the members' loss by float64 members."""

    def gradient(x):
        x = tf.constant(x, tf.float64)
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = plain_losses(tf.stack([member(x) for member in members]), y, loss)
        return tape.gradient(total, x).numpy()

    return gradient


def agree(x_adv, climb, least_sure=0.9):
    """Equal wherever no sign on the way was within rounding of zero."""
    assert climb.sure.mean() > least_sure
    np.testing.assert_allclose(np.asarray(x_adv)[climb.sure], climb.images[climb.sure], rtol=0, atol=2e-6)
