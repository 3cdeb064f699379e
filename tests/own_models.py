"""A module with a user's models, as text, and what a process without it in memory does with its runs."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

NAME = "someones_networks"
TEXT = '''
import keras
from keras import layers


@keras.saving.register_keras_serializable("someone")
class Doubled(layers.Layer):
    def call(self, inputs):
        return 2 * inputs


class Unknown(layers.Layer):
    def call(self, inputs):
        return 2 * inputs


@keras.saving.register_keras_serializable("someone")
class Network(keras.Model):
    """Subclassed: no graph."""

    def __init__(self, input_shape, num_classes, name, seed=None):
        super().__init__(name=name)
        self.arguments = {"input_shape": input_shape, "num_classes": num_classes, "name": name}
        self.flatten, self.dense = layers.Flatten(), layers.Dense(num_classes)

    def call(self, inputs):
        return self.dense(self.flatten(inputs))

    def get_config(self):
        return self.arguments


def small(input_shape, num_classes, name, seed, head=None, units=6):
    def kernel(number):
        return keras.initializers.GlorotUniform(seed + number)

    inputs = keras.Input(input_shape)
    x = layers.Dense(units, "tanh", kernel_initializer=kernel(0))(layers.Flatten()(inputs))
    x = layers.BatchNormalization()((head or Doubled())(x))
    return keras.Model(inputs, layers.Dense(num_classes, kernel_initializer=kernel(1))(x), name=name)


def plain(**given):
    return small(**given, head=layers.LeakyReLU())


def unseeded(input_shape, num_classes, name, seed):
    return keras.Sequential([layers.Flatten(), layers.Dense(num_classes)], name=name)


def with_softmax(**given):
    member = small(**given)
    return keras.Model(member.input, layers.Softmax()(member.output), name=given["name"])


def constant(**given):
    return small(**given | {"seed": 1})


def of_other_images(**given):
    return small(**given | {"input_shape": (5, 5, 1)})


def of_other_classes(**given):
    return small(**given | {"num_classes": 7})


def of_two_inputs(input_shape, num_classes, name, seed):
    inputs = [keras.Input(input_shape), keras.Input(input_shape)]
    return keras.Model(inputs, layers.Dense(num_classes)(layers.Flatten()(layers.Add()(inputs))))


def of_named_outputs(**given):
    member = small(**given)
    return keras.Model(member.input, {"logits": member.output})


def with_lambda(**given):
    return small(**given, head=layers.Lambda(lambda x: 2 * x))


def with_unknown_layer(**given):
    return small(**given, head=Unknown())


def not_exact(**given):
    return small(**given, head=layers.Activation("softsign"))


def of_other_arguments(shape, classes):
    return None


def nothing(**given):
    return None


def failing(**given):
    raise RuntimeError("no weights today\\nand more")


def leaving(**given):
    raise SystemExit(3)


number = 3
'''


def write(place: Path, name: str = NAME, text: str = TEXT) -> None:
    """Make the module one of those that can be imported from a directory."""
    (place / f"{name}.py").write_text(text)


def importable(patch: pytest.MonkeyPatch, place: Path) -> None:
    """Write the module there, and let it be imported."""
    write(place)
    patch.syspath_prepend(str(place))
    patch.delitem(sys.modules, NAME, raising=False)


def read_elsewhere(place: Path, directory: Path) -> None:
    """Print what a run's ensemble and surrogate give an image, in a process that begins in `place`."""
    import divtf

    os.chdir(place)
    tiny.register(pytest.MonkeyPatch())
    image = np.full((1, *tiny.SHAPE), 0.5, "float32")
    for ensemble in (divtf.load_run(directory).ensemble, divtf.load_surrogate(directory).surrogate):
        print(*ensemble(image).numpy().ravel().tolist())
