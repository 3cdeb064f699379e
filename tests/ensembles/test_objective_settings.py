"""Objectives by name: their defaults, what is refused in one line, and how they are saved."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from divtf import (
    OBJECTIVES,
    BatchNormalization,
    CrossEntropy,
    Ensemble,
    GradientAlignment,
    InputError,
    make_objective,
)
from divtf.ensembles.objectives.features import first_layers

# Name -> settings by default, from the papers or, where a class says so, their code.
DEFAULTS = {
    "cross_entropy": {},
    "gal": {"weight": 0.5, "sharpness": 1.0},
    "adp": {"alpha": 2.0, "beta": 0.5},
    "trs": {"similarity": 10.0, "smoothness": 1.0, "epsilon": 0.03, "steps": 6, "step": 1 / 3},
    "parl": {"weight": 0.25, "layers": 5},
    "dverge": {"epsilon": 0.07, "steps": 10, "step": 0.1},
    "adversarial": {"epsilon": 8 / 255, "steps": 10, "step": 0.25, "gal": 0.0},
}
RANGE = {"clip_min": 0.0, "clip_max": 1.0}
PERTURBED = ("trs", "dverge", "adversarial")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_defaults_are_the_authors_values(name):
    expected = {"label_smoothing": 0.0} | DEFAULTS[name] | (RANGE if name in PERTURBED else {})
    assert dataclasses.asdict(make_objective(name)) == expected
    assert make_objective(name) == OBJECTIVES[name]() == make_objective(name, **expected)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_by_name_are_serialised_with_their_settings(name):
    first = next(iter(DEFAULTS[name]), "label_smoothing")
    made = make_objective(name, **{"label_smoothing": 0.125} | {first: 0.25})
    assert getattr(made, first) == 0.25
    saved = keras.saving.serialize_keras_object(made)
    assert keras.saving.deserialize_keras_object(saved) == made


def test_an_objective_cannot_be_changed_after_its_settings_were_checked():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_objective("gal").weight = -1


def test_settings_of_other_number_types_are_pythons_own():
    config = make_objective("trs", steps=np.int64(3), epsilon=np.float32(0.5), similarity=2).get_config()
    assert [type(config[name]) for name in ("steps", "epsilon", "similarity")] == [int, float, float]
    assert type(make_objective("parl", layers=3.0).layers) is int
    assert GradientAlignment(1).weight == 1.0 and CrossEntropy(label_smoothing=0).label_smoothing == 0.0


# Setting -> objectives that have it, values that it may not have, and what is said.
WEIGHT = (-0.5, float("inf"), float("nan"), "half", True, None)
STEPS = (0, -1, 1.5, float("inf"), float("nan"), "two", True, None)
SIZE = (0, -0.25, 1.5, float("nan"), "small", True)
EPSILON = (0, -0.1, 1.001, float("nan"), float("inf"), "small", True)
OUT_OF_RANGE = {
    "weight": (("gal", "parl"), WEIGHT, "finite and >= 0"),
    "alpha": (("adp",), WEIGHT, "alpha, the weight of the entropy, that is finite and >= 0"),
    "beta": (("adp",), WEIGHT, "beta, the weight of the diversity, that is finite and >= 0"),
    "similarity": (("trs",), WEIGHT, "similarity, .* that is finite and >= 0"),
    "smoothness": (("trs",), WEIGHT, "smoothness, .* that is finite and >= 0"),
    "gal": (("adversarial",), WEIGHT, "gal, the weight of GAL, that is finite and >= 0"),
    "sharpness": (("gal",), (0, -1, float("inf"), float("nan"), "sharp", True), "a finite sharpness > 0"),
    "layers": (("parl",), STEPS, "whole layers >= 1"),
    "steps": (PERTURBED, STEPS, "whole steps >= 1"),
    "step": (PERTURBED, SIZE, "0 < step <= 1, in units of epsilon"),
    "epsilon": (PERTURBED, EPSILON, r"epsilon (> 0|in \(0, 1\])"),
    "clip_min": (PERTURBED, (float("nan"), float("-inf"), "0", True), "a finite clip_min"),
    "clip_max": (PERTURBED, (float("nan"), float("inf"), "1", None), "a finite clip_max"),
    "label_smoothing": (
        tuple(OBJECTIVES),
        (-0.1, 1, float("nan"), "some", True),
        r"label_smoothing in \[0, 1\)",
    ),
}


@pytest.mark.parametrize("setting", OUT_OF_RANGE)
def test_settings_out_of_range_are_refused_in_one_line(setting):
    names, values, expected = OUT_OF_RANGE[setting]
    for name in names:
        for value in values:
            with pytest.raises(InputError, match=rf"^Expected .*{expected}") as refused:
                make_objective(name, **{setting: value})
            assert "\n" not in str(refused.value)
            assert f"Received: {setting}={value!r}" in str(refused.value), (name, value)


def test_every_setting_is_in_the_table_of_refusals():
    for name, kind in OBJECTIVES.items():
        for field in dataclasses.fields(kind):
            assert name in OUT_OF_RANGE[field.name][0], (name, field.name)


@pytest.mark.parametrize("name", PERTURBED)
@pytest.mark.parametrize("ends", [(0.5, 0.5), (1, 0), (2, 1)])
def test_an_empty_image_range_is_refused(name, ends):
    low, high = ends
    with pytest.raises(InputError, match=rf"^Expected clip_min < clip_max. Received: clip_min={low}"):
        make_objective(name, epsilon=0.1, clip_min=low, clip_max=high)


@pytest.mark.parametrize("name", PERTURBED)
def test_epsilon_may_be_as_large_as_the_image_range(name):
    assert make_objective(name, epsilon=255, clip_max=255).threat.epsilon == 255
    with pytest.raises(InputError, match=r"^Expected epsilon in \(0, 0.5\]"):
        make_objective(name, epsilon=0.6, clip_min=0.5)


@pytest.mark.parametrize("name", ["TRS", "", "pgd", None, 3, ("gal",), ["gal"], {"gal": 1}])
def test_unknown_objectives_are_refused_with_those_that_are_known(name):
    with pytest.raises(
        InputError, match=r"^Expected objective as one of \['cross_entropy', 'gal'"
    ) as refused:
        make_objective(name)
    assert str(refused.value).endswith(f"Received: {name!r}")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_unknown_settings_are_refused_with_those_that_are_known(name):
    with pytest.raises(InputError) as refused:
        make_objective(name, lamda=0.5, steepness=1)
    known = [field.name for field in dataclasses.fields(OBJECTIVES[name])]
    assert str(refused.value) == (
        f"Expected settings of {name} among {known}. Received: ['lamda', 'steepness']"
    )


# Members that do not fit an objective


def member(features, classes=3, name="member"):
    inputs = keras.Input((4, 4, 1))
    return keras.Model(inputs, layers.Dense(classes)(features(inputs)), name=name)


def dense(units):
    return lambda x: layers.Dense(units)(layers.Flatten()(x))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.flatten, self.dense = layers.Flatten(), layers.Dense(3)

    def call(self, x):
        return self.dense(self.flatten(x))


def built(model):
    model(np.zeros((1, 4, 4, 1), "float32"))
    return model


class OwnKernel(layers.Layer):
    def build(self, shape):
        self.factor = self.add_weight(shape=(3,))

    def call(self, x):
        return self.factor * keras.ops.mean(x, axis=[1, 2])


def without_kernels():
    inputs = keras.Input((4, 4, 1))
    return keras.Model(inputs, OwnKernel()(inputs), name="no_kernels")


def of_anothers_layers():
    """As one would make a model of a pretrained one's layers."""
    x = inputs = keras.Input((4, 4, 1))
    for layer in member(dense(4)).layers[1:]:
        x = layer(x)
    return keras.Model(inputs, x, name="made_of_another")


def in_front(backbone):
    """A member with a model nested in it, as one takes a backbone of keras.applications."""
    return member(lambda x: layers.Flatten()(backbone(x, training=False)), name="nested")


def of_two_outputs():
    inputs = keras.Input((4, 4, 1))
    both = keras.Model(inputs, [layers.Conv2D(2, 3)(inputs), layers.Flatten()(inputs)], name="two_outputs")
    return member(lambda x: layers.Flatten()(both(x)[0]))


def in_whole_numbers():
    made = member(dense(4))
    made.layers[2].quantize("int8")
    return made


FUNCTIONAL = (
    "functional or sequential members, and models nested in them, of one input and output, whose layers can "
    r"be looked into\. Received: <Subclassed"
)
UNFIT = {
    "ADP with as many members as classes": (
        "adp",
        lambda: [member(dense(4)) for _ in range(3)],
        r"fewer members than classes \(3\) for ADP\. Received: 3 members",
    ),
    "ADP with more members than classes": (
        "adp",
        lambda: [member(dense(4), 2) for _ in range(3)],
        r"fewer members than classes \(2\) for ADP\. Received: 3 members",
    ),
    "PARL with other kernel shapes": (
        "parl",
        lambda: [member(dense(4)), member(dense(5))],
        r"members whose first 5 layers have kernels of the same shapes\. Received: \[\[\(16, 4\)",
    ),
    "PARL with another number of layers": (
        "parl",
        lambda: [member(dense(4)), member(lambda x: dense(4)(dense(4)(x)))],
        "members whose first 5 layers have kernels of the same shapes",
    ),
    "PARL with a subclassed member": ("parl", lambda: [Subclassed(), Subclassed()], FUNCTIONAL),
    "PARL with a built subclassed member": ("parl", lambda: [built(Subclassed()) for _ in "ab"], FUNCTIONAL),
    "PARL with a model of two outputs in a member": (
        "parl",
        lambda: [of_two_outputs() for _ in "ab"],
        FUNCTIONAL.replace("Subclassed", "Functional name=two_outputs"),
    ),
    "PARL without kernels": (
        "parl",
        lambda: [without_kernels(), without_kernels()],
        "members with convolutions or dense layers of their own. Received: no_kernels",
    ),
    "DVERGE with a subclassed member": ("dverge", lambda: [member(dense(4)), Subclassed()], FUNCTIONAL),
    "DVERGE with a subclassed model in a member": (
        "dverge",
        lambda: [member(dense(4)), in_front(Subclassed())],
        FUNCTIONAL,
    ),
    "DVERGE without kernels": (
        "dverge",
        lambda: [member(dense(4)), without_kernels()],
        "members with convolutions or dense layers of their own. Received: no_kernels",
    ),
    **{
        f"one member for {name}": (
            name,
            lambda: [member(dense(4))],
            f"at least 2 members for {OBJECTIVES[name].__name__}. Received: 1",
        )
        for name in ("gal", "adp", "trs", "parl", "dverge")
    },
}


@pytest.mark.parametrize("case", UNFIT)
def test_members_that_do_not_fit_are_refused_in_one_line(case):
    name, members, message = UNFIT[case]
    with pytest.raises(InputError, match=f"^Expected {message}") as refused:
        ensemble = Ensemble(members(), make_objective(name))
        ensemble.build((None, 4, 4, 1))  # Of members that no images have built yet.
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: in_front(Subclassed()), FUNCTIONAL),
        (in_whole_numbers, "layers with a kernel of floating-point numbers among .* Received: <Dense"),
    ],
)
def test_parl_refuses_by_itself_what_no_check_did(made, message):
    """With check=False members are not measured before."""
    with pytest.raises(InputError, match=f"^Expected {message}") as refused:
        Ensemble([made(), made()], make_objective("parl"), check=False)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["cross_entropy", "adversarial"])
def test_one_member_is_enough_where_none_is_compared(name):
    Ensemble([member(dense(4))], make_objective(name))


def test_adversarial_training_compares_members_and_needs_exact_layers_with_gal_alone():
    plain, aligned = make_objective("adversarial"), make_objective("adversarial", gal=0.5)
    assert (plain.least_members, plain.second_order) == (1, False)
    assert (aligned.least_members, aligned.second_order) == (2, True)
    with pytest.raises(InputError, match=r"^Expected at least 2 members for AdversarialTraining\. "):
        Ensemble([member(dense(4))], aligned)


FORMS = {
    "sequential": lambda: keras.Sequential(
        [keras.Input((4, 4, 1)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(3)]
    ),
    "sequential without an input": lambda: keras.Sequential(
        [layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(3)]
    ),
    "functional": lambda: member(lambda x: layers.Flatten()(layers.Conv2D(2, 3)(x))),
    "layers of another model": of_anothers_layers,
    "compiled": lambda: compiled(member(lambda x: layers.Flatten()(layers.Conv2D(2, 3)(x)))),
    "put together by add": lambda: added([layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(3)]),
    "a nested model in front": lambda: member(
        lambda x: layers.Flatten()(keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(2, 3)])(x))
    ),
    "nested models in a sequential one": lambda: keras.Sequential(
        [keras.Input((4, 4, 1)), in_front(keras.Sequential([layers.Conv2D(2, 3)])), layers.Dense(3)]
    ),
    "a dense layer with LoRA": lambda: with_lora(member(dense(4))),
    "a nested model without kernels": lambda: in_front(Shifted()),
}


class Shifted(keras.Model):
    def call(self, x):
        return x / 2


def with_lora(model):
    for layer in model.layers[2:]:
        layer.enable_lora(1, b_initializer="normal")
    return model


def compiled(model):
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def added(parts):
    """Keras calls its layers again whenever one is added."""
    made = keras.Sequential([keras.Input((4, 4, 1))])
    for layer in parts:
        made.add(layer)
    return made


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["parl", "dverge"])
def test_members_of_any_graph_are_looked_into(name, form, tiny_batch):
    params = {"steps": 2} if name == "dverge" else {}
    ensemble = Ensemble([FORMS[form]() for _ in range(2)], make_objective(name, **params))
    ensemble.compile("sgd", run_eagerly=True)
    x, y = tiny_batch(4, (4, 4, 1))
    assert np.isfinite(ensemble.fit(x, y, verbose=0).history["loss"]).all()


class Rescaled(keras.Model):
    """A graph of layers with code of its own before them."""

    def call(self, x, training=False):
        return super().call(10 * x - 5, training=training)


@pytest.mark.parametrize("name", ["parl", "dverge"])
def test_members_that_compute_something_else_than_their_layers_are_refused(name):
    def member():
        images = keras.Input((4, 4, 1))
        return Rescaled(images, layers.Dense(3)(layers.Flatten()(layers.Conv2D(2, 3)(images))))

    with pytest.raises(InputError, match=r"whose layers put together anew give other outputs, off by"):
        Ensemble([member(), member()], make_objective(name), check=False)


def test_separable_convolutions_are_looked_into(tiny_batch):
    """Or PARL would make the logits differ, in which members should agree."""
    members = [
        keras.Sequential(
            [keras.Input((4, 4, 1)), layers.SeparableConv2D(2, 3), layers.Flatten(), layers.Dense(3)]
        )
        for _ in range(2)
    ]
    assert [type(layer) for layer in first_layers(members[0], 2)] == [layers.SeparableConv2D]
    ensemble = Ensemble(members, make_objective("parl"), check=False)
    ensemble.compile("sgd")
    assert np.isfinite(ensemble.fit(*tiny_batch(4, (4, 4, 1)), verbose=0).history["loss"]).all()


def test_an_objective_that_gives_no_terms_gets_one_line(tiny_members, tiny_batch):
    class Sum:
        def __call__(self, members, x, y, *, training):
            return tf.add_n([tf.reduce_sum(member(x, training=training)) for member in members])

    ensemble = Ensemble(tiny_members(2), Sum())
    ensemble.compile("sgd")
    for method in (ensemble.fit, ensemble.evaluate):
        with pytest.raises(
            InputError, match=r"^Expected an objective that gives Terms\. Received: Sum, which gives"
        ):
            method(*tiny_batch(), verbose=0)


def test_logits_of_other_than_all_members_get_one_line(tiny_members, tiny_batch):
    class OfTheFirst(CrossEntropy):
        def __call__(self, members, x, y, *, training):
            return super().__call__(members[:1], x, y, training=training)

    ensemble = Ensemble(tiny_members(2), OfTheFirst())
    ensemble.compile("sgd")
    with pytest.raises(InputError, match=r"^Expected an objective that gives the logits of 2 members\. Rec"):
        ensemble.fit(*tiny_batch(), verbose=0)


def test_an_objective_that_is_set_later_is_held_to_the_same(tiny_members):
    ensemble = Ensemble(tiny_members(2), memory="low")
    ensemble.objective = make_objective("trs")
    with pytest.raises(InputError, match=r"for memory='low'.*Received: TransferabilityReducedSmoothness"):
        ensemble.compile("sgd")
    one = Ensemble(tiny_members(1), CrossEntropy())
    one.objective = GradientAlignment()
    with pytest.raises(InputError, match="at least 2"):
        one.compile("sgd")


def test_an_objective_of_ones_own_may_have_settings_of_any_type():
    @dataclasses.dataclass(frozen=True)
    class Named(GradientAlignment):
        title: str = "mine"

    assert Named(title="ours").title == "ours" and Named().weight == 0.5
    with pytest.raises(InputError, match="weight"):
        Named(weight=-1)


@pytest.mark.parametrize("compiled", [{}, {"run_eagerly": True}, {"jit_compile": True}], ids=str)
@pytest.mark.parametrize("name", ["trs", "dverge", "adversarial"])
def test_images_outside_the_range_are_refused_and_not_clipped(name, compiled, tiny_members, tiny_batch):
    def members():  # Without max-pooling, which XLA does not differentiate twice.
        return tiny_members(2, features=lambda x: keras.layers.Flatten()(keras.layers.Conv2D(4, 3)(x)))

    x, y = tiny_batch(8)
    ensemble = Ensemble(members(), make_objective(name, steps=1))
    ensemble.compile("sgd", **compiled)
    message = r"images in \[0(\.0)?, 1(\.0)?\], the objective.s clip_min and clip_max\. Received: .* to 25\d"
    with pytest.raises(InputError, match=message):
        ensemble.fit(255 * x, y, verbose=0)
    wide = Ensemble(members(), make_objective(name, steps=1, clip_max=255, epsilon=8))
    wide.compile("sgd", **compiled)
    wide.fit(255 * x, y, verbose=0)


@pytest.mark.parametrize("name", ["gal", "parl", "dverge"])
def test_members_put_together_by_add_train_as_those_of_a_list(name, tiny_batch):
    """To the last moving statistic and the state of dropout: no layer is called more often."""
    x, y = tiny_batch(4, (4, 4, 1))

    def parts(seed):
        first, second, third = (keras.initializers.GlorotUniform(seed + place) for place in range(3))
        return [
            layers.Conv2D(2, 2, kernel_initializer=first),
            BatchNormalization(momentum=0.5),
            layers.Dropout(0.3, seed=seed),
            layers.Conv2D(2, 2, kernel_initializer=second),
            layers.Flatten(),
            layers.Dense(3, kernel_initializer=third),
        ]

    def trained(put_together):
        params = {"steps": 2} if name == "dverge" else {}
        ensemble = Ensemble([put_together(parts(seed)) for seed in (0, 3)], make_objective(name, **params))
        ensemble.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        ensemble.fit(x, y, shuffle=False, verbose=0)
        return [variable.numpy() for member in ensemble.members for variable in member.variables]

    by_add = trained(added)
    by_list = trained(lambda parts: keras.Sequential([keras.Input((4, 4, 1)), *parts]))
    for found, expected in zip(by_add, by_list, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
