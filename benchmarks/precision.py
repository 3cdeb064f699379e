"""Measure the gradient that bfloat16 gives: python -m benchmarks.precision [--models=conv3,conv4,resnet20].

The same weights and images, once in float32 and once in mixed_bfloat16: how far apart are the parameter
gradients that a training step takes? One gradient of all members, compared in float64. With --steps the
weights are trained by Equation 9 in float32 first, since those of a new network are not typical.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import app, flags

from benchmarks import options
from benchmarks.timing import Row, write_tables
from divtf import (
    CrossEntropy,
    Ensemble,
    GradientAlignment,
    build_members,
    gradient_alignment_loss,
    input_gradients,
    load_dataset,
)
from divtf.data.images import as_float
from divtf.data.paper import SETUPS

MODELS = options.models(["conv3"], "Models to measure.")
MEMBERS = flags.DEFINE_integer("num_members", 5, "Members of an ensemble.", lower_bound=2)
BATCH = flags.DEFINE_integer("batch_size", 128, "Images of the gradient.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 0, "Steps to train before, in float32.", lower_bound=0)
DATASET = flags.DEFINE_string("dataset", None, "Data set; default: the paper's for each model.")
DATA_DIR = flags.DEFINE_string("data_dir", None, "Data directory of tensorflow-datasets.")
OUTPUT = flags.DEFINE_string("output", None, "Write PATH.json and, for reading, PATH.md.")


def parameter_gradient(members, loss) -> np.ndarray:
    """The gradient of `loss(members)` in every trainable weight, as one vector in float64."""
    variables = [variable for member in members for variable in member.trainable_variables]

    @tf.function
    def gradient():
        with tf.GradientTape() as tape:
            value = loss(members)
        # GAL does not depend on the last layers' biases: no gradient is a gradient of zero.
        return tape.gradient(value, variables, unconnected_gradients="zero")

    # Concrete, it is not mistaken for needless retracing.
    parts = gradient.get_concrete_function()()
    return np.concatenate([np.asarray(part, "float64").ravel() for part in parts])


def relative_error(found: np.ndarray, exact: np.ndarray) -> float:
    """Length of the difference over the length of the exact vector."""
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def cosine(found: np.ndarray, exact: np.ndarray) -> float:
    return float(found @ exact / (np.linalg.norm(found) * np.linalg.norm(exact)))


def losses(x, y) -> dict:
    """What may be differentiated, as functions of the members: the objectives, and GAL alone."""

    def gal(members):
        return tf.reduce_mean(gradient_alignment_loss(input_gradients(members, x, y, training=True)[2]))

    return {
        "cross-entropy": lambda members: tf.reduce_mean(CrossEntropy()(members, x, y, training=True).loss),
        "GAL": gal,
        "Equation 9": lambda members: tf.reduce_mean(GradientAlignment()(members, x, y, training=True).loss),
    }


def measure(model: str, data, count: int, batch: int, steps: int) -> dict[str, float]:
    """Errors of the gradients of one model's ensemble on one batch of training images."""

    def members(dtype: str):
        return build_members(model, count, data.spec.image_shape, data.spec.num_classes, seed=0, dtype=dtype)

    exact, narrow = members("float32"), members("mixed_bfloat16")
    x, y = as_float(data.x_train), data.y_train
    if steps:
        ensemble = Ensemble(exact, GradientAlignment())
        ensemble.compile("adam")
        batches = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=0).repeat().batch(batch)
        ensemble.fit(batches, steps_per_epoch=steps, verbose=0)
    for one, other in zip(exact, narrow, strict=True):
        other.set_weights(one.get_weights())
    figures = {}
    for name, loss in losses(tf.constant(x[:batch]), tf.constant(y[:batch])).items():
        right, found = parameter_gradient(exact, loss), parameter_gradient(narrow, loss)
        figures[f"{name}: relative error"] = relative_error(found, right)
        figures[f"{name}: cosine"] = cosine(found, right)
    return figures


def main() -> None:
    results = {}
    for model in MODELS.value:
        dataset = DATASET.value or SETUPS[model].dataset
        data = load_dataset(dataset, data_dir=DATA_DIR.value)
        budget = f"{MEMBERS.value} members, batch {BATCH.value}, {STEPS.value} steps trained, {dataset}"
        print(f"{model}: mixed_bfloat16 against float32, {budget}", flush=True)
        results[model] = measure(model, data, MEMBERS.value, BATCH.value, STEPS.value)
        for name, value in results[model].items():
            print(f"  {name:<30} {value:9.5f}", flush=True)
    if OUTPUT.value:
        budget = {"members": MEMBERS.value, "batch size": BATCH.value, "steps trained": STEPS.value}
        tables = {model: [Row(*figure) for figure in figures.items()] for model, figures in results.items()}
        write_tables(
            Path(OUTPUT.value), "The gradient of mixed_bfloat16 against that of float32", budget, tables
        )


if __name__ == "__main__":
    app.run(lambda _: main())
