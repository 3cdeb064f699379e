"""The private names of Keras and TensorFlow that divtf cannot do without, behind public ones.

None of them has a public equivalent in Keras 3.15 and TensorFlow 2.21. A new version may take any of them
away: each has a test that fails then, and no other module uses a private name of another library.
"""

import keras
from tensorflow.python.util import _pywrap_util_port


def layers_of(model: keras.Model) -> list[keras.layers.Layer]:
    """All layers within a model, those of nested models and of layers made of layers included.

    `Model.layers` has the model's own only, and a layer that is no model does not tell its parts.
    """
    return list(model._flatten_layers(include_self=False, recursive=True))


class BuildsItself:
    """For a Keras model, before `keras.Model` among its bases, that makes its variables by itself.

    Keras asks for them before it trains or tests, and under a strategy traces a whole step to find them,
    on a batch that it first averages over the replicas: which fails on one shared out unevenly.
    """

    def build_for_training(self) -> None:
        """Make all variables that training needs and that are not there yet; called before each `fit`."""
        raise NotImplementedError

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        self.build_for_training()


def variables_of(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The weights that an optimizer was built to train; `optimizer.variables` are its own."""
    return list(optimizer._trainable_variables)


def adam_moments(
    optimizer: keras.optimizers.Adam, variable: keras.Variable
) -> tuple[keras.Variable, keras.Variable]:
    """The running means of a weight's gradient and of its square, as Adam keeps them."""
    index = optimizer._get_variable_index(variable)
    return optimizer._momentums[index], optimizer._velocities[index]


def onednn_enabled() -> bool:
    """Whether TensorFlow computes by oneDNN in this process; its environment variable may leave it open."""
    return _pywrap_util_port.IsMklEnabled()
