"""The ensemble: members trained together by one objective, predicting by their mean probability."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from divtf.ensembles import step_checks, step_gradients
from divtf.ensembles.adam import Adam
from divtf.ensembles.labels import checked_labels, likeliest_class
from divtf.ensembles.members import (
    accuracy_names,
    check_gradients,
    check_members,
    check_objective,
    common_input_shape,
    listed,
    require_floating_inputs,
    second_order,
)
from divtf.ensembles.objectives.gal import GradientAlignment
from divtf.ensembles.objectives.objective import Memberwise, Objective
from divtf.ensembles.objectives.perturbed import Perturbed
from divtf.ensembles.objectives.terms import Terms
from divtf.ensembles.weights import Weights, checked_weights
from divtf.errors import InputError, require
from divtf.networks.conversion import parts_of
from divtf.networks.logits import at_least_float32, log_mean_probability
from divtf.networks.models import made_as, remember
from divtf.runtime import replicas, worker_fit
from divtf.runtime.private_names import BuildsItself, layers_of
from divtf.runtime.workers import team_of

# Reported as means over all examples, whatever the weights of their cross-entropy.
_OF_ALL = ("loss", "gal", "coherence", "diversity")


@keras.saving.register_keras_serializable(package="divtf")
class Ensemble(BuildsItself, keras.Model):
    """Keras members trained together, served as one classifier.

    Args:
        members: Keras models of images [H, W, C], or signals [T, C], or feature vectors [D], that give the
            same number of logits; at least 2 of them for GradientAlignment. Functional, Sequential or
            subclassed; those that are not built yet are built by the first images.
        objective: what `fit` minimises: `CrossEntropy()`, `GradientAlignment(weight)`, one of
            `make_objective`, or an object of your own that is called like them. Without one,
            GradientAlignment with the paper's weight.
        name: Keras name.
        check: whether to measure the members, unless `build_member` made them: that they give logits, and for
            objectives of second order, as GradientAlignment, that their gradients are exact to it. See
            `ensembles.exactness`.
        memory: "low" trains by one member after the other, which takes more time and hardly more memory for
            more members; the same numbers to rounding. See `ensembles.step_gradients`.

    `fit`, `evaluate` and TensorBoard report loss, cross_entropy, accuracy (of the ensemble) and
    <member>_accuracy (<member>_<position>_accuracy where members share a name); gal and coherence too, except
    in training by CrossEntropy and others that do not compute them; diversity, which other objectives add to
    the cross-entropy. Labels are class indices [B] or [B, 1], or one-hot or soft [B, C]; sample_weight and
    class_weight weigh an example's whole loss, GAL included, and the mean is over the examples, as in Keras;
    sample_weight={"cross_entropy": [B]} weighs that term alone, and the reported cross_entropy and
    accuracies. Call gives the log of the mean probability [B, C], which losses and attacks may take for
    logits: its softmax is the probability. Images may be of any type and range that the members take; attacks
    and transfer evaluation hold them to [0, 1].

    Raises:
        InputError: if the members do not fit together or to the objective; when they are built at the latest.

    Source: Equation 9 and section 3.3.
    """

    def __init__(
        self,
        members: Sequence[keras.Model],
        objective: Callable[..., Terms] | None = None,
        name: str | None = None,
        *,
        check: bool = True,
        memory: str | None = None,
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.objective: Any = GradientAlignment() if objective is None else objective
        self.members = listed(members)
        self.memory = memory
        require(memory in (None, "low"), "memory as low or None", f"memory={memory!r}")
        self._check_objective()
        self._check = check
        self._label_shape: tuple[int | None, ...] = ()  # Of one label that `fit` was given last.
        # Which layers were trained when the members were last measured.
        self._exact_with: list[bool] | None = None
        self._accuracies = accuracy_names(self.members)
        names = [*_OF_ALL, "cross_entropy", "accuracy", *self._accuracies]
        self._measures = {name: replicas.ReplicatedMean(name=name) for name in names}
        if (shape := common_input_shape(self.members)) is not None:
            self.build(shape)

    def build(self, input_shape) -> None:
        """Make ready for images [batch, ...]: build members that are not, and check all of them."""
        self._input_shape = tuple(input_shape)
        if self._check:
            check_members(self.members, input_shape)
        for member in self.members:
            if not member.built:
                member(keras.Input(batch_shape=input_shape))
        self._check_gradients()
        given = self.members[0].compute_output_spec(keras.KerasTensor(input_shape, "float32"))
        # keras.Model(x, [y]) tells a list, though a call gives the tensor.
        self.num_classes = keras.tree.flatten(given)[0].shape[-1]
        self._check_objective()

    def _check_objective(self) -> None:
        """Hold the objective, which may be another one by now, to the members and to the way of training."""
        check_objective(self.objective, len(self.members))
        require(
            self.memory is None or isinstance(self.objective, Memberwise),
            "an objective of what each member gives by itself for memory='low', as GradientAlignment",
            type(self.objective).__name__,
        )
        classes_known = hasattr(self, "num_classes")  # Once the members are built.
        if classes_known and hasattr(self.objective, "require_members"):
            self.objective.require_members(self.members, self.num_classes)

    def member_logits(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Logits of every member, [N, B, C], float32 or wider, for images [B, H, W, C]."""
        return tf.stack([at_least_float32(member(x, training=training)) for member in self.members])

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Log of the mean member probability, [B, C], for images [B, H, W, C]."""
        return log_mean_probability(self.member_logits(x, training=training))

    def compile(self, optimizer="adam", *, jit_compile: bool | str = False, **kwargs) -> None:
        """Configure `fit` as Keras does, "adam" being divtf's; the loss is the objective's: none is taken.

        With jit_compile=True XLA compiles what takes time, the terms and their gradients; a step's checks,
        which it would leave out, and the optimizer stay outside.

        Raises:
            InputError: if a loss or loss weights are given, or XLA is asked for where it differentiates
                wrongly: its second-order gradient of max-pooling is not right; with memory="low"; or on
                several devices.
        """
        for given in ("loss", "loss_weights"):
            value = kwargs.get(given)
            require(value is None, f"no {given}: the objective is the loss", f"{given}={value!r}")
        pooled = [member.name for member in self.members if _pools_by_maximum(member)]
        if jit_compile is True and second_order(self.objective) and pooled:
            raise InputError(
                "Expected jit_compile=False: XLA differentiates max-pooling wrongly to second order. "
                f"Received: jit_compile=True with max-pooling in {pooled}"
            )
        self._check_objective()
        in_vain = jit_compile is True and self.memory == "low"
        require(
            not in_vain, "jit_compile=False with memory='low': XLA keeps as much with it", "jit_compile=True"
        )
        alone = self.distribute_strategy.num_replicas_in_sync == 1
        require(alone or jit_compile is not True, "jit_compile=False on several devices", "jit_compile=True")
        optimizer = Adam() if optimizer == "adam" else optimizer
        super().compile(optimizer=optimizer, jit_compile=False, **kwargs)
        self._by_xla = jit_compile is True

    def get_compile_config(self) -> dict[str, Any] | None:
        """Arguments of `compile`, serialised; None before it was called."""
        config = super().get_compile_config()
        return config and config | {"jit_compile": self._by_xla}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as when the model was saved, with room for the optimizer's saved state."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(self, x=None, y=None, *args, **kwargs):
        """Train as `keras.Model.fit`; on several workers as `worker_fit.fit`, which takes less.

        Raises:
            InputError: if a label is none, or a loss or gradient is not finite; the trainable
                weights are then those before the offending step. On several machines also if `compile` was
                given metrics, which only all of them together could read.
        """
        several = team_of(self.distribute_strategy).has_several
        require(
            not (several and self._given_metrics()),
            "the ensemble's own measures only, on several machines",
            "['metrics given to compile']",
        )
        self._build_for(x, y)
        self._check_gradients()
        with step_checks.clear_errors(self.optimizer):
            return worker_fit.fit(self, x, **kwargs) if several else super().fit(x, y, *args, **kwargs)

    def evaluate(self, x=None, y=None, *args, **kwargs):
        """Measure as `keras.Model.evaluate`; raises InputError if a label is none."""
        self._build_for(x, y)
        with step_checks.clear_errors(self.optimizer):
            return super().evaluate(x, y, *args, **kwargs)

    def predict(self, x, *args, **kwargs):
        """Log of the mean member probability of all images, [n, C], as `keras.Model.predict`."""
        self._build_for(x)
        return super().predict(x, *args, **kwargs)

    def train_on_batch(self, x, *args, **kwargs):
        """Train as `keras.Model.train_on_batch`; raises InputError as `fit` does."""
        self._build_for(x)
        self._check_gradients()
        with step_checks.clear_errors(self.optimizer):
            return super().train_on_batch(x, *args, **kwargs)

    def test_on_batch(self, x, *args, **kwargs):
        """Measure as `keras.Model.test_on_batch`; raises InputError if a label is none."""
        self._build_for(x)
        with step_checks.clear_errors(self.optimizer):
            return super().test_on_batch(x, *args, **kwargs)

    def train_step(self, data) -> dict[str, Any]:
        """One step on (images [B, H, W, C], labels [B]): the outer tape of Equation 9's gradient."""
        x, y, weights = self._unpack(data)
        if isinstance(self.objective, Objective):
            x = self.objective.checked(x)
        take = step_gradients.together if self.memory is None else step_gradients.one_by_one
        if self._by_xla:
            take = step_gradients.by_xla(take)
        terms, penalty, gradients = take(
            self.objective, self.members, self.optimizer.scale_loss, x, y, weights
        )
        replicas.share_statistics(self.members, tf.shape(y)[0])
        with tf.control_dependencies(self._finite(terms, gradients)):
            if gradients:  # Keras takes models that are frozen altogether.
                self.optimizer.apply_gradients(
                    zip(gradients, step_gradients.variables_of(self.members), strict=True)
                )
        return self._measure(y, weights, terms, penalty)

    def test_step(self, data) -> dict[str, Any]:
        """Measure one batch of (images [B, H, W, C], labels [B]) in inference mode."""
        x, y, weights = self._unpack(data)
        terms = step_gradients.terms_of(self.objective, self.members, x, y, weights, training=False)
        penalty = step_gradients.penalty(self.members, len(self.members), terms.loss.dtype)
        return self._measure(y, weights, terms, penalty)

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
            "made_as": [made_as(member) for member in self.members],
            "objective": serialize(self.objective),
            "name": self.name,
            "check": self._check,
            "memory": self.memory,
            "is_checked": self.built,
            "is_exact": self._exact_with is not None,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects=None) -> "Ensemble":
        """The inverse of `get_config`."""
        deserialize = keras.saving.deserialize_keras_object
        config = dict(config)
        members = [deserialize(member, custom_objects) for member in config.pop("members")]
        for member, made in zip(members, config.pop("made_as", ()), strict=False):
            remember(member, made)
        objective = deserialize(config.pop("objective"), custom_objects)
        # Until 0.2.0 all members were checked when the ensemble was made.
        check, is_checked = config.pop("check", True), config.pop("is_checked", True)
        is_exact = config.pop("is_exact", isinstance(objective, GradientAlignment))
        ensemble = cls(members, objective, check=check and not is_checked, **config)
        ensemble._check = check
        ensemble._exact_with = ensemble._trained_layers() if is_exact else None
        return ensemble

    def save_own_variables(self, store) -> None:
        """The states of the generators in the members' layers, as Dropout's: Keras's files leave them out."""
        for number, state in enumerate(self._random_states()):
            store[f"random_state_{number}"] = state.numpy()

    def load_own_variables(self, store) -> None:
        """The inverse of `save_own_variables`; files of 0.2.0 and before have none."""
        for number, state in enumerate(self._random_states()):
            if f"random_state_{number}" in store:
                state.assign(store[f"random_state_{number}"])

    def _random_states(self) -> list[keras.Variable]:
        return [each for each in self.non_trainable_variables if each.path.endswith("seed_generator_state")]

    def _check_gradients(self) -> None:
        """Hold the members to exact gradients, unless they were measured as they are trained now."""
        if second_order(self.objective) or isinstance(self.objective, Perturbed):
            require_floating_inputs(self.members)
        trained = self._trained_layers()
        if self._check and second_order(self.objective) and trained != self._exact_with:
            check_gradients(self.members, self._input_shape)
            self._exact_with = trained

    def _trained_layers(self) -> list[bool]:
        return [layer.trainable for member in self.members for layer in layers_of(member)]

    def _build_for(self, x, y=None) -> None:
        """Build by images in any form that tells their shape: an array, or a data set of batches."""
        if isinstance(x, tf.data.Dataset):
            x, y, _ = keras.utils.unpack_x_y_sample_weight(x.element_spec)
        elif isinstance(x, keras.utils.PyDataset):
            x, y, _ = keras.utils.unpack_x_y_sample_weight(x[0])
        self._label_shape = _shape_of_one(y) or ()
        shape = _shape_of_one(x)
        if not self.built and shape is not None:
            self.build((None, *shape))

    def build_for_training(self) -> None:
        """Make the variables of the optimizer and of the metrics given to `compile`."""
        unbuilt = [member.name for member in self.members if not member.built]
        require(self.built, "built members: ensemble.build((None, ...)) builds them", f"{unbuilt} not built")
        several = self.distribute_strategy.num_replicas_in_sync > 1
        with self.distribute_strategy.scope():
            for metric in self._given_metrics() if several else ():
                if not getattr(metric, "built", True):
                    labels = tf.zeros([1, *self._label_shape])
                    metric.build(labels, tf.zeros([1, self.num_classes]))
            if self.optimizer is not None and not self.optimizer.built:
                self.optimizer.build(self.trainable_variables)

    def _given_metrics(self) -> list[keras.metrics.Metric]:
        """Metrics that the user gave to `compile`."""
        # Keras's own "loss" stays at zero under a custom train_step, and gives way to the measure.
        return [metric for metric in super().metrics if metric.name not in self._measures]

    def _unpack(self, data):
        """Floating images [B, ...], labels as `checked_labels` has them, and their weights."""
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        require(y is not None, "(images, labels) batches", "no labels")
        x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)  # eager batches may be NumPy's
        # Nothing has a gradient at whole numbers, and in float16 gradients underflow; members that rescale
        # images take others as well.
        if not x.dtype.is_floating or x.dtype == tf.float16:
            x = tf.cast(x, tf.float32)
        return x, checked_labels(y, self.num_classes), checked_weights(weights)

    def _finite(self, terms: Terms, gradients) -> Sequence[tf.Tensor]:
        """Checks that stop the step before it can spoil the weights."""
        quantities = {"cross_entropy": tf.reduce_sum(terms.cross_entropy), "loss": tf.reduce_sum(terms.loss)}
        # Loss scaling expects overflowing gradients and skips such steps by itself.
        if not isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            dtype = terms.loss.dtype
            quantities["gradient norm"] = tf.linalg.global_norm([tf.cast(each, dtype) for each in gradients])
        # Summed, they stop every replica at the same step, and none waits for another one's gradients.
        summed = replicas.sums(list(quantities.values()))
        return step_checks.are_finite(dict(zip(quantities, summed, strict=True)))

    def _measure(self, y, weights: Weights, terms: Terms, penalty: tf.Tensor) -> dict[str, Any]:
        log_probability, classes = log_mean_probability(terms.logits), likeliest_class(y)
        values = terms.means() | {"accuracy": _hits(log_probability, classes)}
        values["loss"] += penalty
        for name, logits in zip(self._accuracies, tf.unstack(terms.logits), strict=True):
            values[name] = _hits(logits, classes)
        of_class = [name for name in values if name not in _OF_ALL]
        replicas.update_means(self._measures, values, dict.fromkeys(of_class, weights.cross_entropy))
        results = {name: self._measures[name].result() for name in values}
        for metric in self._given_metrics():
            metric.update_state(y, log_probability, sample_weight=weights.for_metrics)
            result = metric.result()
            results |= result if isinstance(result, dict) else {metric.name: result}
        return results


def _shape_of_one(batch: Any) -> tuple[int | None, ...] | None:
    """The shape of one example of an array, tensor or what specifies one; None if it does not tell."""
    shape = getattr(batch, "shape", None)
    return None if shape is None or getattr(shape, "rank", 1) is None else tuple(shape)[1:]


def _hits(logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.argmax(logits, axis=-1, output_type=y.dtype) == y, tf.float32)


def _pools_by_maximum(member: keras.Model) -> bool:
    return any("MaxPool" in type(node).__name__ for node in parts_of(member))
