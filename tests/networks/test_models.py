"""The paper's networks: structure, sizes, activations, initial weights, and what is refused."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers

from divtf import BatchNormalization, InputError, build_member, build_members
from divtf.networks.layers import ParameterFreeShortcut
from divtf.networks.models import MIX, MODELS

SMALL = (8, 8, 1)


def of_type(member, *types):
    return [layer for layer in member.layers if isinstance(layer, types)]


def consumers(layer):
    return [node.operation for node in layer._outbound_nodes]


@pytest.mark.parametrize(
    ("name", "input_shape", "trainable", "with_moving_statistics"),
    [
        # 10 x 32 + 289 x 64 + 577 x 128 + (7 x 7 x 128 + 1) 1024 + 1025 x 10
        ("conv3", (28, 28, 1), 6_526_474, 6_526_474),
        # 28 x 32 + 289 x 64 + 577 x 128 + 1153 x 128 + (8 x 8 x 128 + 1) 1024 + 1025 x 10
        ("conv4", (32, 32, 3), 8_640_714, 8_640_714),
        # 9 (3 x 16 + 6 x 16 x 16 + 16 x 32 + 5 x 32 x 32 + 32 x 64 + 5 x 64 x 64) in the convolutions,
        # 2 (7 x 16 + 6 x 32 + 6 x 64) in the normalisations and as many moving statistics, 650 at the end;
        # He et al. (2016), Table 6, give 0.27 M.
        ("resnet20", (32, 32, 3), 269_722, 271_098),
        # One block more a stage: 2 x 9 (16^2 + 32^2 + 64^2) and 2 x 2 (16 + 32 + 64), twice with statistics.
        ("resnet26", (32, 32, 3), 269_722 + 96_768 + 448, 271_098 + 96_768 + 896),
    ],
)
def test_parameter_counts(name, input_shape, trainable, with_moving_statistics):
    member = build_member(name, input_shape, 10)
    assert sum(int(np.prod(w.shape)) for w in member.trainable_weights) == trainable
    assert member.count_params() == with_moving_statistics


@pytest.mark.parametrize(("name", "n"), [("resnet20", 3), ("resnet26", 4)])
def test_residual_networks_have_6n_plus_2_layers_in_three_stages(name, n):
    member = build_member(name, (32, 32, 3), 10)
    assert len(of_type(member, layers.Conv2D, layers.Dense)) == 6 * n + 2
    shapes = [layer.output.shape[1:] for layer in of_type(member, layers.Add)]
    assert shapes == [(32, 32, 16)] * n + [(16, 16, 32)] * n + [(8, 8, 64)] * n
    assert [(s.stride, s.filters) for s in of_type(member, ParameterFreeShortcut)] == [(2, 32), (2, 64)]
    assert of_type(member, layers.BatchNormalization) == of_type(member, BatchNormalization)
    assert len(of_type(member, BatchNormalization)) == 6 * n + 1


@pytest.mark.parametrize(
    ("name", "structure"),
    [("conv3", "C32-C64-M-C128-M-FC1024-FC10"), ("conv4", "C32-C64-C128-M-C128-M-FC1024-FC10")],
)
def test_convolutional_networks_are_table_1s(name, structure):
    parts = []
    for layer in build_member(name, (32, 32, 3), 10).layers:
        if isinstance(layer, layers.Conv2D):
            assert layer.kernel_size == (3, 3) and layer.padding == "same" and layer.strides == (1, 1)
            parts.append(f"C{layer.filters}")
        elif isinstance(layer, layers.MaxPooling2D):
            assert layer.pool_size == (2, 2) and layer.strides == (2, 2)
            parts.append("M")
        elif isinstance(layer, layers.Dense):
            parts.append(f"FC{layer.units}")
    assert "-".join(parts) == structure


@pytest.mark.parametrize("name", MODELS)
def test_leaky_relu_follows_every_convolution_with_the_given_slope(name):
    member = build_member(name, SMALL, 3, negative_slope=0.3)
    for convolution in of_type(member, layers.Conv2D):
        (following,) = consumers(convolution)
        # In residual networks after the normalisation and, at a block's end, after the addition.
        while isinstance(following, BatchNormalization | layers.Add):
            (following,) = consumers(following)
        assert isinstance(following, layers.LeakyReLU) and following.negative_slope == pytest.approx(0.3)
    assert not of_type(member, layers.ReLU)


def test_the_hidden_dense_layer_has_leaky_relu_too():
    for name in ("conv3", "conv4"):
        hidden, last = of_type(build_member(name, SMALL, 3), layers.Dense)
        assert [type(layer) for layer in consumers(hidden)] == [layers.LeakyReLU]
        assert consumers(last) == []


@pytest.mark.parametrize("name", ["conv3", "resnet20"])
@pytest.mark.parametrize("options", [{"activation": "relu"}, {"negative_slope": 0}])
def test_the_ablation_has_relu_in_place_of_every_leaky_relu(name, options):
    leaky, plain = build_member(name, SMALL, 3), build_member(name, SMALL, 3, **options)
    assert not of_type(plain, layers.LeakyReLU)
    assert len(of_type(plain, layers.ReLU)) == len(of_type(leaky, layers.LeakyReLU))


def test_members_may_be_smooth():
    smooth, leaky = build_member("conv3", SMALL, 3, activation="silu"), build_member("conv3", SMALL, 3)
    activations = of_type(smooth, layers.Activation)
    assert len(activations) == len(of_type(leaky, layers.LeakyReLU))
    assert {layer.activation for layer in activations} == {keras.activations.silu}
    assert not of_type(smooth, layers.LeakyReLU) and not of_type(smooth, layers.ReLU)


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_logits_for_any_shape_and_class_count(name, rng):
    member = build_member(name, (17, 23, 4), 7, seed=0)
    logits = member(10 * rng.random((3, 17, 23, 4), dtype="float32")).numpy()
    assert logits.shape == (3, 7) and logits.dtype == "float32"
    assert (logits < 0).any() and not np.allclose(logits.sum(axis=-1), 1, atol=0.1)
    assert member.layers[-1].activation is keras.activations.linear


@pytest.mark.parametrize("name", ["conv4", "resnet20"])
def test_the_smallest_images_work(name):
    assert build_member(name, (4, 4, 1), 2)(np.zeros((1, 4, 4, 1), "float32")).shape == (1, 2)


def kernels(member):
    return [w.numpy() for w in member.trainable_weights if w.shape.rank > 1]


@pytest.mark.parametrize("name", ["conv3", "resnet20"])
def test_one_seed_gives_one_set_of_weights_and_another_seed_another(name):
    first, again, other = (build_member(name, SMALL, 3, seed=seed) for seed in (5, 5, 6000))
    for one, same, different in zip(kernels(first), kernels(again), kernels(other), strict=True):
        np.testing.assert_array_equal(one, same)
        assert not np.allclose(one, different)


def test_a_seed_does_not_give_two_layers_the_same_weights():
    by_shape = itertools.groupby(
        sorted(kernels(build_member("resnet20", SMALL, 3, seed=0)), key=np.shape), np.shape
    )
    for _, alike in by_shape:
        for one, other in itertools.combinations(alike, 2):
            assert not np.allclose(one, other)


def test_without_a_seed_weights_come_from_kerass_global_generator():
    drawn = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        drawn.append(kernels(build_member("conv3", SMALL, 3))[0])
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.allclose(drawn[0], drawn[2])


def test_members_of_one_ensemble_and_of_two_seeds_start_from_other_weights():
    members = build_members("conv3", 3, SMALL, 3, seed=0) + build_members("conv3", 3, SMALL, 3, seed=1)
    for one, other in itertools.combinations(members, 2):
        for a, b in zip(kernels(one), kernels(other), strict=True):
            assert not np.allclose(a, b)
    for one, same in zip(members[:3], build_members("conv3", 3, SMALL, 3, seed=0), strict=True):
        np.testing.assert_array_equal(kernels(one)[0], kernels(same)[0])


@pytest.mark.parametrize("seed", [4294, 2**31 - 1, 2**40])
def test_large_seeds_give_members_of_their_own(seed):
    first, second = build_members("conv3", 2, SMALL, 3, seed=seed)
    (other,) = build_members("conv3", 1, SMALL, 3, seed=seed + 1)
    assert not np.allclose(kernels(first)[0], kernels(second)[0])
    assert not np.allclose(kernels(first)[0], kernels(other)[0])


def test_mix_is_the_papers_ensemble_with_distinct_names():
    members = build_members("mix", 5, SMALL, 3, seed=0)
    assert [member.name.rsplit("_", 1)[0] for member in members] == [
        "resnet26", "resnet20", "conv4", "conv3", "conv3",
    ]  # fmt: skip
    assert len({member.name for member in members}) == 5
    assert [len(of_type(member, layers.Conv2D)) for member in members] == [25, 19, 4, 3, 3]


def test_mix_of_another_size_takes_the_architectures_in_turn():
    names = [member.name.rsplit("_", 1)[0] for member in build_members("mix", 6, SMALL, 3, seed=0)]
    assert names == [*MIX, MIX[0]]


def test_the_name_suffix_makes_names_distinct():
    assert build_member("conv3", SMALL, 3, name_suffix="_left").name == "conv3_left"


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "float64"])
def test_the_dtype_policy_holds_for_the_member_alone(dtype, rng):
    before = keras.config.dtype_policy().name
    member = build_member("conv3", SMALL, 3, dtype=dtype)
    assert {layer.dtype_policy.name for layer in member.layers if layer.weights} == {dtype}
    assert keras.config.dtype_policy().name == before
    assert {w.dtype for w in member.weights} == {"float64" if dtype == "float64" else "float32"}


def test_a_float64_member_does_not_round_its_images():
    assert build_member("conv3", SMALL, 3, dtype="float64").input.dtype == "float64"


@pytest.mark.parametrize("name", ["conv3", "resnet20"])
def test_members_survive_a_keras_file(name, tmp_path, rng):
    member = build_member(name, SMALL, 3, negative_slope=0.2)
    member.save(tmp_path / "member.keras")
    restored = keras.models.load_model(tmp_path / "member.keras")
    x = rng.random((4, *SMALL), dtype="float32")
    np.testing.assert_array_equal(restored(x), member(x))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "vgg"}, r"one of \['conv3', 'conv4', 'resnet20', 'resnet26'\]. Received: name='vgg'"),
        ({"activation": "gelu"}, r"one of \['leaky_relu', 'relu', 'silu'\]. Received: activation='gelu'"),
        ({"negative_slope": -0.1}, "negative_slope=-0.1"),
        ({"negative_slope": 1.0}, "negative_slope=1.0"),
        ({"negative_slope": float("nan")}, "negative_slope=nan"),
        ({"input_shape": (3, 28, 1)}, r"height >= 4.*Received: input_shape=\(3, 28, 1\)"),
        ({"input_shape": (28, 28)}, r"input_shape=\(28, 28\)"),
        ({"input_shape": (28, 28, 0)}, r"input_shape=\(28, 28, 0\)"),
        ({"num_classes": 1}, "num_classes >= 2. Received: num_classes=1"),
    ],
)
def test_bad_arguments_are_refused_by_name(changed, message):
    arguments = {"name": "conv3", "input_shape": (28, 28, 1), "num_classes": 10} | changed
    with pytest.raises(InputError, match=message):
        build_member(**arguments)
