"""Measurements on images that are read by number are those on the array."""

import keras
import numpy as np
from keras import layers

import divtf
from divtf.data.images import LazyImages

SHAPE, CLASSES = (4, 4, 1), 3


def ensemble():
    members = []
    for seed in (0, 1):
        keras.utils.set_random_seed(seed)
        members.append(keras.Sequential([keras.Input(SHAPE), layers.Flatten(), layers.Dense(CLASSES)]))
    return divtf.Ensemble(members, divtf.CrossEntropy())


def test_gaas_and_gradient_statistics_read_by_number():
    target, x = ensemble(), np.random.default_rng(0).random((30, *SHAPE), dtype="float32")
    y = target.predict(x, verbose=0).argmax(-1)
    read = []

    def reading(numbers):
        read.append(len(numbers))
        return x[numbers]

    lazy = LazyImages(reading, len(x), SHAPE, dtype="float32")
    options = {"epsilons": (0.1,), "orders": (4,), "batch_size": 8}
    assert divtf.gaas(target, lazy, y, **options) == divtf.gaas(target, x, y, **options)
    some, others = (divtf.gradient_statistics(target, images, y, batch_size=8) for images in (lazy, x))
    np.testing.assert_array_equal(some.coherence, others.coherence)
    assert (some.gal, some.zero_entries) == (others.gal, others.zero_entries)
    assert 0 < max(read) <= 30 and read.count(8) >= 6
