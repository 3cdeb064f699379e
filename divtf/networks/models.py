"""The paper's member networks (Table 1), as Keras functional models that give logits."""

import contextlib
import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import layers

from divtf.errors import require
from divtf.networks import named, names
from divtf.networks.layers import BatchNormalization, ParameterFreeShortcut

# Images are [H, W, C], whatever Keras's default is.
_FORMAT = "channels_last"
ACTIVATIONS = ("leaky_relu", "relu", "silu")


class _Layers:
    """Makes a member's layers: one activation for all, one stream of initialiser seeds."""

    def __init__(self, activation: str, negative_slope: float, seed: int | None):
        self._activation = activation
        self._slope = negative_slope if activation == "leaky_relu" else 0.0
        self._seeds: Iterator[int | None] = itertools.repeat(None) if seed is None else itertools.count(seed)

    def conv(self, x, filters, *, strides=1, use_bias=True, initializer="GlorotUniform"):
        kernel = getattr(keras.initializers, initializer)(seed=next(self._seeds))
        return layers.Conv2D(
            *(filters, 3, strides),
            padding="same",
            data_format=_FORMAT,
            use_bias=use_bias,
            kernel_initializer=kernel,
        )(x)

    def dense(self, x, units):
        return layers.Dense(
            units, kernel_initializer=keras.initializers.GlorotUniform(seed=next(self._seeds))
        )(x)

    def activate(self, x):
        if self._activation == "silu":
            return layers.Activation("silu")(x)
        return layers.LeakyReLU(negative_slope=self._slope)(x) if self._slope else layers.ReLU()(x)


def _conv_net(make: _Layers, x, num_classes: int, structure: Sequence[int | str]):
    """`structure`: filters of a 3 x 3 convolution, or "M" for 2 x 2 max-pooling; then FC1024, FC."""
    for part in structure:
        x = (
            layers.MaxPooling2D(2, data_format=_FORMAT)(x)
            if part == "M"
            else make.activate(make.conv(x, part))
        )
    x = make.activate(make.dense(layers.Flatten(data_format=_FORMAT)(x), 1024))
    return make.dense(x, num_classes)


def _conv3(make, x, num_classes):
    return _conv_net(make, x, num_classes, [32, 64, "M", 128, "M"])


def _conv4(make, x, num_classes):
    return _conv_net(make, x, num_classes, [32, 64, 128, "M", 128, "M"])


def _residual_block(make: _Layers, x, filters: int, stride: int):
    def normalised(x, strides):
        x = make.conv(x, filters, strides=strides, use_bias=False, initializer="HeNormal")
        return BatchNormalization()(x)

    residual = normalised(make.activate(normalised(x, stride)), 1)
    if stride != 1 or x.shape[-1] != filters:
        x = ParameterFreeShortcut(stride, filters)(x)
    return make.activate(layers.Add()([x, residual]))


def _resnet(make: _Layers, x, num_classes: int, blocks: int):
    """6n + 2 layers, three stages of n = `blocks` residual blocks (He et al. 2016, section 4.2)."""
    x = make.conv(x, 16, use_bias=False, initializer="HeNormal")
    x = make.activate(BatchNormalization()(x))
    for filters in (16, 32, 64):
        for block in range(blocks):
            x = _residual_block(make, x, filters, stride=2 if block == 0 and filters > 16 else 1)
    return make.dense(layers.GlobalAveragePooling2D(data_format=_FORMAT)(x), num_classes)


def _resnet20(make, x, num_classes):
    return _resnet(make, x, num_classes, blocks=3)


def _resnet26(make, x, num_classes):
    return _resnet(make, x, num_classes, blocks=4)


MODELS: dict[str, Callable] = {
    "conv3": _conv3,
    "conv4": _conv4,
    "resnet20": _resnet20,
    "resnet26": _resnet26,
}

# What `build_member` has made, and what it was asked for but for names and seeds.
_BUILT: weakref.WeakKeyDictionary[keras.Model, tuple] = weakref.WeakKeyDictionary()

# The MIX ensemble of section 4.1, in the paper's order.
MIX = ("resnet26", "resnet20", "conv4", "conv3", "conv3")


def build_member(
    name: str,
    input_shape: Sequence[int],
    num_classes: int,
    *,
    activation: str = "leaky_relu",
    negative_slope: float = 0.1,
    name_suffix: str = "",
    seed: int | None = None,
    dtype: str | None = None,
) -> keras.Model:
    """One member network, freshly initialised, as a functional model: images [B, H, W, C] -> logits.

    Args:
        name: one of `MODELS`.
        input_shape: height, width and channels, at least 4 x 4 pixels.
        num_classes: number of logits, at least 2.
        activation: "leaky_relu"; "relu" for the ablation of section 3.4; or "silu", x sigmoid(x), which is
            smooth.
        negative_slope: slope of LeakyReLU below zero, in [0, 1).
        name_suffix: appended to the model's name.
        seed: makes the initial weights repeatable; None draws them from Keras's global generator.
        dtype: Keras dtype policy of the layers, as "mixed_bfloat16"; None is Keras's current one.

    Raises:
        InputError: for an unknown name or activation, or a shape, class count or slope out of range.

    Source: Table 1. Convolutions are padded to keep the size; the residual networks normalise by
    batch after each convolution and have parameter-free shortcuts, as He et al. (2016).
    """
    require(name in MODELS, f"name as one of {sorted(MODELS)}", f"name={name!r}")
    require(
        len(input_shape) == 3 and min(input_shape[:2]) >= 4 and input_shape[2] >= 1,
        "input_shape=(height >= 4, width >= 4, channels >= 1)",
        f"input_shape={tuple(input_shape)}",
    )
    require(num_classes >= 2, "num_classes >= 2", f"num_classes={num_classes}")
    require(
        activation in ACTIVATIONS, f"activation as one of {sorted(ACTIVATIONS)}", f"activation={activation!r}"
    )
    require(0 <= negative_slope < 1, "negative_slope in [0, 1)", f"negative_slope={negative_slope}")
    with _dtype_policy(dtype):
        policy = keras.config.dtype_policy().name
        # Keras's default, float32, would round the images and the input gradients of a float64 member.
        images = keras.Input(
            tuple(input_shape), name="images", dtype=keras.config.dtype_policy().variable_dtype
        )
        logits = MODELS[name](_Layers(activation, negative_slope, seed), images, num_classes)
        member = keras.Model(images, logits, name=name + name_suffix)
    _BUILT[member] = (name, tuple(input_shape), num_classes, activation, negative_slope, policy)
    return member


def is_built_here(member: Any) -> bool:
    """Whether `build_member` made a model, whose like the tests have measured."""
    return member in _BUILT


def made_as(member: Any) -> tuple | None:
    """What is the same for members of one architecture and type, if `build_member` made this one."""
    return _BUILT.get(member)


def remember(member: keras.Model, made: Sequence | None) -> None:
    """Take it that a model from a file was made so, as `made_as` told of it before."""
    if made is not None:
        name, input_shape, *others = made
        _BUILT[member] = (name, tuple(input_shape), *others)


@contextlib.contextmanager
def _dtype_policy(name: str | None) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name or before)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def build_members(
    model: str, num_members: int, input_shape: Sequence[int], num_classes: int, *, seed: int, **options
) -> list[keras.Model]:
    """The members of an ensemble of `model`, with initial weights of their own.

    Args:
        model: one of `MODELS`, "mix" for the five architectures of `MIX`, or a model of the user's own, see
            `networks.names`.
        num_members: number of members; "mix" takes the first ones of `MIX` in turn.
        input_shape: height, width and channels.
        num_classes: number of logits.
        seed: members of another seed start from other weights.
        **options: further arguments of `build_member`; of a model of the user's own `dtype` only.

    Raises:
        InputError: if the model does not fit.
    """
    # Room for every layer's own seed. Keras takes seeds modulo 2^31 - 2, so the streams of two
    # members are apart for seeds below 2147, and for any two seeds but with a chance of 1e-5.
    seeds = [(seed * 1000 + index) * 1000 for index in range(num_members)]
    if names.is_own(model):
        return _own_members(model, input_shape, num_classes, seeds, **options)
    architectures = itertools.cycle(MIX if model == "mix" else (model,))
    return [
        build_member(name, input_shape, num_classes, name_suffix=f"_{index}", seed=seeds[index], **options)
        for index, name in zip(range(num_members), architectures, strict=False)
    ]


def _own_members(
    model: str,
    input_shape: Sequence[int],
    num_classes: int,
    seeds: Sequence[int],
    *,
    dtype: str | None = None,
    activation: str = "leaky_relu",
    negative_slope: float = 0.1,
) -> list[keras.Model]:
    """Members with activations of their own, and where they were saved with a precision of their own."""
    require(
        (activation, negative_slope) == ("leaky_relu", 0.1),
        f"activation and negative_slope with the paper's models only, not with {model}",
        f"activation={activation!r}, negative_slope={negative_slope}",
    )
    require(
        dtype in (None, "float32") or not names.files_of(model),
        "dtype float32 for saved members, which have their own",
        f"dtype={dtype!r}",
    )
    with _dtype_policy(dtype):
        return named.own_members(model, input_shape, num_classes, seeds=seeds)
