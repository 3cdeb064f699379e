"""Which layers, operations and architectures of Keras are exact to second order: measured, as a table.

python -m benchmarks.exactness writes benchmarks/results/exactness.md.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from divtf.ensembles.exactness import measure
from divtf.ensembles.slopes import TOLERANCE
from divtf.errors import InputError
from divtf.networks.conversion import convert_member
from divtf.storage import checked_json, files
from divtf.storage.environment import environment

VOLUMES, IMAGES, SIGNALS, FEATURES = (4, 8, 8, 3), (8, 8, 3), (6, 4), (7,)
WAVES = (64,)
KINDS = {VOLUMES: "volumes", IMAGES: "images", SIGNALS: "signals", FEATURES: "features", WAVES: "waves"}
# Augmentations of images in [0, 1]. CutMix and MixUp take labels along; AugMix and RandAugment draw which of
# these to use.
AUGMENTATIONS = {
    **{name: {"value_range": (0, 1)} for name in ("AutoContrast", "RandomInvert")},
    "ContrastLimitedAdaptiveHistogramEqualization": {"value_range": (0, 1)},
    "RandomColorDegeneration": {"factor": 0.5, "value_range": (0, 1)},
    "RandomColorJitter": {"value_range": (0, 1), "brightness_factor": 0.1, "contrast_factor": 0.1},
    "RandomElasticTransform": {"value_range": (0, 1)},
    "RandomErasing": {"value_range": (0, 1)},
    "RandomGaussianBlur": {"value_range": (0, 1)},
    "RandomGrayscale": {},
    "RandomHue": {"factor": 0.1, "value_range": (0, 1)},
    "RandomPerspective": {},
    "RandomPosterization": {"factor": 4, "value_range": (0, 1)},
    "RandomSaturation": {"factor": 0.3, "value_range": (0, 1)},
    "RandomSharpness": {"factor": 0.3, "value_range": (0, 1)},
    "RandomShear": {"x_factor": 0.1, "y_factor": 0.1},
    "RandomZoom": {"height_factor": 0.1},
    "Solarization": {"value_range": (0, 1)},
}

ACTIVATIONS = (
    *("celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh"),
    *("leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid"),
    *(
        "silu",
        "soft_shrink",
        "softmax",
        "softplus",
        "softsign",
        "sparse_plus",
        "sparsemax",
        "squareplus",
        "tanh",
    ),
    "tanh_shrink",
)


class StandardisedByKeras(layers.Layer):
    """A layer of a user's that normalises by `keras.ops.moments`."""

    def call(self, inputs):
        mean, variance = ops.moments(inputs, axes=[-1], keepdims=True)
        return (inputs - mean) / ops.sqrt(variance + 1e-3)


class StandardisedByTensorFlow(layers.Layer):
    """The same by `tf.nn.moments`."""

    def call(self, inputs):
        mean, variance = tf.nn.moments(inputs, axes=[-1], keepdims=True)
        return (inputs - mean) / tf.sqrt(variance + 1e-3)


class Moments(layers.Layer):
    """A right layer with the name of a wrong operation."""

    def call(self, inputs):
        return inputs * 2 + ops.tanh(inputs)


def _attention(x):
    return layers.MultiHeadAttention(2, 4)(x, x)


def _grouped_attention(x):
    return layers.GroupQueryAttention(4, 4, 2)(x, x)


def _dot_attention(kind):
    return lambda x: kind()([x, x])


def _merged(kind, **options):
    return lambda x: kind(**options)([x, layers.Dense(x.shape[-1], activation="tanh")(x)])


def _augmented(name):
    """An augmentation of images in three colours."""
    return lambda x: getattr(layers, name)(**AUGMENTATIONS[name])(
        layers.Conv2D(3, 1, activation="sigmoid")(x)
    )


def _nested(x):
    inner = keras.Input(x.shape[1:])
    return keras.Model(inner, layers.Conv2D(3, 3, activation="tanh")(inner))(x)


def _nested_wrong(x):
    inner = keras.Input(x.shape[1:])
    return keras.Model(inner, layers.BatchNormalization()(layers.Conv2D(3, 3)(inner)))(x)


def _remat(x):
    with keras.RematScope(mode="full"):
        return layers.Dense(4, activation="tanh")(x)


# By the kind of input: name -> a layer, or a function of a tensor in a functional graph.
LAYERS: dict[tuple[int, ...], dict[str, Callable]] = {
    VOLUMES: {
        "Conv3D": lambda: layers.Conv3D(4, 3),
        "Conv3DTranspose": lambda: layers.Conv3DTranspose(4, 3),
        "AveragePooling3D": lambda: layers.AveragePooling3D(2),
        "MaxPooling3D": lambda: layers.MaxPooling3D(2),
        "AdaptiveAveragePooling3D": lambda: layers.AdaptiveAveragePooling3D(2),
        "AdaptiveMaxPooling3D": lambda: layers.AdaptiveMaxPooling3D(2),
        "GlobalAveragePooling3D": layers.GlobalAveragePooling3D,
        "GlobalMaxPooling3D": layers.GlobalMaxPooling3D,
        "Cropping3D": lambda: layers.Cropping3D(1),
        "ZeroPadding3D": lambda: layers.ZeroPadding3D(1),
        "UpSampling3D": lambda: layers.UpSampling3D(2),
        "SpatialDropout3D": lambda: layers.SpatialDropout3D(0.3),
        "ConvLSTM2D": lambda: layers.ConvLSTM2D(3, 3),
    },
    WAVES: {
        "MelSpectrogram": lambda: layers.MelSpectrogram(8, 16, 8, sampling_rate=64),
    },
    IMAGES: {
        **{name: (lambda name=name: _augmented(name)) for name in AUGMENTATIONS},
        "ConvLSTM1D": lambda: layers.ConvLSTM1D(3, 3),
        "AveragePooling2D": lambda: layers.AveragePooling2D(2),
        "MaxPooling2D": lambda: layers.MaxPooling2D(2),
        "GlobalAveragePooling2D": layers.GlobalAveragePooling2D,
        "GlobalMaxPooling2D": layers.GlobalMaxPooling2D,
        "AdaptiveAveragePooling2D": lambda: layers.AdaptiveAveragePooling2D(3),
        "AdaptiveMaxPooling2D": lambda: layers.AdaptiveMaxPooling2D(3),
        "Conv2D": lambda: layers.Conv2D(4, 3),
        "Conv2D, dilated": lambda: layers.Conv2D(4, 3, dilation_rate=2),
        "Conv2D, strided": lambda: layers.Conv2D(4, 3, strides=2),
        "Conv2D, grouped": lambda: layers.Conv2D(6, 3, groups=2),
        "Conv2DTranspose": lambda: layers.Conv2DTranspose(4, 3),
        "DepthwiseConv2D": lambda: layers.DepthwiseConv2D(3),
        "SeparableConv2D": lambda: layers.SeparableConv2D(4, 3),
        "Cropping2D": lambda: layers.Cropping2D(1),
        "ZeroPadding2D": lambda: layers.ZeroPadding2D(1),
        "UpSampling2D, nearest": lambda: layers.UpSampling2D(2),
        "UpSampling2D, bilinear": lambda: layers.UpSampling2D(2, interpolation="bilinear"),
        "UpSampling2D, bicubic": lambda: layers.UpSampling2D(2, interpolation="bicubic"),
        "Resizing, bilinear": lambda: layers.Resizing(5, 9),
        "Resizing, nearest": lambda: layers.Resizing(5, 9, interpolation="nearest"),
        "Resizing, bicubic": lambda: layers.Resizing(5, 9, interpolation="bicubic"),
        "Resizing, lanczos3": lambda: layers.Resizing(5, 9, interpolation="lanczos3"),
        "Resizing, antialias": lambda: layers.Resizing(5, 4, antialias=True),
        "CenterCrop": lambda: layers.CenterCrop(5, 5),
        "Normalization": lambda: layers.Normalization(mean=0.4, variance=0.1),
        "Rescaling": lambda: layers.Rescaling(2.0, -1.0),
        "RandomFlip": layers.RandomFlip,
        "RandomTranslation": lambda: layers.RandomTranslation(0.1, 0.1),
        "RandomRotation": lambda: layers.RandomRotation(0.1),
        "RandomBrightness": lambda: layers.RandomBrightness(0.1, value_range=(0, 1)),
        "RandomContrast": lambda: layers.RandomContrast(0.1, value_range=(0, 1)),
        "SpatialDropout2D": lambda: layers.SpatialDropout2D(0.3),
        "BatchNormalization": layers.BatchNormalization,
        "BatchNormalization, synchronized": lambda: layers.BatchNormalization(synchronized=True),
        "BatchNormalization, axis 1": lambda: layers.BatchNormalization(axis=1),
        "BatchNormalization, frozen": lambda: layers.BatchNormalization(trainable=False),
        "LayerNormalization": layers.LayerNormalization,
        "LayerNormalization, axes 1, 2": lambda: layers.LayerNormalization(axis=[1, 2]),
        "GroupNormalization": lambda: layers.GroupNormalization(2),
        "GroupNormalization of each channel": lambda: layers.GroupNormalization(-1),
        "RMSNormalization": layers.RMSNormalization,
        "UnitNormalization": layers.UnitNormalization,
        "SpectralNormalization": lambda: layers.SpectralNormalization(layers.Conv2D(4, 3)),
        "Permute": lambda: layers.Permute((2, 1, 3)),
        "Reshape": lambda: layers.Reshape((16, -1)),
        "TimeDistributed(LayerNormalization)": lambda: layers.TimeDistributed(layers.LayerNormalization()),
        "Lambda, local response normalisation": lambda: layers.Lambda(
            lambda x: tf.cast(tf.nn.local_response_normalization(tf.cast(x, tf.float32)), x.dtype)
        ),
        "a nested model": lambda: _nested,
        "a nested model with BatchNormalization": lambda: _nested_wrong,
    },
    SIGNALS: {
        "Conv1D": lambda: layers.Conv1D(4, 3),
        "Conv1D, causal": lambda: layers.Conv1D(4, 3, padding="causal"),
        "Conv1DTranspose": lambda: layers.Conv1DTranspose(4, 3),
        "DepthwiseConv1D": lambda: layers.DepthwiseConv1D(3),
        "SeparableConv1D": lambda: layers.SeparableConv1D(4, 3),
        "AveragePooling1D": lambda: layers.AveragePooling1D(2),
        "MaxPooling1D": lambda: layers.MaxPooling1D(2),
        "GlobalAveragePooling1D": layers.GlobalAveragePooling1D,
        "GlobalMaxPooling1D": layers.GlobalMaxPooling1D,
        "Cropping1D": lambda: layers.Cropping1D(1),
        "ZeroPadding1D": lambda: layers.ZeroPadding1D(1),
        "AdaptiveAveragePooling1D": lambda: layers.AdaptiveAveragePooling1D(3),
        "AdaptiveMaxPooling1D": lambda: layers.AdaptiveMaxPooling1D(3),
        "LSTM after Masking": lambda: lambda x: layers.LSTM(3)(layers.Masking()(x)),
        "STFTSpectrogram": lambda: layers.STFTSpectrogram(frame_length=4, frame_step=2, fft_length=4),
        "UpSampling1D": lambda: layers.UpSampling1D(2),
        "SimpleRNN": lambda: layers.SimpleRNN(4),
        "LSTM": lambda: layers.LSTM(4),
        "GRU": lambda: layers.GRU(4),
        "LSTM, unrolled": lambda: layers.LSTM(4, unroll=True),
        "GRU, unrolled": lambda: layers.GRU(4, unroll=True),
        "Bidirectional(LSTM, unrolled)": lambda: layers.Bidirectional(layers.LSTM(4, unroll=True)),
        "RNN(StackedRNNCells)": lambda: layers.RNN(
            layers.StackedRNNCells([layers.GRUCell(4), layers.SimpleRNNCell(3)])
        ),
        "RNN(LSTMCell)": lambda: layers.RNN(layers.LSTMCell(4)),
        "TimeDistributed(Dense)": lambda: layers.TimeDistributed(layers.Dense(4)),
        "MultiHeadAttention": lambda: _attention,
        "GroupQueryAttention": lambda: _grouped_attention,
        "Attention": lambda: _dot_attention(layers.Attention),
        "AdditiveAttention": lambda: _dot_attention(layers.AdditiveAttention),
        "EinsumDense": lambda: layers.EinsumDense("btc,cd->btd", (6, 5)),
        "Flatten": layers.Flatten,
        "SpatialDropout1D": lambda: layers.SpatialDropout1D(0.3),
        "LayerNormalization": layers.LayerNormalization,
        "BatchNormalization": layers.BatchNormalization,
        "GroupNormalization": lambda: layers.GroupNormalization(2),
        "ops.moments": lambda: (
            lambda x: (
                (x - ops.moments(x, [1], keepdims=True)[0])
                / ops.sqrt(ops.moments(x, [1], keepdims=True)[1] + 1e-3)
            )
        ),
        "ops.var": lambda: lambda x: x / ops.sqrt(ops.var(x, axis=1, keepdims=True) + 1e-3),
        "ops.std": lambda: lambda x: x / (ops.std(x, axis=1, keepdims=True) + 1e-3),
        "ops.norm": lambda: lambda x: x / (ops.norm(x, axis=-1, keepdims=True) + 1e-3),
        "ops.normalize": lambda: ops.normalize,
        "ops.layer_normalization": lambda: ops.layer_normalization,
        "ops.softmax": lambda: ops.softmax,
        "ops.logsumexp": lambda: lambda x: ops.logsumexp(x, axis=1),
        "ops.einsum": lambda: lambda x: ops.einsum("btc,bsc->bts", x, x),
        "ops.matmul": lambda: lambda x: ops.matmul(x, ops.transpose(x, (0, 2, 1))),
        "ops.max": lambda: lambda x: ops.max(x, axis=1),
        "ops.sort": lambda: lambda x: ops.sort(x, axis=1),
        "ops.top_k": lambda: lambda x: ops.top_k(x, 2)[0],
        "ops.cumsum": lambda: lambda x: ops.cumsum(x, axis=1),
        "ops.clip": lambda: lambda x: ops.clip(x, -0.5, 0.5),
        "ops.erf": lambda: ops.erf,
        "ops.fft2": lambda: lambda x: ops.fft2((x, ops.zeros_like(x)))[0],
        "ops.stop_gradient": lambda: lambda x: x * ops.stop_gradient(ops.tanh(x)),
    },
    FEATURES: {
        "Dense": lambda: layers.Dense(4),
        "Activation": lambda: layers.Activation("tanh"),
        "ActivityRegularization": lambda: layers.ActivityRegularization(l2=0.1),
        "AlphaDropout": lambda: layers.AlphaDropout(0.3),
        "Dropout": lambda: layers.Dropout(0.3),
        "GaussianDropout": lambda: layers.GaussianDropout(0.3),
        "GaussianNoise": lambda: layers.GaussianNoise(0.3),
        "Add": lambda: _merged(layers.Add),
        "Average": lambda: _merged(layers.Average),
        "Concatenate": lambda: _merged(layers.Concatenate),
        "Dot": lambda: _merged(layers.Dot, axes=1),
        "Maximum": lambda: _merged(layers.Maximum),
        "Minimum": lambda: _merged(layers.Minimum),
        "Multiply": lambda: _merged(layers.Multiply),
        "Subtract": lambda: _merged(layers.Subtract),
        "ELU": layers.ELU,
        "LeakyReLU": layers.LeakyReLU,
        "PReLU": lambda: layers.PReLU("normal"),
        "ReLU": layers.ReLU,
        "Softmax": layers.Softmax,
        "Identity": layers.Identity,
        "RepeatVector": lambda: layers.RepeatVector(3),
        "BatchNormalization": layers.BatchNormalization,
        "LayerNormalization": layers.LayerNormalization,
        "Lambda": lambda: layers.Lambda(lambda x: x * tf.sin(x)),
        "a layer with keras.ops.moments": StandardisedByKeras,
        "a layer with tf.nn.moments": StandardisedByTensorFlow,
        "a right layer called Moments": Moments,
        "a RematScope": lambda: _remat,
        **{f"Activation({name})": (lambda name=name: layers.Activation(name)) for name in ACTIVATIONS},
    },
}


def in_member(make: Callable, shape: tuple[int, ...]) -> keras.Model:
    """A small smooth member with a layer or operation in its middle."""
    images = keras.Input(shape)
    if shape in (VOLUMES, WAVES):
        x = ops.tanh(images * 1.5)
    elif len(shape) == 3:
        x = layers.Conv2D(4, 3, padding="same", activation="tanh")(images)
    else:
        x = layers.Dense(4, activation="tanh")(images)
    x = make()(x)
    x = layers.Dense(5, activation="tanh")(layers.Flatten()(x))
    return keras.Model(images, layers.Dense(3)(x), name="member")


# Of keras.applications, small and without weights.
FAMILIES: dict[str, Callable[[], keras.Model]] = {
    name: (
        lambda name=name, size=size, options=options: getattr(keras.applications, name)(
            weights=None, input_shape=(size, size, 3), classes=5, **options
        )
    )
    for name, size, options in [
        ("ConvNeXtTiny", 32, {}),
        ("DenseNet121", 32, {}),
        ("EfficientNetB0", 32, {}),
        ("EfficientNetV2B0", 32, {}),
        ("MobileNet", 32, {}),
        ("MobileNetV2", 32, {}),
        ("MobileNetV3Small", 32, {}),
        ("NASNetMobile", 32, {}),
        ("ResNet50V2", 32, {}),
        ("Xception", 71, {}),
    ]
}


def finite(error: float) -> float | None:
    """An error for JSON, which knows no infinity."""
    return error if math.isfinite(error) else None


def measured(make: Callable[[], keras.Model]) -> dict:
    """What is measured of a member as Keras makes it, and of what `convert_member` makes of it."""
    member = make()
    start = time.perf_counter()
    try:
        found = measure(member, member.input_shape)
    except InputError as error:
        reason = str(error).rpartition("Received: ")[2]
        return {"error": None, "reason": f"not measured: {reason}", "seconds": 0.0, "refused": str(error)}
    row = {"error": finite(found.error), "reason": found.reason, "seconds": time.perf_counter() - start}
    if not found.exact:
        try:
            row["converted"] = finite(measure(convert_member(member), member.input_shape).error)
        except InputError as error:
            row["refused"] = str(error)
    return row


def rows() -> Iterator[dict]:
    """Every layer and operation, then every family."""
    for shape, makes in LAYERS.items():
        for name, make in makes.items():
            yield {
                "name": name,
                "kind": KINDS[shape],
                **measured(lambda make=make, shape=shape: in_member(make, shape)),
            }
    for name, make in FAMILIES.items():
        yield {"name": name, "kind": "keras.applications", **measured(make)}


def markdown(record: Mapping[str, Any]) -> str:
    """The table of a written record."""
    found = record["environment"]
    lines = [
        "# Exact to second order",
        "",
        f"- Command: `{found['command']}`",
        f"- Commit: {found['commit']}",
        f"- Machine: {found['cpus']} cores, {found['platform']}",
        f"- Keras {found['keras']}, TensorFlow {found['tensorflow']}; tolerance {TOLERANCE:g}",
        "",
        "The error is that of the slope of GAL along random directions of the weights, against central",
        "differences in float64, in a small member; of keras.applications in the whole network, of 32 x 32",
        "pixels and up.",
        "",
        "| input | layer, operation or family | error | seconds | by `convert_member` |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    for row in record["rows"]:
        error = row["reason"] or f"{row['error']:.1e}"
        shown = f"**{error}**" if "converted" in row or "refused" in row else error
        after = ""
        if "converted" in row or "refused" in row:
            converted = row.get("converted")
            after = f"exact, {converted:.1e}" if converted and converted <= TOLERANCE else "refused"
        lines.append(f"| {row['kind']} | {row['name']} | {shown} | {row['seconds']:.2f} | {after} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    table = []
    for each in rows():
        print(each, flush=True)
        table.append(each)
    place = Path(__file__).parent / "results" / "exactness"
    record = {"environment": environment(), "rows": table}
    checked_json.write_json(place.with_suffix(".json"), record)
    files.write_file(place.with_suffix(".md"), markdown(record))
