"""Models of the user's own by name: what becomes a member, and from which weights it begins."""

import random
import sys

import keras
import numpy as np
import own_models
import pytest
from keras import layers
from logged import logged

import divtf
from divtf import InputError, build_members
from divtf.networks import named, names
from divtf.runtime import own_code

SHAPE, CLASSES = (8, 8, 1), 3
MODULE = own_models.NAME


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    own_models.importable(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)


def members(model, *, seed=0, count=2, **options):
    return build_members(model, count, SHAPE, CLASSES, seed=seed, **options)


def save(*stems):
    """Members of the module in files, as they were before any training of divtf's."""
    for member, stem in zip(members(f"{MODULE}:small", seed=77, count=len(stems)), stems, strict=True):
        member.save(f"{stem}.keras")
    return ",".join(f"{stem}.keras" for stem in stems)


def kernels(model):
    return [weight.numpy() for weight in model.trainable_weights if weight.shape.rank > 1]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(kernels(one), kernels(other), strict=True))


def differ(one, other):
    return not any(np.array_equal(a, b) for a, b in zip(kernels(one), kernels(other), strict=True))


def of_type(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


FORMS = [f"{MODULE}:small", f"{MODULE}:unseeded", f"{MODULE}:Network", "new:a.keras,b.keras"]


@pytest.mark.parametrize("model", FORMS)
def test_each_member_and_each_seed_begins_from_weights_of_its_own(model):
    save("a", "b")
    first, second = members(model)
    other, _ = members(model, seed=1)
    again, _ = members(model)
    assert differ(first, second) and differ(first, other)
    assert same(first, again), "a seed gives the same weights each time"


@pytest.mark.parametrize("model", FORMS)
def test_global_generators_are_left_alone(model):
    save("a", "b")
    before = random.getstate(), np.random.get_state()[1].copy()
    members(model)
    assert random.getstate() == before[0]
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])


def test_a_function_is_told_shape_classes_name_and_seed_and_is_converted():
    first, second = members(f"{MODULE}:small")
    assert (first.name, second.name) == ("small_0", "small_1")
    assert (first.input_shape, first.output_shape) == ((None, *SHAPE), (None, CLASSES))
    assert of_type(first, divtf.BatchNormalization) == of_type(first, layers.BatchNormalization) != []
    (expected,) = sys.modules[MODULE].small(SHAPE, CLASSES, "x", 1000).get_weights()[:1]
    np.testing.assert_array_equal(second.get_weights()[0], expected)


def test_a_softmax_at_the_end_is_taken_off(rng):
    plain, ends = members(f"{MODULE}:small")[0], members(f"{MODULE}:with_softmax")[0]
    x = rng.random((2, *SHAPE), dtype="float32")
    np.testing.assert_allclose(ends(x), plain(x), rtol=1e-5)


def test_what_is_no_graph_is_taken_as_it_is():
    first, _ = members(f"{MODULE}:Network")
    assert type(first).__name__ == "Network" and first.built


@pytest.mark.parametrize("seed", [4294, 2**31 - 1])
def test_a_function_is_given_seeds_that_every_generator_takes(seed):
    seen = []
    sys.modules[MODULE] = own_code.import_module(MODULE, "model")
    small = sys.modules[MODULE].small
    sys.modules[MODULE].small = lambda **given: (seen.append(given["seed"]), small(**given))[1]
    members(f"{MODULE}:small", seed=seed)
    assert len(set(seen)) == 2 and all(0 <= value < 2**31 for value in seen)


def test_precision_is_that_of_the_layers_that_a_function_makes():
    (member,) = members(f"{MODULE}:small", count=1, dtype="mixed_bfloat16")
    assert {layer.compute_dtype for layer in member.layers if layer.weights} == {"bfloat16"}
    assert keras.config.dtype_policy().name == "float32"


def test_the_working_directory_is_searched_for_the_module(tmp_path, monkeypatch):
    own_models.write(tmp_path, "in_the_working_directory")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    assert len(members("in_the_working_directory:small")) == 2


@pytest.fixture(scope="module")
def mobile():
    return build_members("keras:MobileNetV3Small", 2, (32, 32, 3), CLASSES, seed=3)


def test_an_application_begins_from_weights_of_its_own(mobile):
    first, second = mobile
    (again,) = build_members("keras:MobileNetV3Small", 1, (32, 32, 3), CLASSES, seed=3)
    assert (first.name, second.name) == ("MobileNetV3Small_0", "MobileNetV3Small_1")
    assert differ(first, second) and same(first, again)
    nested = of_type(first, keras.Model)[0]
    assert of_type(nested, divtf.BatchNormalization) == of_type(nested, layers.BatchNormalization) != []


def test_an_application_that_takes_bytes_is_given_them(mobile, rng):
    """Of its own kind, with the same weights and without what stands before it, on images of [0, 255]."""
    plain = keras.applications.MobileNetV3Small(
        weights=None, input_shape=(32, 32, 3), classes=CLASSES, classifier_activation=None
    )
    plain.set_weights(mobile[0].get_weights())
    x = rng.random((2, 32, 32, 3), dtype="float32")
    found, expected, other = (each.numpy() for each in (mobile[0](x), plain(255 * x), plain(x)))
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected - other).max()


def of_bytes(scale=1 / 255, offset=0.0):
    x = keras.Input(SHAPE)
    return keras.Model(x, layers.Dense(CLASSES)(layers.Flatten()(layers.Rescaling(scale, offset)(x))))


def test_own_models_that_rescale_bytes_are_warned_of():
    """Runs give images in [0, 1], and files that were trained so must stay as they are."""
    of_bytes().save("bytes.keras")
    of_bytes(scale=0.5).save("half.keras")
    with logged() as lines:
        members("bytes.keras,half.keras")
    told = [line for line in lines if "rescales bytes, and runs give images in [0, 1]" in line]
    assert len(told) == 1 and told[0].startswith("bytes.keras")


def test_an_application_is_not_warned_of():
    with logged() as lines:
        build_members("keras:MobileNetV3Small", 1, (32, 32, 3), CLASSES, seed=3)
    assert not any("rescales bytes" in line for line in lines)


def test_an_application_that_takes_unit_images_is_given_those():
    (member,) = build_members("keras:MobileNet", 1, (32, 32, 3), CLASSES, seed=3)
    assert not of_type(member, layers.Rescaling) and of_type(member, layers.Conv2D)


def test_files_are_gone_on_with_in_their_order(rng):
    x = rng.random((2, *SHAPE), dtype="float32")
    model = save("b", "a")
    for member, stem in zip(members(model), "ba", strict=True):
        saved = keras.models.load_model(f"{stem}.keras")
        np.testing.assert_array_equal(member(x), saved(x))
        assert same(member, saved)


def test_architectures_of_files_without_their_weights():
    kept, fresh = members(save("a", "b")), members("new:a.keras,b.keras")
    for one, other in zip(kept, fresh, strict=True):
        assert differ(one, other)
        assert one.count_params() == other.count_params() and one.name == other.name


def test_a_saved_ensemble_is_its_members():
    kept = members(save("a", "b"))
    divtf.Ensemble(kept).save("both.keras")
    assert all(map(same, members("both.keras"), kept))
    assert names.members_in("both.keras") == 2 and names.members_in("a.keras") == 1


def test_what_is_not_trained_belongs_to_the_architecture():
    """Frozen weights would never learn, and statistics of the data are nobody's secret."""
    normalised = layers.Normalization()
    normalised.adapt(np.random.default_rng(0).normal(3, 2, (20, *SHAPE)))
    frozen = layers.Dense(5, trainable=False)
    saved = keras.Sequential(
        [keras.Input(SHAPE), normalised, layers.Flatten(), frozen, layers.Dense(CLASSES)]
    )
    saved.save("a.keras")
    (member,) = members("new:a.keras", count=1)
    (kept,) = members("a.keras", count=1)
    for layer, before in zip(member.layers[:-1], kept.layers[:-1], strict=True):
        for one, other in zip(layer.get_weights(), before.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
    assert differ(keras.Sequential(member.layers[-1:]), keras.Sequential(kept.layers[-1:]))
    x = np.full((1, *SHAPE), 3.0, "float32")
    np.testing.assert_allclose(member.layers[0](x), kept.layers[0](x))


def test_every_seed_in_a_configuration_is_another():
    def dropped():
        return layers.Dropout(0.5, seed=1)

    given = keras.Sequential(
        [keras.Input(SHAPE), layers.Flatten(), dropped(), layers.Dense(4), dropped(), layers.Dense(CLASSES)]
    )

    def seeds(config):
        if isinstance(config, dict):
            own = [config["seed"]] if isinstance(config.get("seed"), int) else []
            return own + [seed for value in config.values() for seed in seeds(value)]
        return [seed for value in config for seed in seeds(value)] if isinstance(config, list) else []

    drawn = seeds(named.drawn_anew(given, 5, "copy").get_config())
    assert len(drawn) == len(set(drawn)) == 4, "of two Dropout and two kernels"


@pytest.mark.parametrize(
    ("model", "short"),
    [
        ("package.networks:small", "small"),
        ("package:Nets.small", "small"),
        ("package:conv3", "own-conv3"),
        ("keras:MobileNetV3Small", "MobileNetV3Small"),
        ("runs/a.keras,b c.keras", "a+b_c"),
        ("new:a.keras#0123456789ab,b.keras#0123456789ab", "a+b"),
        ("mix.keras", "own-mix"),
        (",".join(f"member-of-mine-{i}.keras" for i in range(9)), "member-of-mine-0+8"),
        (".hidden:net", None),
    ],
)
def test_short_names_are_those_of_directories(model, short):
    assert names.is_own(model) == (short is not None)
    if short:
        assert names.short(model, {"conv3", "mix"}) == short


@pytest.mark.parametrize(
    "model",
    [
        *("conv3", "", ":", "a:", ":b", "a b:c", "a:b c", "keras:", "keras:A B", "a.keras,", ",a.keras"),
        *("a.keras,b", ".keras", "a.keras#12", "a\n.keras", "a.h5", "new:", "1a:b", "a..b:c"),
    ],
)
def test_what_has_the_form_of_no_own_model(model):
    assert not names.is_own(model)


def test_files_that_follow_each_other_in_a_list_are_one_model():
    given = ["conv3", "a.keras", "b.keras", "new:a.keras", "b.keras", "m:f", "c.keras"]
    assert names.joined(given) == ["conv3", "a.keras,b.keras", "new:a.keras,b.keras", "m:f", "c.keras"]


def test_files_are_known_by_their_content():
    model = names.pinned(save("a", "b"))
    assert names.pinned(model) == model and names.is_own(model)
    assert all(file.path.is_absolute() and len(file.digest) == 12 for file in names.files_of(model))
    members(model)
    save("x", "a")
    with pytest.raises(InputError, match=r"as it was when the run was configured.* changed since"):
        members(model)
    assert names.pinned("a.keras,b.keras") != model


@pytest.mark.parametrize(
    ("changed", "same"), [({}, True), ({"units": 7}, False), ({"head": layers.LeakyReLU()}, False)]
)
def test_a_model_computes_as_before_or_not(changed, same):
    small = own_code.import_module(MODULE, "model").small
    saved, _ = members(f"{MODULE}:small")
    now = small(SHAPE, CLASSES, "now", 5, **changed)
    assert named.computes_as(now, saved, SHAPE) == same
