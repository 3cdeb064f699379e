"""Bad input to the library: one line each, of what was expected and what was received."""

from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import divtf
from divtf import InputError
from divtf.pipeline.config import RunConfig

ROOT = Path(__file__).parent
IMAGES = np.full((2, 4, 4, 1), 0.5, "float32")
EXAMPLES = tf.data.Dataset.from_tensor_slices((IMAGES, np.array([0, 1])))


def member(name="m", shape=(4, 4, 1), classes=3, activation=None, head=None):
    inputs = keras.Input(shape)
    x = layers.Dense(classes, activation)(layers.Flatten()(inputs))
    return keras.Model(inputs, head(x) if head else x, name=name)


def ensemble(*members):
    return divtf.Ensemble(members or [member("a"), member("b")], divtf.CrossEntropy())


def diverse(*parts):
    """An ensemble with GAL of two members that have these parts, with the same weights each time."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 1))
    x = layers.Conv2D(3, 2, activation="tanh")(inputs)
    for part in parts:
        x = part(x)
    outputs = layers.Dense(3)(layers.Flatten()(x))
    return divtf.Ensemble([keras.Model(inputs, outputs, name="mine"), member("other")])


def fit(labels, images=IMAGES, **options):
    made = ensemble()
    made.compile()
    made.fit(images, labels, verbose=0, **options)


def attack(images, labels=(0, 1), epsilon=0.1, target=None):
    divtf.make_attack("fgsm", divtf.ThreatModel(epsilon))(target or member("a"), images, np.array(labels))


def transfer(images=IMAGES, labels=(0, 1), attacks=(), surrogate=None, target=None, dataset=None, **options):
    dataset = (images, np.array(labels)) if dataset is None else dataset
    target = ensemble() if target is None else target
    divtf.evaluate_transfer(surrogate or ensemble(), target, dataset, attacks, **options)


def evaluated(labels):
    made = ensemble()
    made.compile()
    made.test_on_batch(IMAGES, labels)


def fit_generated():
    made = ensemble(keras.Sequential([layers.Flatten(), layers.Dense(3)]))
    made.compile()
    made.fit(((IMAGES, np.array([0, 1])) for _ in range(2)), verbose=0)


def lost():
    model = member("lost")
    model.set_weights([weight * np.nan for weight in model.get_weights()])
    return model


def export(format="saved_model", of=None, **options):
    divtf.export_model(of or ensemble(), ROOT / "new", format, **options)


def calibrate(images):
    export("litert", precision="int8", calibration=images)


def fgsm():
    return divtf.make_attack("fgsm", divtf.ThreatModel(0.1))


def dictionaries(**parts):
    return tf.data.Dataset.from_tensor_slices(parts).batch(2)


class OtherLibrarysClassifier:
    """As of a library for attacks, which has a method for everything and cannot be called."""

    def predict(self, x):
        return np.zeros((len(x), 3))


class Block(layers.Layer):
    """Normalises in its own code."""

    def __init__(self):
        super().__init__()
        self.inner = layers.LayerNormalization(name="inner")

    def call(self, inputs):
        return self.inner(inputs)


class NoConfiguration(keras.Model):
    """Cannot be made again."""

    def __init__(self, function):
        super().__init__(name="closed")
        self.function, self.dense = function, layers.Dense(3)

    def call(self, inputs):
        return self.dense(layers.Flatten()(self.function(inputs)))


CASES = {
    "member alone": lambda: divtf.Ensemble([member("a")]),
    "no members": lambda: divtf.Ensemble([], divtf.CrossEntropy()),
    "other input shapes": lambda: divtf.Ensemble([member("a"), member("b", (5, 5, 1))]),
    "other class counts": lambda: divtf.Ensemble([member("a"), member("b", classes=4)]),
    "probabilities": lambda: divtf.Ensemble([member("a"), member("b", activation="softmax")]),
    "sigmoid outputs": lambda: divtf.Ensemble([member("a"), member("b", activation="sigmoid")]),
    "no models": lambda: divtf.Ensemble([np.sin, np.cos]),
    "negative lambda": lambda: divtf.GradientAlignment(-0.5),
    "lambda in words": lambda: divtf.GradientAlignment("half"),
    "epsilon in words": lambda: divtf.ThreatModel("small"),
    "lambda NaN": lambda: divtf.GradientAlignment(float("nan")),
    "negative epsilon": lambda: divtf.ThreatModel(-0.1),
    "epsilon NaN": lambda: divtf.ThreatModel(float("nan")),
    "other norm": lambda: divtf.ThreatModel(0.1, norm="l2"),
    "empty range": lambda: divtf.ThreatModel(0.1, clip_min=1.0, clip_max=0.0),
    "unknown attack": lambda: divtf.make_attack("deepfool", divtf.ThreatModel(0.1)),
    "unknown parameter": lambda: divtf.make_attack("ifgsm", divtf.ThreatModel(0.1), stepz=3),
    "images above 1": lambda: attack(IMAGES + 1),
    "images below 0": lambda: attack(IMAGES - 1),
    "images of 255": lambda: attack(IMAGES * 255),
    "NaN pixels": lambda: attack(IMAGES * np.nan),
    "clean images of 255": lambda: transfer(IMAGES * 255),
    "other clean images of 255": lambda: transfer(IMAGES, clean=(IMAGES * 255, np.array([0, 1]))),
    "clean images NaN": lambda: transfer(IMAGES * np.nan),
    "clean label too large": lambda: transfer(IMAGES, (0, 9)),
    "clean label negative": lambda: transfer(IMAGES, (0, -1)),
    "too few labels": lambda: attack(IMAGES, (0,)),
    "no images": lambda: attack(IMAGES[:0], ()),
    "label too large": lambda: fit(np.array([0, 3])),
    "label negative": lambda: fit(np.array([0, -1])),
    "NaN in training": lambda: fit(np.array([0, 1]), IMAGES * np.nan),
    "unknown model": lambda: divtf.build_member("conv5", (28, 28, 1), 10),
    "members of no model": lambda: divtf.build_members("nets:", 2, (28, 28, 1), 10, seed=0),
    "members of no module": lambda: divtf.build_members("no_such.module:net", 2, (8, 8, 1), 3, seed=0),
    "members of no file": lambda: divtf.build_members("none.keras", 1, (8, 8, 1), 3, seed=0),
    "members of no application": lambda: divtf.build_members("keras:Net", 2, (32, 32, 3), 3, seed=0),
    "an activation for an own model": lambda: divtf.build_members(
        "nets:net", 2, (8, 8, 1), 3, seed=0, activation="relu"
    ),
    "a precision for files": lambda: divtf.build_members(
        "a.keras", 1, (8, 8, 1), 3, seed=0, dtype="mixed_bfloat16"
    ),
    "a slope that is none for an own model": lambda: RunConfig(
        model="nets:net", dataset="mnist", epochs=1, negative_slope=0.5
    ),
    "an own model without epochs": lambda: RunConfig(model="nets:net", dataset="mnist"),
    "an own model without a data set": lambda: RunConfig(model="nets:net", epochs=1),
    "a configuration of no file": lambda: RunConfig(model="none.keras", dataset="mnist", epochs=1),
    "tiny images": lambda: divtf.build_member("conv3", (2, 2, 1), 10),
    "one class": lambda: divtf.build_member("conv3", (28, 28, 1), 1),
    "unknown data set": lambda: divtf.load_dataset("imagenet"),
    "unknown field": lambda: RunConfig.from_json({"colour": "red"}),
    "configuration out of range": lambda: divtf.run(RunConfig(epochs=0)),
    "a model for members": lambda: divtf.Ensemble(member("a")),
    "the objective's class": lambda: divtf.Ensemble([member("a"), member("b")], divtf.GradientAlignment),
    "objective in words": lambda: divtf.Ensemble([member("a"), member("b")], "gal"),
    "epsilon of 8 in 255": lambda: divtf.ThreatModel(8),
    "epsilon for a threat model": lambda: divtf.make_attack("fgsm", 0.1),
    "surrogate with softmax": lambda: transfer(IMAGES, (0, 1), [fgsm()], member("p", activation="softmax")),
    "surrogate NaN": lambda: transfer(IMAGES, (0, 1), [fgsm()], lost()),
    "target NaN": lambda: transfer(IMAGES, target=lost()),
    "attack in words": lambda: transfer(IMAGES, attacks=["fgsm"]),
    "surrogate of another shape": lambda: transfer(IMAGES, (0, 1), [fgsm()], member("s", (5, 5, 1))),
    "target of another shape": lambda: transfer(IMAGES, target=member("s", (4, 4, 3))),
    "label too large for a plain target": lambda: transfer(IMAGES, (0, 4), target=member("t", classes=4)),
    "no images at a time": lambda: transfer(IMAGES, batch_size=0),
    "data set of single images": lambda: transfer(IMAGES, dataset=EXAMPLES),
    "endless data set": lambda: transfer(IMAGES, dataset=EXAMPLES.batch(2).repeat()),
    "export of a plain model": lambda: divtf.export_saved_model(member("a"), ROOT / "new"),
    "export of a list of members": lambda: divtf.export_model([member("a"), member("b")], ROOT / "new"),
    "export of members not built": lambda: export(of=ensemble(keras.Sequential([layers.Dense(3)]))),
    "export to an unknown format": lambda: export("tflite"),
    "export to a format of another type": lambda: export(["onnx"]),
    "export over a directory": lambda: divtf.export_model(ensemble(), ROOT, "onnx"),
    "export below a file": lambda: divtf.export_model(ensemble(), Path(__file__) / "new", "litert"),
    "an unknown precision": lambda: export("litert", precision="int4"),
    "a precision of another format": lambda: export("onnx", precision="float16"),
    "a SavedModel in int8": lambda: export(precision="int8", calibration=IMAGES),
    "int8 without calibration": lambda: export("litert", precision="int8"),
    "calibration of float32": lambda: export("litert", calibration=IMAGES),
    "calibration of another shape": lambda: calibrate(IMAGES[:, :3]),
    "calibration by one image": lambda: calibrate(IMAGES[0]),
    "calibration by no images": lambda: calibrate(IMAGES[:0]),
    "calibration by whole numbers": lambda: calibrate((IMAGES * 255).astype("uint8")),
    "calibration by NaN": lambda: calibrate(IMAGES * np.nan),
    "calibration by infinity": lambda: calibrate(np.full_like(IMAGES, np.inf)),
    "calibration by words": lambda: calibrate("images"),
    "calibration by a ragged list": lambda: calibrate([[1.0], [1.0, 2.0]]),
    "uint8 to ONNX": lambda: export("onnx", uint8=True),
    "uint8 in words": lambda: export(uint8="yes"),
    "labels of an export without images": lambda: export("onnx", labels=np.array([0, 1])),
    "too few labels of an export": lambda: export("onnx", images=IMAGES, labels=np.array([0])),
    "labels of an export beyond the classes": lambda: export("onnx", images=IMAGES, labels=np.array([0, 3])),
    "images of an export of another shape": lambda: export("onnx", images=IMAGES[..., 0]),
    "ONNX of members in bfloat16": lambda: export(
        "onnx",
        of=divtf.Ensemble(divtf.build_members("conv3", 2, (4, 4, 1), 3, seed=0, dtype="mixed_bfloat16")),
    ),
    "configuration as a mapping": lambda: divtf.run({"model": "conv3"}),
    "export over a file": lambda: divtf.export_saved_model(divtf.Ensemble([member("a"), member("b")]), ROOT),
    # Members.
    "an ensemble in words": lambda: divtf.Ensemble("conv3"),
    "a number for members": lambda: divtf.Ensemble(3),
    "a softmax by operations": lambda: ensemble(member(head=keras.ops.softmax)),
    "a softmax times 0.9": lambda: ensemble(member(head=lambda x: 0.9 * keras.ops.softmax(x))),
    "a sigmoid by operations": lambda: ensemble(member(head=keras.ops.sigmoid)),
    "the same member twice": lambda: ensemble(*[member()] * 2),
    "NaN weights": lambda: ensemble(lost()),
    "a member of float16": lambda: ensemble(
        keras.Sequential([keras.Input((4,)), layers.Dense(3, dtype="float16")])
    ),
    "a member of whole numbers": lambda: diverse(layers.Flatten(), layers.Embedding(5, 3)),
    "Keras's BatchNormalization": lambda: diverse(layers.BatchNormalization()),
    "Keras's LayerNormalization": lambda: diverse(layers.LayerNormalization()),
    "Keras's GroupNormalization": lambda: diverse(layers.Conv2D(4, 1), layers.GroupNormalization(2)),
    "bilinear resizing": lambda: diverse(layers.Resizing(6, 6)),
    "resizing by the nearest": lambda: diverse(layers.Resizing(6, 6, interpolation="nearest")),
    "bilinear upsampling": lambda: diverse(
        layers.Conv2D(2, 3, padding="same"), layers.UpSampling2D(2, interpolation="bilinear")
    ),
    "softsign": lambda: diverse(layers.Activation("softsign")),
    "moments": lambda: diverse(lambda x: x / keras.ops.moments(x, axes=[1, 2, 3], keepdims=True)[1]),
    "a block that normalises": lambda: diverse(Block()),
    "a model that cannot be made again": lambda: divtf.Ensemble(
        [NoConfiguration(lambda x: x) for _ in range(2)]
    ).build((None, 4, 4, 1)),
    "no converting a subclass": lambda: divtf.convert_member(NoConfiguration(tf.nn.relu)),
    "no converting an ensemble": lambda: divtf.convert_member(ensemble()),
    "no converting a list": lambda: divtf.convert_member([member()]),
    "no converting a block": lambda: divtf.convert_member(
        keras.Sequential([keras.Input((4,)), Block(), layers.Dense(3)])
    ),
    "padding to an aspect ratio": lambda: divtf.Resizing(4, 4, pad_to_aspect_ratio=True),
    "resizing images of any size": lambda: divtf.Resizing(4, 4)(keras.Input((None, None, 1))),
    # Labels and weights.
    "label smoothing of 1": lambda: divtf.CrossEntropy(label_smoothing=1),
    "negative label smoothing": lambda: divtf.GradientAlignment(label_smoothing=-0.1),
    "label smoothing in words": lambda: divtf.CrossEntropy(label_smoothing="some"),
    "labels between classes": lambda: fit(np.array([0.5, 1.0])),
    "labels NaN": lambda: fit(np.array([0.0, np.nan])),
    "labels of other classes": lambda: fit(np.eye(4)[[0, 1]]),
    "two-hot labels": lambda: fit(np.array([[1, 1, 0], [1, 0, 0]])),
    "negative soft labels": lambda: fit(np.array([[1.5, -0.5, 0], [1, 0, 0]])),
    "labels as logits": lambda: fit(np.array([[3.0, 1.0, 2.0], [0.1, 0.2, 0.3]])),
    "labels of images": lambda: fit(np.zeros((2, 4, 4))),
    "no labels": lambda: fit(None),
    "weights of classes for examples": lambda: fit(np.array([0, 1]), sample_weight=np.ones((2, 3))),
    "weights NaN": lambda: fit(np.array([0, 1]), sample_weight=np.array([1, np.nan])),
    "weights of the loss": lambda: ensemble().compile(loss_weights=[1.0]),
    "a loss": lambda: ensemble().compile(loss="mse"),
    # Targets, surrogates and data.
    "another library's target": lambda: transfer(target={"t": OtherLibrarysClassifier()}),
    "another library's surrogate": lambda: transfer(attacks=[fgsm()], surrogate=OtherLibrarysClassifier()),
    "a class for a target": lambda: transfer(target={"t": keras.Model}),
    "a target in words": lambda: transfer(target={"t": "conv3"}),
    "an empty list for a target": lambda: transfer(target={"t": []}),
    "a list with a name": lambda: attack(IMAGES, target=[member(), "b"]),
    "an object that holds no model": lambda: attack(IMAGES, target=SimpleNamespace(ensemble=None)),
    "targets of one name": lambda: transfer(target=[member("t"), member("t")]),
    "labels between classes to attack": lambda: attack(IMAGES, (0.5, 1.0)),
    "two-hot labels to attack": lambda: attack(IMAGES, ((1, 1, 0), (1, 0, 0))),
    "labels of two columns": lambda: transfer(labels=((0, 1), (2, 1))),
    "elements without labels": lambda: transfer(dataset=dictionaries(image=IMAGES)),
    "elements of other names": lambda: transfer(dataset=dictionaries(x=IMAGES, y=np.array([0, 1]))),
    "elements of four": lambda: transfer(
        dataset=tf.data.Dataset.from_tensor_slices((IMAGES, np.array([0, 1]), np.ones(2), np.ones(2))).batch(
            2
        )
    ),
    "gradients of one model": lambda: divtf.gradient_statistics(member(), IMAGES, np.array([0, 1])),
    "subspaces of no model": lambda: divtf.gaas("conv3", IMAGES, np.array([0, 1])),
    "images of 255.5 in 255": lambda: divtf.make_attack("fgsm", divtf.ThreatModel(8, clip_max=255))(
        member(), IMAGES * 511, np.array([0, 1])
    ),
    "a softmax in a list": lambda: transfer(
        attacks=[fgsm()], surrogate=[member("a"), member("p", activation="softmax")]
    ),
    "other classes in a list": lambda: transfer(
        attacks=[fgsm()], surrogate=[member("a"), member("b", classes=4)]
    ),
    "a surrogate without a gradient": lambda: attack(IMAGES, target=lambda x: np.zeros((len(x), 3))),
    "images of another shape to attack": lambda: attack(IMAGES[:, :3]),
    "subspaces of a softmax": lambda: divtf.gaas(member(activation="softmax"), IMAGES, np.array([0, 1])),
    "subspaces without a gradient": lambda: divtf.gaas(
        lambda x: np.zeros((len(x), 3)), IMAGES, np.array([0, 1])
    ),
    "subspaces at images of another shape": lambda: divtf.gaas(member(), IMAGES[:, :3], np.array([0, 1])),
    "gradients of a softmax": lambda: divtf.gradient_statistics(
        [member(activation="softmax"), member()], IMAGES, np.array([0, 1])
    ),
    "gradients at labels of other classes": lambda: divtf.gradient_statistics(
        [member(), member()], IMAGES, np.array([0, 9])
    ),
    "gradients at too few labels": lambda: divtf.gradient_statistics([member()] * 2, IMAGES, np.array([0])),
    "gradients at no images": lambda: divtf.gradient_statistics([member()] * 2, IMAGES[:0], np.zeros(0, int)),
    "gradients of a list of one": lambda: divtf.gradient_statistics([member()], IMAGES, np.array([0, 1])),
    "members of two precisions": lambda: ensemble(
        member(),
        keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(3, dtype="float64")]),
    ),
    "labels of a batch beyond the classes": lambda: evaluated(np.array([0, 9])),
    "images from a generator for members not built": lambda: fit_generated(),
    # Runs.
    "no run": lambda: divtf.load_run(None),
    "a run that is not there": lambda: divtf.load_run(ROOT / "nothing"),
    "a run that is a file": lambda: divtf.load_run(__file__),
    "a directory without a run": lambda: divtf.load_run(ROOT),
    "the surrogate of no run": lambda: divtf.load_surrogate(ROOT),
}


@pytest.mark.parametrize("case", CASES)
def test_library_refuses_with_a_value_error_in_one_line(case):
    with pytest.raises(ValueError, match=r"^Expected .*Received: .+") as raised:
        CASES[case]()
    assert isinstance(raised.value, InputError)
    assert "\n" not in str(raised.value)
