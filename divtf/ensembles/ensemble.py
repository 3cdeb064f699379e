"""The ensemble: members trained together by one objective, predicting by their mean probability."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

from divtf.ensembles import step_checks
from divtf.ensembles.adam import Adam
from divtf.ensembles.members import check_members
from divtf.ensembles.objectives import CrossEntropy, GradientAlignment, Terms
from divtf.errors import InputError, require
from divtf.networks import second_order
from divtf.networks.logits import at_least_float32
from divtf.runtime import replicas, worker_fit
from divtf.runtime.private_names import BuildsItself
from divtf.runtime.workers import team_of


@keras.saving.register_keras_serializable(package="divtf")
class Ensemble(BuildsItself, keras.Model):
    """Keras members trained together, served as one classifier.

    Args:
        members: Keras functional models with distinct names, the same input shape [H, W, C] and the
            same number of logits; at least 2 of them for GradientAlignment.
        objective: what `fit` minimises; `CrossEntropy()` or `GradientAlignment(weight)`. Without one,
            GradientAlignment with the paper's weight.
        name: Keras name.

    `fit`, `evaluate` and TensorBoard report loss, cross_entropy, accuracy (of the ensemble) and
    <member>_accuracy; gal and coherence too, except in the training epochs of CrossEntropy, which does
    not compute them. Labels are class indices [B]. Call gives the log of the mean member probability
    [B, C], which losses and attacks may take for logits: its softmax is the probability itself. Images may be
    of any range that the members take; attacks and transfer evaluation hold them to [0, 1].

    Raises:
        InputError: if the members do not fit together or to the objective.

    Source: Equation 9 and section 3.3.
    """

    def __init__(
        self,
        members: Sequence[keras.Model],
        objective: CrossEntropy | GradientAlignment | None = None,
        name: str | None = None,
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.objective = GradientAlignment() if objective is None else objective
        several = isinstance(members, Iterable) and not isinstance(members, keras.Model)
        require(several, "a sequence of Keras functional models", f"{members!r}")
        self.members = list(members)
        check_members(self.members, self.objective)
        self.num_classes = self.members[0].output_shape[-1]
        names = ["loss", "cross_entropy", "gal", "coherence", "accuracy"]
        names += [f"{member.name}_accuracy" for member in self.members]
        self._measures = {name: replicas.ReplicatedMean(name=name) for name in names}
        self.build(self.members[0].input_shape)

    def member_logits(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Logits of every member, [N, B, C], float32 or wider, for images [B, H, W, C]."""
        return tf.stack([at_least_float32(member(x, training=training)) for member in self.members])

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Log of the mean member probability, [B, C], for images [B, H, W, C]."""
        return _log_mean_probability(self.member_logits(x, training=training))

    def compile(self, optimizer="adam", *, jit_compile: bool | str = False, **kwargs) -> None:
        """Configure `fit` as Keras does, "adam" being divtf's; the loss is the objective's: none is taken.

        Raises:
            InputError: if a loss is given, or XLA is asked for where it differentiates wrongly: its
                second-order gradient of max-pooling is not right.
        """
        if kwargs.get("loss") is not None:
            raise InputError(
                f"Expected no loss: the objective is the loss. Received: loss={kwargs['loss']!r}"
            )
        pooled = [member.name for member in self.members if _pools_by_maximum(member)]
        if jit_compile is True and isinstance(self.objective, GradientAlignment) and pooled:
            raise InputError(
                "Expected jit_compile=False: XLA differentiates max-pooling wrongly to second order. "
                f"Received: jit_compile=True with max-pooling in {pooled}"
            )
        optimizer = Adam() if optimizer == "adam" else optimizer
        super().compile(optimizer=optimizer, jit_compile=jit_compile is True, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as when the model was saved, with room for the optimizer's saved state."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(self, *args, **kwargs):
        """Train as `keras.Model.fit`; on several workers as `worker_fit.fit`, which takes less.

        Raises:
            InputError: if a label is out of range, or a loss or gradient is not finite; the trainable
                weights are then those before the offending step. On several machines also if `compile` was
                given metrics, which only all of them together could read.
        """
        several = team_of(self.distribute_strategy).has_several
        require(
            not (several and self._given_metrics()),
            "the ensemble's own measures only, on several machines",
            "['metrics given to compile']",
        )
        with step_checks.clear_errors(self.optimizer):
            return worker_fit.fit(self, *args, **kwargs) if several else super().fit(*args, **kwargs)

    def evaluate(self, *args, **kwargs):
        """Measure as `keras.Model.evaluate`; raises InputError if a label is out of range."""
        with step_checks.clear_errors(self.optimizer):
            return super().evaluate(*args, **kwargs)

    def train_step(self, data) -> dict[str, Any]:
        """One step on (images [B, H, W, C], labels [B]): the outer tape of Equation 9's gradient."""
        x, y = self._unpack(data)
        with tf.GradientTape() as tape:
            terms = replicas.terms(self.objective, self.members, x, y, training=True)
            penalty = self._penalty(terms.loss.dtype)
            scaled = self.optimizer.scale_loss(self._replica_share(terms.loss, penalty))
        gradients = tape.gradient(scaled, self.trainable_variables)
        replicas.share_statistics(self.members, tf.size(y))
        with tf.control_dependencies(self._finite(terms, gradients)):
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return self._measure(x, y, terms, penalty)

    def test_step(self, data) -> dict[str, Any]:
        """Measure one batch of (images [B, H, W, C], labels [B]) in inference mode."""
        x, y = self._unpack(data)
        terms = replicas.terms(self.objective, self.members, x, y, training=False)
        return self._measure(x, y, terms, self._penalty(terms.loss.dtype))

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The ensemble's own measures, then any that the user gave to `compile`."""
        return [*self._measures.values(), *self._given_metrics()]

    def get_metrics_result(self) -> dict[str, Any]:
        """Results of the measures that were updated in this phase."""
        results = super().get_metrics_result()
        idle = [
            name for name, measure in self._measures.items() if not tf.convert_to_tensor(measure.count) > 0
        ]
        return {name: result for name, result in results.items() if name not in idle}

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, serialised."""
        serialize = keras.saving.serialize_keras_object
        return super().get_config() | {
            "members": [serialize(member) for member in self.members],
            "objective": serialize(self.objective),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects=None) -> "Ensemble":
        """The inverse of `get_config`."""
        deserialize = keras.saving.deserialize_keras_object
        config = dict(config)
        members = [deserialize(member, custom_objects) for member in config.pop("members")]
        return cls(members, deserialize(config.pop("objective"), custom_objects), **config)

    def build_for_training(self) -> None:
        """Make the variables of the optimizer and of the metrics given to `compile`."""
        with self.distribute_strategy.scope():
            for metric in self._given_metrics():
                if not getattr(metric, "built", True):
                    metric.build(tf.zeros([1], tf.int64), tf.zeros([1, self.num_classes]))
            if self.optimizer is not None and not self.optimizer.built:
                self.optimizer.build(self.trainable_variables)

    def _given_metrics(self) -> list[keras.metrics.Metric]:
        """Metrics that the user gave to `compile`."""
        # Keras's own "loss" stays at zero under a custom train_step, and gives way to the measure.
        return [metric for metric in super().metrics if metric.name not in self._measures]

    def _unpack(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if y is None or sample_weight is not None:
            received = "no labels" if y is None else "sample weights"
            raise InputError(f"Expected (images, labels) batches. Received: {received}")
        x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)  # eager batches may be NumPy's
        # Members would take whole numbers as they are, and nothing has a gradient at them.
        require(x.dtype.is_floating, "images as floating-point numbers, as uint8 / 255.0", x.dtype.name)
        if not y.dtype.is_integer or (y.shape.rank == 2 and y.shape[-1] != 1) or y.shape.rank not in (1, 2):
            raise InputError(
                f"Expected labels as integer class indices of shape [batch]. "
                f"Received: {y.dtype.name} of shape {y.shape}"
            )
        return x, step_checks.in_range(tf.reshape(tf.cast(y, tf.int64), [-1]), self.num_classes)

    def _replica_share(self, losses: tf.Tensor, penalty: tf.Tensor) -> tf.Tensor:
        """This replica's part of the global batch's mean loss; Keras sums gradients over replicas."""
        # The last batch may be split unevenly, so a mean of replica means would be off.
        examples = tf.cast(tf.size(losses), losses.dtype)
        (total,) = replicas.sums([examples])
        return tf.reduce_sum(losses) / total + penalty * (examples / total)

    def _penalty(self, dtype: tf.DType) -> tf.Tensor:
        """Mean over the members of what their own regularisers, if any, add to the loss."""
        penalties = [tf.cast(penalty, dtype) for penalty in self.losses]
        return tf.add_n(penalties) / len(self.members) if penalties else tf.zeros([], dtype)

    def _finite(self, terms: Terms, gradients) -> Sequence[tf.Tensor]:
        """Checks that stop the step before it can spoil the weights."""
        quantities = {"cross_entropy": tf.reduce_sum(terms.cross_entropy), "loss": tf.reduce_sum(terms.loss)}
        # Loss scaling expects overflowing gradients and skips such steps by itself.
        if not isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            quantities["gradient norm"] = tf.linalg.global_norm(gradients)
        # Summed, they stop every replica at the same step, and none waits for another one's gradients.
        summed = replicas.sums(list(quantities.values()))
        return step_checks.are_finite(dict(zip(quantities, summed, strict=True)))

    def _measure(self, x, y, terms: Terms, penalty: tf.Tensor) -> dict[str, Any]:
        log_probability = _log_mean_probability(terms.logits)
        values = terms.means() | {"accuracy": _hits(log_probability, y)}
        values["loss"] += penalty
        for member, logits in zip(self.members, tf.unstack(terms.logits), strict=True):
            values[f"{member.name}_accuracy"] = _hits(logits, y)
        replicas.update_means(self._measures, values)
        results = {name: self._measures[name].result() for name in values}
        for metric in self._given_metrics():
            metric.update_state(y, log_probability)
            result = metric.result()
            results |= result if isinstance(result, dict) else {metric.name: result}
        return results


def _log_mean_probability(member_logits: tf.Tensor) -> tf.Tensor:
    """[N, B, C] -> [B, C], exact where probabilities underflow."""
    count = tf.cast(tf.shape(member_logits)[0], member_logits.dtype)
    return tf.reduce_logsumexp(tf.nn.log_softmax(member_logits), axis=0) - tf.math.log(count)


def _hits(logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.argmax(logits, axis=-1, output_type=y.dtype) == y, tf.float32)


def _pools_by_maximum(member: keras.Model) -> bool:
    return any("MaxPool" in type(node).__name__ for node in second_order.flat_operations(member))
