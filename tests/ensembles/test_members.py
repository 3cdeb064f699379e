"""Members as people have them, and those that are refused."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from divtf import (
    CrossEntropy,
    Ensemble,
    GradientAlignment,
    InputError,
    ThreatModel,
    build_member,
    evaluate_transfer,
    gradient_statistics,
    make_attack,
)


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden, self.flatten, self.out = layers.Dense(units, "tanh"), layers.Flatten(), layers.Dense(3)

    def call(self, inputs):
        return self.out(self.flatten(self.hidden(inputs)))

    def get_config(self):
        return super().get_config() | {"units": self.units}


def functional(shape, name):
    inputs = keras.Input(shape)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layers.Dense(4, "tanh")(inputs))), name=name)


def built(model, shape):
    model(np.zeros((1, *shape)))
    return model


KINDS = {
    "functional": functional,
    "sequential": lambda shape, name: keras.Sequential(
        [keras.Input(shape), layers.Dense(4, "tanh"), layers.Flatten(), layers.Dense(3)], name=name
    ),
    "sequential, not built": lambda shape, name: keras.Sequential(
        [layers.Dense(4, "tanh"), layers.Flatten(), layers.Dense(3)], name=name
    ),
    "subclassed": lambda shape, name: built(Subclassed(name=name), shape),
    "subclassed, not built": lambda shape, name: Subclassed(name=name),
}
SHAPES = {"images": (5, 5, 2), "signals": (6, 3), "features": (7,)}
# Each kind and each shape once; the other pairs are slow.
QUICK = {
    *(("functional", "features"), ("sequential", "images"), ("sequential, not built", "signals")),
    *(("subclassed", "signals"), ("subclassed, not built", "images")),
}


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        pytest.param(*pair, marks=[] if pair in QUICK else pytest.mark.slow)
        for pair in itertools.product(KINDS, SHAPES)
    ],
)
def test_any_model_trains_is_attacked_and_comes_back(kind, shape, rng, tmp_path):
    x, y = rng.random((12, *SHAPES[shape]), dtype="float32"), rng.integers(3, size=12)
    ensemble = Ensemble([KINDS[kind](x.shape[1:], name) for name in "ab"])
    ensemble.compile(keras.optimizers.Adam(0.1))
    history = ensemble.fit(x, y, epochs=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert set(history) == {
        "loss",
        "cross_entropy",
        "gal",
        "coherence",
        "accuracy",
        "a_accuracy",
        "b_accuracy",
    }
    results = evaluate_transfer(ensemble, {"itself": ensemble}, (x, y), make_attack("fgsm", ThreatModel(0.2)))
    assert [result.attack for result in results] == ["clean", "fgsm", "worst_case"]
    assert results[1].correct <= results[0].correct and results[1].unmoved == 0
    assert gradient_statistics(ensemble, x, y).coherence.shape == (12,)
    ensemble.save(tmp_path / "e.keras")
    restored = keras.models.load_model(tmp_path / "e.keras")
    np.testing.assert_array_equal(restored.predict(x, verbose=0), ensemble.predict(x, verbose=0))
    np.testing.assert_allclose(
        restored.evaluate(x, y, verbose=0), ensemble.evaluate(x, y, verbose=0), rtol=1e-6
    )


def test_kinds_of_models_mix(rng):
    x, y = rng.random((8, 7), dtype="float32"), rng.integers(3, size=8)
    ensemble = Ensemble([make((7,), f"m{i}") for i, make in enumerate(KINDS.values())])
    ensemble.compile()
    ensemble.fit(x, y, verbose=0)
    assert ensemble.predict(x, verbose=0).shape == (8, 3)


def test_members_of_one_name_are_told_apart_by_their_positions(tmp_path, rng):
    x, y = rng.random((8, 8, 8, 1), dtype="float32"), rng.integers(10, size=8)
    ensemble = Ensemble([build_member("conv3", (8, 8, 1), 10) for _ in range(2)])
    ensemble.compile()
    history = ensemble.fit(x, y, verbose=0).history
    assert {"conv3_0_accuracy", "conv3_1_accuracy"} < set(history)
    ensemble.save(tmp_path / "e.keras")
    restored = keras.models.load_model(tmp_path / "e.keras")
    np.testing.assert_array_equal(restored.predict(x, verbose=0), ensemble.predict(x, verbose=0))
    assert restored.optimizer.iterations == 1


def test_models_that_are_not_built_may_be_called_measured_and_asked_first(rng):
    x, y = rng.random((8, 7), dtype="float32"), rng.integers(3, size=8)
    for use in (
        lambda e: e(x),
        lambda e: e.predict(x, verbose=0),
        lambda e: e.evaluate(x, y, verbose=0),
        lambda e: e.train_on_batch(x, y),
        lambda e: e.build((None, 7)),
    ):
        ensemble = Ensemble([Subclassed(name=name) for name in "ab"])
        ensemble.compile()
        use(ensemble)
        assert ensemble.built and ensemble.num_classes == 3 and len(ensemble.trainable_variables) == 8


@pytest.mark.parametrize("kind", ["an Ensemble", "a list", "a tuple", "callables", "what holds one"])
def test_members_are_one_target_and_one_surrogate_in_any_form(kind, rng, tmp_path):
    x, y = rng.random((12, 7), dtype="float32"), rng.integers(3, size=12)
    members = [functional((7,), name) for name in "ab"]
    ensemble = Ensemble(members, CrossEntropy())
    form = {
        "an Ensemble": ensemble,
        "a list": members,
        "a tuple": tuple(members),
        "callables": [lambda x, m=m: m(x) for m in members],
        "what holds one": type("Run", (), {"ensemble": ensemble})(),
    }[kind]
    attack = make_attack("mifgsm", ThreatModel(0.2))
    np.testing.assert_array_equal(attack(form, x, y), attack(ensemble, x, y))
    directory = tmp_path if kind != "callables" else None
    expected = evaluate_transfer(ensemble, {"t": ensemble}, (x, y), attack)
    found = evaluate_transfer(form, {"t": form}, (x, y), attack, directory=directory)
    assert [result.correct for result in found] == [result.correct for result in expected]


def probabilities(make):
    inputs = keras.Input((7,))
    return keras.Model(inputs, make(layers.Dense(3)(inputs)), name="p")


class Masked(layers.Layer):
    def call(self, inputs):
        return {"logits": inputs}


def sharing():
    shared = layers.Dense(3, name="shared")
    models = []
    for name in "ab":
        inputs = keras.Input((7,))
        models.append(keras.Model(inputs, shared(inputs), name=name))
    return models


def two_inputs():
    inputs = [keras.Input((7,)), keras.Input((7,))]
    return keras.Model(inputs, layers.Dense(3)(layers.Add()(inputs)))


def spoilt():
    model = functional((7,), "n")
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    return model


def half():
    return keras.Sequential(
        [keras.Input((7,)), layers.Dense(3, dtype="mixed_float16", name="h")], name="half"
    )


REFUSED = {
    "a softmax": (lambda: [probabilities(layers.Softmax())], "probabilities.*divtf.convert_member"),
    "a softmax by ops": (lambda: [probabilities(keras.ops.softmax)], "logits.*'p'.*probabilities"),
    "a softmax times .9": (
        lambda: [probabilities(lambda x: 0.9 * keras.ops.softmax(x))],
        "numbers in \\[0, 1\\]",
    ),
    "a sigmoid": (lambda: [probabilities(layers.Activation("sigmoid"))], "numbers in \\[0, 1\\]"),
    "a sigmoid by ops": (lambda: [probabilities(keras.ops.sigmoid)], "numbers in \\[0, 1\\]"),
    "a sigmoid by TensorFlow": (lambda: [probabilities(layers.Lambda(tf.sigmoid))], "numbers in \\[0, 1\\]"),
    "NaN": (lambda: [spoilt()], "finite logits.*'n' with NaN"),
    "several inputs": (lambda: [two_inputs()], "members of one input.*None, 7"),
    "a dictionary": (lambda: [probabilities(Masked())], "one output.*'p' that gives a dict"),
    "a map of logits": (
        lambda: [keras.Sequential([keras.Input((4, 7)), layers.Dense(3)])],
        r"logits \[B, C >= 2\]",
    ),
    "one logit": (lambda: [keras.Sequential([keras.Input((7,)), layers.Dense(1)])], r"logits \[B, C >= 2\]"),
    "other classes": (
        lambda: [functional((7,), "a"), keras.Sequential([keras.Input((7,)), layers.Dense(4)])],
        "one output shape",
    ),
    "other images": (lambda: [functional((7,), "a"), functional((8,), "b")], "one input shape"),
    "weights in common": (sharing, "share no weights.*'a' and 'b' with shared/kernel"),
    "the same twice": (lambda: [functional((7,), "a")] * 2, "share no weights"),
    "float16": (lambda: [half()], "float32, float64 or bfloat16.*'half' with .*'h'"),
    "a layer": (lambda: [layers.Dense(3)], "members that are Keras models.*Dense"),
    "a function": (lambda: [tf.identity], "members that are Keras models"),
    "a model": (lambda: functional((7,), "a"), "a sequence of Keras models"),
    "a name": (lambda: "conv3", "members that are Keras models. Received: 'c'"),
    "none": (lambda: [], "at least 1 members"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_members_that_cannot_serve_are_one_line(case):
    make, message = REFUSED[case]
    with pytest.raises(InputError, match=message) as raised:
        Ensemble(make(), CrossEntropy())
    assert "\n" not in str(raised.value)


def test_logits_that_look_like_probabilities_pass_unchecked(rng):
    x, y = rng.random((8, 7), dtype="float32"), rng.integers(3, size=8)
    ensemble = Ensemble([probabilities(keras.ops.sigmoid)], CrossEntropy(), check=False)
    ensemble.compile()
    ensemble.fit(x, y, verbose=0)


def test_logits_that_are_all_zero_are_logits():
    Ensemble(
        [keras.Sequential([keras.Input((7,)), layers.Dense(3, kernel_initializer="zeros")])], CrossEntropy()
    )


def test_members_of_this_package_are_of_channels_last_whatever_keras_has(rng):
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        ensemble = Ensemble([build_member(name, (8, 8, 1), 3) for name in ("conv3", "resnet20")])
        ensemble.compile()
        ensemble.fit(rng.random((4, 8, 8, 1), dtype="float32"), rng.integers(3, size=4), verbose=0)
    finally:
        keras.config.set_image_data_format(before)


@pytest.mark.parametrize("given", ["loss", "loss_weights"])
def test_compile_takes_no_loss_nor_its_weights(given):
    ensemble = Ensemble([functional((7,), "a"), functional((7,), "b")], GradientAlignment())
    with pytest.raises(InputError, match=f"Expected no {given}: the objective is the loss"):
        ensemble.compile(**{given: [1.0, 2.0]})


def test_no_two_members_have_one_measure():
    ensemble = Ensemble([functional((7,), name) for name in ("a", "a", "a_0")], CrossEntropy())
    names = [name for name in ensemble._measures if name.endswith("_accuracy")]
    assert names == ["a_0_accuracy", "a_1_accuracy", "a_0_2_accuracy"]


def test_layers_of_several_precisions_train(rng):
    member = keras.Sequential(
        [keras.Input((7,)), layers.Dense(4, "tanh", dtype="float64"), layers.Dense(3)], name="both"
    )
    ensemble = Ensemble([member, functional((7,), "a")])
    ensemble.compile()
    ensemble.fit(rng.random((8, 7), dtype="float32"), rng.integers(3, size=8), verbose=0)
