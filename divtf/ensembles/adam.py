"""Adam (Kingma & Ba 2015) by TensorFlow's own kernel: one operation a variable where Keras makes dozens.

A step's graph then has far fewer operations, so that the first step comes sooner, and weights and moments are
read and written once.
"""

import keras
import tensorflow as tf

from divtf.runtime.private_names import adam_moments, variables_of


@keras.saving.register_keras_serializable(package="divtf")
class Adam(keras.optimizers.Adam):
    """Keras's Adam with the same arguments, state and results up to rounding; section 4.1 trains by it."""

    def apply(self, grads, trainable_variables=None):
        """Take a step; the factors that all variables share are made once, which keeps the graph small."""
        variables = variables_of(self) if trainable_variables is None else list(trainable_variables)
        dtypes = {keras.backend.standardize_dtype(variable.dtype) for variable in variables}
        self._shared = {dtype: self._factors(self.iterations + 1, dtype) for dtype in dtypes}
        super().apply(grads, None if trainable_variables is None else variables)

    def update_step(self, gradient, variable, learning_rate):
        """Update one variable, of any shape, and its moments from a dense gradient of that shape."""
        if self.amsgrad:  # The kernel is Adam's only.
            super().update_step(gradient, variable, learning_rate)
            return
        momentum, velocity = adam_moments(self, variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=momentum.value.handle,
            v=velocity.value.handle,
            lr=tf.cast(learning_rate, variable.dtype),
            grad=tf.cast(gradient, variable.dtype),
            use_locking=True,  # As the assignments that it takes the place of.
            **self._shared[keras.backend.standardize_dtype(variable.dtype)],
        )

    def _factors(self, step, dtype: str) -> dict[str, tf.Tensor]:
        """The kernel's scalars beside the learning rate."""
        beta_1, beta_2, epsilon = (
            tf.constant(value, dtype) for value in (self.beta_1, self.beta_2, self.epsilon)
        )
        step = keras.ops.cast(step, dtype)
        powers = {"beta1_power": beta_1**step, "beta2_power": beta_2**step}
        return {"beta1": beta_1, "beta2": beta_2, "epsilon": epsilon} | powers
