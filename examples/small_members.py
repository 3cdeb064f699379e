"""Small architectures of one's own, for comparisons on two cores: a seventh of Conv-3's operations or less.

    python -m divtf.main --model=examples.small_members:strided --dataset=mnist --epochs=10

A function that `--model` names is called with these four keywords, and gives a Keras model of logits. Initial
weights that no seed fixes are drawn from the member's own.
"""

import keras
from keras import layers


def strided(input_shape, num_classes, name, seed, activation="leaky_relu"):
    """Two convolutions of stride 2, and a hidden layer of 128."""
    images = keras.Input(input_shape, name="images")
    x = images
    for filters in (32, 64):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", activation=activation)(x)
    x = layers.Dense(128, activation=activation)(layers.Flatten()(x))
    return keras.Model(images, layers.Dense(num_classes)(x), name=name)


def smooth(**given):
    """The same with an activation that has derivatives of any order."""
    return strided(**given, activation="silu")


def pooled(input_shape, num_classes, name, seed):
    """Three convolutions of 5 x 5 with average pooling between them, and nothing hidden: another kind."""
    images = keras.Input(input_shape, name="images")
    x = images
    for filters in (16, 32, 64):
        x = layers.Conv2D(filters, 5, padding="same", activation="leaky_relu")(x)
        x = layers.AveragePooling2D(2)(x)
    return keras.Model(images, layers.Dense(num_classes)(layers.Flatten()(x)), name=name)
