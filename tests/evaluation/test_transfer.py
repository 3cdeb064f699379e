"""Transfer evaluation: accuracies known by construction, and adversarial sets made once and kept."""

import dataclasses
import importlib.util
import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from damage import Hostile, flip, truncate
from keras import layers

from divtf import CrossEntropy, GradientAlignment
from divtf.attacks.attack import Attack, compose_attack, make_attack, towards
from divtf.attacks.methods import ATTACKS
from divtf.attacks.recipe import Recipe
from divtf.attacks.threat import ThreatModel
from divtf.data.images import LazyImages, as_float
from divtf.ensembles.ensemble import Ensemble
from divtf.errors import InputError
from divtf.evaluation.adversarial_sets import AdversarialSets
from divtf.evaluation.predictions import predictions
from divtf.evaluation.stored import as_stored
from divtf.evaluation.transfer import evaluate_transfer
from divtf.storage import checked_json, digests
from divtf.storage.digests import file_digest
from divtf.storage.records import CLEAN, WORST_CASE, TransferResult

SHAPE, CLASSES = (4, 4, 1), 3


def made_ensemble(name="surrogate", seed=0, slope=0.1, scale=1.0):
    """Two small members with a LeakyReLU of this slope."""
    rng, members = np.random.default_rng(seed), []
    for n in range(2):
        images = keras.Input(SHAPE)
        x = layers.LeakyReLU(negative_slope=slope)(layers.Dense(6)(layers.Flatten()(images)))
        member = keras.Model(images, layers.Dense(CLASSES)(x), name=f"{name}_{n}")
        member.set_weights([scale * rng.normal(size=w.shape) for w in member.get_weights()])
        members.append(member)
    return Ensemble(members, CrossEntropy(), name=name)


def images_and_labels(count=10, seed=1):
    rng = np.random.default_rng(seed)
    return rng.random((count, *SHAPE), dtype="float32"), rng.integers(0, CLASSES, count)


@pytest.fixture(name="calls")
def fixture_calls(monkeypatch):
    """How many images each attack was asked to make, call by call."""
    made, attack = [], Attack.on_batches

    def counting(self, target, batches, **options):
        batches = list(batches)
        made.extend((self.name, len(x)) for x, _, _ in batches)
        return attack(self, target, batches, **options)

    monkeypatch.setattr(Attack, "on_batches", counting)
    return made


@dataclasses.dataclass(frozen=True)
class Paint:
    """An update that paints a pixel, so that a target can know what was done to an image."""

    pixel: int
    epsilons: float = 1.0

    def start(self, x):
        return ()

    def move(self, ascent, x, kept, context):
        mark = tf.reshape(tf.one_hot(self.pixel, math.prod(SHAPE)), SHAPE)
        return tf.clip_by_value(x + self.epsilons * ascent.threat.epsilon * mark, 0, 1), kept


@pytest.fixture(name="painted")
def fixture_painted(monkeypatch):
    """Attacks that paint the first or the second pixel."""
    for pixel, name in enumerate(("left", "right")):
        monkeypatch.setitem(ATTACKS, name, Recipe(update=Paint(pixel), steps=1))


class Scripted:
    """Knows an image by its last pixel, its label by heart, and fails on the images scripted for a mark."""

    def __init__(self, labels, fails):
        self.labels, self.fails = tf.constant(labels), fails

    def __call__(self, x):
        flat = np.asarray(x).reshape(len(x), -1)
        numbers = np.rint(flat[:, -1] * 100).astype(int)
        marks = np.where(flat[:, 0] > 0, "left", np.where(flat[:, 1] > 0, "right", "clean"))
        wrong = np.array([n in self.fails.get(m, ()) for n, m in zip(numbers, marks, strict=True)])
        return tf.one_hot((self.labels.numpy()[numbers] + wrong) % CLASSES, CLASSES)


def numbered(count=10):
    """Black images that carry their number in the last pixel."""
    x = np.zeros((count, *SHAPE), "float32")
    x[:, -1, -1, 0] = np.arange(count) / 100
    return x, np.arange(count) % CLASSES


def by_cell(results):
    return {(r.target, r.attack, r.epsilon): (r.correct, r.total) for r in results}


# Accuracies.


def test_accuracies_are_those_of_the_construction(painted):
    """Of ten images one is wrong when clean, three under `left`, four under `right`, one of them the same;
    in the worst case seven are wrong: an attacker may leave the first one as it is."""
    x, y = numbered()
    target = Scripted(y, {"clean": {9}, "left": {0, 1, 2}, "right": {2, 3, 4, 5}})
    perfect = Scripted(y, {})
    attacks = [make_attack(name, ThreatModel(0.1)) for name in ("left", "right")]
    results = evaluate_transfer(
        made_ensemble(), {"frail": target, "perfect": perfect}, (x, y), attacks, batch_size=4
    )
    assert by_cell(results) == {
        ("frail", CLEAN, 0.0): (9, 10),
        ("frail", "left", 0.1): (7, 10),
        ("frail", "right", 0.1): (6, 10),
        ("frail", WORST_CASE, 0.1): (3, 10),
        ("perfect", CLEAN, 0.0): (10, 10),
        ("perfect", "left", 0.1): (10, 10),
        ("perfect", "right", 0.1): (10, 10),
        ("perfect", WORST_CASE, 0.1): (10, 10),
    }
    assert [r.target for r in results] == ["frail"] * 4 + ["perfect"] * 4
    assert results[0].surrogate == "" and {r.surrogate for r in results if r.attack != CLEAN} == {"surrogate"}


def test_worst_case_is_taken_for_each_epsilon_apart(painted):
    x, y = numbered()
    target = Scripted(y, {"left": {0, 1}, "right": {1, 2}})
    attacks = [
        make_attack("left", ThreatModel(0.1)),
        make_attack("right", ThreatModel(0.1)),
        make_attack("right", ThreatModel(0.3)),
    ]
    cells = by_cell(evaluate_transfer(made_ensemble(), {"t": target}, (x, y), attacks))
    assert cells["t", WORST_CASE, 0.1] == (7, 10)
    assert cells["t", WORST_CASE, 0.3] == (8, 10)


def test_clean_accuracy_may_be_taken_on_other_images(painted):
    x, y = numbered()
    target = Scripted(y, {"clean": {0, 1, 2}, "left": {4}})
    results = evaluate_transfer(
        made_ensemble(),
        {"t": target},
        (x[3:8], y[3:8]),
        [make_attack("left", ThreatModel(0.1))],
        clean=(x, y),
    )
    assert by_cell(results)["t", CLEAN, 0.0] == (7, 10)
    assert by_cell(results)["t", "left", 0.1] == (4, 5)


@pytest.mark.parametrize("other", [None, numbered(3)])
def test_worst_case_leaves_out_what_is_wrong_when_clean_whatever_clean_accuracy_is_taken_on(painted, other):
    x, y = numbered()
    target = Scripted(y, {"clean": {0, 5}, "left": {4, 5}})
    attacks = [make_attack(name, ThreatModel(0.1)) for name in ("left", "right")]
    results = evaluate_transfer(made_ensemble(), {"t": target}, (x, y), attacks, clean=other)
    worst = results[-1]
    assert [n for n, right in enumerate(worst.outcomes) if not right] == [0, 4, 5]


def test_without_attacks_only_the_clean_accuracy_is_measured():
    x, y = numbered()
    (result,) = evaluate_transfer(made_ensemble(), {"t": Scripted(y, {"clean": {1}})}, (x, y), [])
    assert (result.attack, result.correct, result.total) == (CLEAN, 9, 10)


def test_real_attack_fools_its_own_surrogate_and_the_counts_are_recounted():
    surrogate, (x, y) = made_ensemble(), images_and_labels(30)
    y = surrogate.predict(x, verbose=0).argmax(axis=-1)
    attack = make_attack("ifgsm", ThreatModel(0.3))
    results = evaluate_transfer(surrogate, {"s": surrogate}, (x, y), [attack], batch_size=30)
    recounted = surrogate(attack(surrogate, x, y)).numpy().argmax(axis=-1) == y
    assert by_cell(results)["s", CLEAN, 0.0] == (30, 30)
    assert by_cell(results)["s", "ifgsm", 0.3] == (recounted.sum(), 30)
    assert recounted.sum() < 20


def test_results_travel_as_json():
    surrogate, (x, y) = made_ensemble(), images_and_labels()
    results = evaluate_transfer(surrogate, [surrogate], (x, y), [make_attack("fgsm", ThreatModel(0.1))])
    for result in results:
        again = json.loads(json.dumps(result.to_json(), allow_nan=False))
        assert TransferResult.from_json(again) == result
        assert again["low"] <= again["accuracy"] == result.correct / 10 <= again["high"]


# What a result says of itself.


def test_outcomes_are_kept_image_by_image(painted):
    x, y = numbered()
    target = Scripted(y, {"clean": {9}, "left": {0, 1, 2}, "right": {2, 3, 4, 5}})
    attacks = [make_attack(name, ThreatModel(0.1)) for name in ("left", "right")]
    results = evaluate_transfer(made_ensemble(), {"t": target}, (x, y), attacks, clean=(x[5:], y[5:]))
    wrong = [{n for n, right in enumerate(result.outcomes) if not right} for result in results]
    assert wrong == [{4}, {0, 1, 2}, {2, 3, 4, 5}, {0, 1, 2, 3, 4, 5, 9}]
    clean, *attacked = [result.images for result in results]
    assert len(set(attacked)) == 1 and clean not in attacked
    again = evaluate_transfer(made_ensemble(seed=3), {"t": target}, (x, y), attacks)
    assert {result.images for result in again} == set(attacked)
    other = evaluate_transfer(made_ensemble(), {"t": target}, (x, (y + 1) % CLASSES), attacks)
    assert not {result.images for result in other} & set(attacked)


def test_two_settings_of_one_attack_are_told_apart():
    surrogate, (x, y) = made_ensemble(), images_and_labels()
    attacks = [make_attack("pgd_cw", ThreatModel(0.1), steps=steps) for steps in (1, 5)]
    _, one, five, worst = evaluate_transfer(surrogate, surrogate, (x, y), attacks)
    assert one.settings == attacks[0].describe()["params"] and one.settings["steps"] == 1
    assert five.settings == one.settings | {"steps": 5}
    assert worst.settings == {}


def test_surrogate_is_told_whole_in_results_and_manifest_alike(tmp_path):
    surrogate, (x, y) = made_ensemble(), images_and_labels(30)
    accuracy = (np.asarray(surrogate(x)).argmax(axis=-1) == y).mean()
    given = {"seed": np.int64(7), "learning rate": 0.001}
    attack = make_attack("fgsm", ThreatModel(0.1))
    clean, *attacked = evaluate_transfer(
        surrogate, surrogate, (x, y), [attack], directory=tmp_path, surrogate_settings=given
    )
    expected = {"members": 2, "objective": "CrossEntropy", "seed": 7, "learning rate": 0.001}
    expected["clean accuracy"] = pytest.approx(accuracy)
    assert 0 < accuracy < 1 and clean.surrogate_settings == {}
    (manifest,) = map(checked_json.read_checked, tmp_path.glob("*.json"))
    for told in (*(result.surrogate_settings for result in attacked), manifest["surrogate_settings"]):
        assert told == expected
    # The clean accuracy is that of the same model as a target, image by image.
    assert attacked[0].surrogate_settings["clean accuracy"] == clean.accuracy


def test_objective_is_told_with_its_weight_and_a_callable_tells_none(tmp_path):
    ensemble, (x, y) = made_ensemble(), images_and_labels()
    ensemble.objective = GradientAlignment(0.25)
    attack = make_attack("fgsm", ThreatModel(0.1))
    told = evaluate_transfer(ensemble, ensemble, (x, y), attack)[1].surrogate_settings
    assert told["objective"] == "GradientAlignment, weight 0.25"
    told = evaluate_transfer(lambda images: ensemble(images), ensemble, (x, y), attack)[1].surrogate_settings
    assert set(told) == {"clean accuracy"}


def test_settings_of_a_surrogate_make_no_other_set(calls, tmp_path):
    _, digest = kept(tmp_path, settings={"seed": 1})
    count = len(calls)
    assert kept(tmp_path)[1] == digest and len(calls) == count


@pytest.mark.parametrize("settings", ["seed 1", {1: 1}, {"seed": [1]}, {"rate": math.nan}])
def test_settings_that_are_no_names_of_texts_and_numbers_are_refused(settings):
    with pytest.raises(InputError, match="surrogate settings as names with texts or finite numbers"):
        AdversarialSets(made_ensemble(), settings=settings)


def test_sets_made_before_take_no_other_settings():
    ensemble = made_ensemble()
    with pytest.raises(InputError, match="no surrogate_settings with sets"):
        evaluate_transfer(
            *(AdversarialSets(ensemble), ensemble, images_and_labels(), []), surrogate_settings={"seed": 1}
        )


# As they are stored.


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_rounding_takes_the_nearest_of_256_levels(low, high):
    x = np.random.default_rng(0).uniform(low, high, (5, *SHAPE)).astype("float32")
    levels = np.linspace(low, high, 256)
    nearest = levels[np.abs(x[..., None] - levels).argmin(axis=-1)]
    np.testing.assert_allclose(np.asarray(as_stored(x, "uint8", low, high)), nearest, atol=1e-6 * high)


def test_clean_images_are_what_is_stored_of_them():
    every = as_float(np.arange(256, dtype="uint8").reshape(4, 8, 8, 1))
    np.testing.assert_array_equal(np.asarray(as_stored(every, "uint8")), every)
    assert as_stored(every, "float32") is every


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_that_of_another_library(channels):
    """TensorFlow's own at quality 95, decoded exactly; at 96 it is another one."""
    rng = np.random.default_rng(channels)
    x = tf.image.resize(rng.random((3, 4, 4, channels)), (16, 16)).numpy()
    x = (x + rng.normal(scale=0.03, size=x.shape)).clip(0, 1).astype("float32")
    stored = 255 * np.asarray(as_stored(x, "jpeg"))
    for image, found in zip(np.rint(255 * x).astype("uint8"), stored, strict=True):
        coded = {quality: tf.io.encode_jpeg(image, quality=quality) for quality in (95, 96)}
        twins = {q: tf.io.decode_jpeg(code, dct_method="INTEGER_ACCURATE") for q, code in coded.items()}
        apart = {quality: np.abs(found - twin.numpy()).max() for quality, twin in twins.items()}
        assert apart[95] <= 1 < apart[96]


@pytest.mark.parametrize("stored_as", ["float32", "uint8", "jpeg"])
def test_targets_see_adversarial_images_as_they_are_stored_and_clean_ones_as_they_are(stored_as):
    surrogate, (x, y) = made_ensemble(), images_and_labels()
    seen = []

    def target(images):
        seen.append(np.asarray(images))
        return surrogate(images)

    attack = make_attack("fgsm", ThreatModel(0.1))
    clean, result, worst = evaluate_transfer(surrogate, {"t": target}, (x, y), attack, stored_as=stored_as)
    x_adv = np.asarray(attack(surrogate, x, y))
    expected = {"float32": x_adv, "uint8": np.rint(255 * x_adv) / 255}.get(stored_as)
    np.testing.assert_array_equal(seen[0], x)
    if expected is not None:
        np.testing.assert_allclose(seen[1], expected, atol=1e-6)
    else:
        assert 0.001 < np.abs(seen[1] - x_adv).mean() < 0.1
    assert (clean.stored_as, result.stored_as, worst.stored_as) == ("float32", stored_as, stored_as)
    assert result.correct == (np.asarray(surrogate(seen[1])).argmax(-1) == y).sum()


@pytest.mark.parametrize(
    ("stored_as", "shape", "expected"),
    [
        ("png", SHAPE, "stored_as as one of {float32, uint8, jpeg}. Received: 'png'"),
        ("jpeg", (4, 4, 2), "[n, H, W, 1] or [n, H, W, 3] to store as JPEG. Received: images of shape"),
        ("jpeg", (16,), "[n, H, W, 1] or [n, H, W, 3] to store as JPEG. Received: images of shape (2, 16)"),
    ],
)
def test_forms_that_images_do_not_have_are_refused(stored_as, shape, expected):
    with pytest.raises(InputError) as caught:
        evaluate_transfer(
            None, lambda x: x, (np.zeros((2, *shape), "float32"), [0, 1]), [], stored_as=stored_as
        )
    assert expected in str(caught.value)


# Surrogates without a gradient.


def masked(front):
    images = keras.Input(SHAPE)
    return keras.Model(images, layers.Dense(CLASSES)(layers.Flatten()(front(images))))


@pytest.mark.parametrize("attack", ["fgsm", "rfgsm"])
@pytest.mark.parametrize(
    ("front", "blind"),
    [
        (lambda x: keras.ops.sign(x - 0.5), 10),
        (lambda x: keras.ops.tanh(1e6 * (x - 0.5)), 10),
        (lambda x: keras.ops.relu(x - 0.5), 0),
        (lambda x: 1e6 * x, 0),
    ],
    ids=["sign", "saturating", "relu", "scaled"],
)
def test_surrogate_whose_gradient_vanishes_is_warned_of(front, blind, attack, lines):
    """By what the attack moved; and where a random start moves all, by the gradient itself."""
    (x, y), surrogate = images_and_labels(), [masked(front), masked(front)]
    results = evaluate_transfer(surrogate, {"t": surrogate}, (x, y), make_attack(attack, ThreatModel(0.01)))
    moved_none = (
        f"{attack} moved none of 10 images: the surrogate has no gradient there, and accuracy under it"
    )
    no_gradient = f"the surrogate has no gradient at {blind} of the first 10 images"
    assert any(no_gradient in line for line in lines) == bool(blind)
    assert any(moved_none in line for line in lines) == (blind and attack == "fgsm")
    told = results[1].surrogate_settings
    assert told.get("no gradient at") == (f"{blind} of the first 10 images" if blind else None)
    assert results[1].unmoved == (blind if attack == "fgsm" else 0)


@pytest.mark.parametrize("front", [keras.ops.round, keras.ops.floor, keras.ops.stop_gradient])
@pytest.mark.parametrize("form", ["list", "ensemble"])
def test_surrogate_that_has_no_derivative_is_refused_in_one_line(front, form):
    members = [masked(front), masked(front)]
    surrogate = members if form == "list" else Ensemble(members, CrossEntropy(), check=False)
    with pytest.raises(
        InputError, match=r"^Expected a (target|surrogate) that TensorFlow can differentiate"
    ) as e:
        evaluate_transfer(
            surrogate, {"t": members}, images_and_labels(), make_attack("fgsm", ThreatModel(0.1))
        )
    assert "\n" not in str(e.value)


def test_a_surrogate_that_is_far_worse_than_a_target_is_warned_of(painted, lines):
    x, y = numbered()
    surrogate = made_ensemble()
    right = float((np.asarray(surrogate(x)).argmax(axis=-1) == y).mean())
    assert right < 0.8
    targets = {"good": Scripted(y, {}), "no better": surrogate}
    evaluate_transfer(surrogate, targets, (x, y), make_attack("left", ThreatModel(0.1)))
    told = [line for line in lines if "a weak attacker" in line]
    assert len(told) == 1 and f"right on {100 * right:.1f} % of the images and good on 100.0 %" in told[0]


def test_images_that_an_attack_left_are_warned_of(lines):
    """Black images without a gradient among others: a ReLU behind x - 0.5 is dead there."""
    x, y = images_and_labels()
    x[:3] = 0
    surrogate = masked(lambda x: keras.ops.relu(x - 0.5))
    evaluate_transfer(surrogate, {"t": surrogate}, (x, y), make_attack("fgsm", ThreatModel(0.1)))
    assert sum("fgsm did not move 3 of 10 images" in line for line in lines) == 1


@pytest.mark.skipif(importlib.util.find_spec("art") is None, reason="needs the extra `attacks`")
@pytest.mark.parametrize(("name", "params"), [("auto_pgd", {"steps": 2}), ("square", {"queries": 3})])
def test_images_left_alone_since_they_are_wrong_are_no_sign_of_gradients(name, params, lines):
    surrogate, (x, y) = made_ensemble(), images_and_labels()
    wrong = int((np.asarray(surrogate(x)).argmax(axis=-1) != y).sum())
    _, result, *_ = evaluate_transfer(
        surrogate, {"t": surrogate}, (x, y), make_attack(name, ThreatModel(0.1), **params)
    )
    assert wrong > 0 and result.unmoved == (None if name == "square" else 0)
    assert not any("no gradient there" in line for line in lines)


def test_surrogate_with_gradients_that_are_not_numbers_is_warned_of(lines):
    x, y = images_and_labels()
    x[:3] = 0
    surrogate = masked(lambda x: keras.ops.sqrt(keras.ops.maximum(x, 0)))
    told = AdversarialSets([surrogate]).told(x, y)
    assert told["no gradient at"] == "3 of the first 10 images"


# Targets and images, in each form.


def test_targets_may_be_a_mapping_a_sequence_or_one():
    first, second, (x, y) = made_ensemble("first"), made_ensemble("second", seed=1), images_and_labels()

    def names(targets):
        return [r.target for r in evaluate_transfer(first, targets, (x, y), [])]

    assert names({"a": first, "b": second}) == ["a", "b"]
    assert names([first, second]) == ["first", "second"]
    assert names((second,)) == names(second) == ["second"]
    assert names([lambda images: first(images), lambda images: second(images)]) == ["target_0", "target_1"]


def test_targets_of_one_name_are_refused_unless_named():
    target, (x, y) = made_ensemble(), images_and_labels()
    with pytest.raises(InputError, match="distinct names"):
        evaluate_transfer(target, [target, target], (x, y), [])


def test_dataset_gives_what_its_arrays_give():
    surrogate, (x, y) = made_ensemble(), images_and_labels(11)
    attacks = [make_attack("rfgsm", ThreatModel(0.1))]
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    columns = tf.data.Dataset.from_tensor_slices((x, y[:, None])).batch(3)
    weighted = tf.data.Dataset.from_tensor_slices((x, y, np.arange(11.0))).batch(4)
    expected = evaluate_transfer(surrogate, surrogate, (x, y), attacks, clean=(x, y))
    assert evaluate_transfer(surrogate, surrogate, weighted, attacks) == expected
    assert evaluate_transfer(surrogate, surrogate, batches, attacks) == expected
    assert evaluate_transfer(surrogate, surrogate, columns, attacks, clean=batches) == expected


def test_subclassed_model_is_attacked_and_scored_though_it_tells_no_shapes():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = keras.layers.Dense(3)

        def call(self, x):
            return self.head(tf.reshape(x, [-1, 64]))

    model, x, y = Subclassed(), np.full((5, 8, 8, 1), 0.5, "float32"), np.arange(5) % 3
    fgsm = make_attack("fgsm", ThreatModel(0.1))
    clean, attacked, _ = evaluate_transfer(model, {"T": model}, (x, y), fgsm)
    assert clean.correct == int((np.asarray(model(x)).argmax(-1) == y).sum())
    assert attacked.total == 5


def test_model_of_several_outputs_gets_a_line_of_its_outputs():
    images = keras.Input(SHAPE)
    model = keras.Model(images, {"logits": keras.layers.Dense(3)(keras.layers.Flatten()(images))})
    with pytest.raises(
        InputError, match=r"^Expected .* one tensor of logits \[B, C\]\. Received: one that gives a dict$"
    ):
        evaluate_transfer(made_ensemble(), {"t": model}, images_and_labels(), [])
    with pytest.raises(InputError, match=r"one tensor of logits"):
        make_attack("fgsm", ThreatModel(0.1))(model, *images_and_labels())


def test_callable_surrogate_takes_float64_images_as_it_takes_float32():
    member, (x, y) = made_ensemble().members[0], images_and_labels()
    attacks = [make_attack("fgsm", ThreatModel(0.1))]

    def logits(images):
        assert images.dtype == tf.float32
        return member(images)

    narrow = evaluate_transfer(logits, {"t": logits}, (x, y), attacks)
    assert evaluate_transfer(logits, {"t": logits}, (x.astype("float64"), y), attacks) == narrow


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ((np.zeros((3, *SHAPE)), [0, 1]), "as many images as labels"),
        ((np.zeros((0, *SHAPE)), np.zeros(0, int)), "at least one"),
        ((np.full((2, *SHAPE), 255.0), [0, 1]), "images in [0.0, 1.0]"),
        ((np.zeros((2, *SHAPE)), [0, 3]), "labels in [0, 3)"),
        (
            tf.data.Dataset.from_tensor_slices((np.zeros((3, *SHAPE)), [0, 1, 2])).batch(2).take(0),
            "a dataset with at least one batch",
        ),
        (
            tf.data.Dataset.from_tensor_slices((np.zeros((3, *SHAPE)),)).batch(2),
            "or with weights. Received: a tuple of 1",
        ),
    ],
)
def test_images_and_labels_that_do_not_fit_are_refused(dataset, expected):
    target = made_ensemble()
    with pytest.raises(InputError) as caught:
        evaluate_transfer(target, target, dataset, [make_attack("fgsm", ThreatModel(0.1))])
    assert expected in str(caught.value)


@pytest.mark.parametrize("batch_size", [1, 4, 250])
def test_predictions_of_model_and_callable_do_not_depend_on_the_batch_size(batch_size):
    target, (x, _) = made_ensemble(), images_and_labels(10)
    expected = np.asarray(target(x)).argmax(axis=-1)
    np.testing.assert_array_equal(predictions(target, x, batch_size), expected)
    np.testing.assert_array_equal(predictions(lambda images: target(images), x, batch_size), expected)


# Saturation.


def test_saturated_share_counts_images_that_every_member_is_sure_of():
    surrogate, (x, y) = made_ensemble(scale=2.0), images_and_labels(60)
    # The second member agrees with the first, with less than its certainty.
    first, second = surrogate.members
    second.set_weights([0.8 * w for w in first.get_weights()])
    y = surrogate.predict(x, verbose=0).argmax(axis=-1)
    logits = surrogate.member_logits(x).numpy().astype("float64")
    leads = logits - np.take_along_axis(logits, np.broadcast_to(y, (2, 60))[..., None], -1)
    others = np.exp(np.minimum(leads, 100))
    others[:, np.arange(60), y] = 0
    losses = np.log1p(others.sum(axis=-1))
    share = (losses < 1e-7).all(axis=0).mean()
    assert 0.05 < share < 0.95 and (losses < 1e-7).any(axis=0).mean() > share
    assert AdversarialSets(surrogate, batch_size=7).saturated(x, y) == pytest.approx(share)
    results = evaluate_transfer(surrogate, surrogate, (x, y), [make_attack("fgsm", ThreatModel(0.1))])
    assert [r.saturated for r in results] == [0.0, pytest.approx(share), pytest.approx(share)]


# Adversarial sets.


def kept(directory, surrogate=None, attack=None, x=None, y=None, **options):
    """Make or read one set; the arguments left out are always the same."""
    default_x, default_y = images_and_labels()
    sets = AdversarialSets(surrogate or made_ensemble(), directory, **{"batch_size": 4} | options)
    attack = attack or make_attack("rfgsm", ThreatModel(0.1))
    images, digest = sets.images(attack, default_x if x is None else x, default_y if y is None else y)
    return np.array(images), digest  # Mapped, they would not outlive what tests do to the file.


def test_images_that_are_read_by_number_never_are_in_memory_together(tmp_path):
    """600 images: the same results as of the array, and at most 250 of them are read at a time."""
    ensemble, (x, y) = made_ensemble(), images_and_labels(600)
    read = []

    def reading(numbers):
        read.append(len(numbers))
        return x[numbers]

    lazy = LazyImages(reading, len(x), x.shape[1:], dtype="float32")
    attacks = [make_attack("rfgsm", ThreatModel(0.1))]
    found, expected = (
        evaluate_transfer(ensemble, ensemble, (images, y), attacks, directory=tmp_path / kind)
        for kind, images in (("lazy", lazy), ("array", x))
    )
    assert found == expected and max(read) == 250
    assert [len(part) for part in (found[0].correct_by_class, found[0].total_by_class)] == [CLASSES] * 2
    predicted = ensemble.predict(x, verbose=0).argmax(-1)
    by_class = [int((predicted[y == label] == label).sum()) for label in range(CLASSES)]
    assert list(found[0].correct_by_class) == by_class


def test_set_is_made_once_for_all_targets(calls, tmp_path):
    surrogate, (x, y) = made_ensemble(), images_and_labels()
    targets = {str(n): made_ensemble("target", seed=n) for n in range(3)}
    attacks = [make_attack(name, ThreatModel(0.1)) for name in ("fgsm", "ifgsm")]
    evaluate_transfer(surrogate, targets, (x, y), attacks, batch_size=4)
    assert calls == [("fgsm", 4), ("fgsm", 4), ("fgsm", 2), ("ifgsm", 4), ("ifgsm", 4), ("ifgsm", 2)]


def test_kept_set_is_read_by_the_next_call(calls, tmp_path):
    surrogate, (x, y) = made_ensemble(), images_and_labels()
    attacks = [make_attack("rfgsm", ThreatModel(0.1))]
    options = {"directory": tmp_path / "sets", "batch_size": 4}
    first = evaluate_transfer(surrogate, {"a": surrogate}, (x, y), attacks, **options)
    assert len(calls) == 3
    again = evaluate_transfer(surrogate, {"a": surrogate}, (x, y), attacks, **options)
    assert len(calls) == 3 and again == first
    # Another target of the same surrogate: nothing is made anew.
    evaluate_transfer(surrogate, {"b": made_ensemble("b", seed=3)}, (x, y), attacks, **options)
    assert len(calls) == 3


def test_equal_surrogate_built_anew_reads_the_kept_set(calls, tmp_path):
    """Keras numbers layer names by what the process made before; that must not make another set."""
    first, _ = kept(tmp_path, made_ensemble())
    count = len(calls)
    second, _ = kept(tmp_path, made_ensemble("another_name"))
    assert len(calls) == count
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    "change",
    [
        {"attack": make_attack("fgsm", ThreatModel(0.1))},
        {"attack": make_attack("rfgsm", ThreatModel(0.1000001))},
        {"attack": make_attack("rfgsm", ThreatModel(0.1, clip_max=1.5))},
        {"surrogate": {"seed": 1}},
        {"surrogate": {"slope": 0.2}},
        {"x": images_and_labels(seed=2)[0]},
        {"x": images_and_labels()[0] * np.float32(1 - 1e-6)},
        {"y": (images_and_labels()[1] + 1) % CLASSES},
        {"seed": 1},
        {"batch_size": 5},
    ],
)
def test_changing_what_a_set_depends_on_makes_a_new_one(change, calls, tmp_path):
    kept(tmp_path)
    count = len(calls)
    if "surrogate" in change:
        change = {"surrogate": made_ensemble(**change["surrogate"])}
    images, digest = kept(tmp_path, **change)
    assert len(calls) > count
    assert len(list(tmp_path.glob("*.npy"))) == len(list(tmp_path.glob("*.json"))) == 2
    count = len(calls)
    again, same = kept(tmp_path, **change)
    assert len(calls) == count and same == digest
    np.testing.assert_array_equal(again, images)


@pytest.mark.parametrize("params", [{"steps": 3}, {"steps": 4, "decay": 0.5}])
def test_changing_an_attack_s_parameters_makes_a_new_set(params, calls, tmp_path):
    kept(tmp_path, attack=make_attack("mifgsm", ThreatModel(0.1), steps=4))
    count = len(calls)
    kept(tmp_path, attack=make_attack("mifgsm", ThreatModel(0.1), **params))
    assert len(calls) == 2 * count
    # A default written out is the default.
    kept(tmp_path, attack=make_attack("mifgsm", ThreatModel(0.1), **{"decay": 1.0} | params))
    assert len(calls) == 2 * count


def own_piece(sign):
    """A piece of that name, as if its code had been changed in a file."""

    @dataclasses.dataclass(frozen=True)
    class Mine:
        def __call__(self, gradient, images, context):
            return gradient(images, context)

    if sign < 0:
        Mine.__call__ = lambda self, gradient, images, context: -gradient(images, context)
    return Mine()


def test_changing_the_code_of_a_piece_of_your_own_makes_a_new_set(calls, tmp_path):
    def attack(sign):
        return compose_attack("mine", ThreatModel(0.1), Recipe(pieces=(own_piece(sign),), steps=2))

    ways = [kept(tmp_path, attack=attack(sign))[1] for sign in (1, -1, 1)]
    assert ways[0] == ways[2] != ways[1]
    assert len(list(tmp_path.glob("*.npy"))) == 2


def test_manifest_of_images_led_to_a_class_tells_the_accuracy_by_true_ones(tmp_path):
    surrogate, (x, y) = made_ensemble(), images_and_labels(30)
    sets, attack = AdversarialSets(surrogate, tmp_path), make_attack("fgsm", ThreatModel(0.1))
    led = towards(attack, "aimed")
    sets.images(attack, x, y)
    sets.images(led, x, (y + 1) % CLASSES, true=y)
    told = [checked_json.read_checked(path)["surrogate_settings"] for path in tmp_path.glob("*.json")]
    assert len(told) == 2 and told[0] == told[1]


def test_attacking_after_more_training_makes_a_new_set(calls, tmp_path):
    surrogate = made_ensemble()
    kept(tmp_path, surrogate)
    count = len(calls)
    weight = surrogate.members[0].weights[0]
    weight.assign(weight + 1e-3)
    kept(tmp_path, surrogate)
    assert len(calls) == 2 * count


def test_sets_notice_that_their_surrogate_was_trained_further(tmp_path):
    surrogate, (x, y) = made_ensemble(), images_and_labels()
    sets, attack = AdversarialSets(surrogate, tmp_path), make_attack("fgsm", ThreatModel(0.1))
    _, before = sets.images(attack, x, y)
    for weight in surrogate.members[0].trainable_weights:
        weight.assign(-weight)
    _, after = sets.images(attack, x, y)
    assert before != after


def turned(sign):
    """A layer of the user's own of which the gradient alone tells how it was written."""

    class Mine(layers.Layer):
        def call(self, x):
            return x

    class Turned(layers.Layer):
        def call(self, x):
            return 2 * tf.stop_gradient(x) - x

    kind = Mine if sign > 0 else Turned
    kind.__name__ = "Mine"
    return kind()


def test_changing_the_code_of_a_layer_of_your_own_makes_a_new_set(tmp_path):
    def member(sign):
        x = keras.Input(SHAPE)
        dense = layers.Dense(CLASSES, kernel_initializer=keras.initializers.GlorotUniform(seed=0))
        return keras.Model(x, dense(layers.Flatten()(turned(sign)(x))))

    ways = [kept(tmp_path, [member(sign)])[1] for sign in (1, -1, 1)]
    assert ways[0] == ways[2] != ways[1]


class Signed(keras.Model):
    """The sum of two outputs, or their difference: no layer's settings tell which, nor do weights."""

    def __init__(self, sign):
        super().__init__()
        seeds = (keras.initializers.GlorotUniform(seed=n) for n in range(2))
        self.flat = layers.Flatten()
        self.first, self.second = (layers.Dense(CLASSES, kernel_initializer=seed) for seed in seeds)
        self.sign = sign

    def call(self, x):
        x = self.flat(x)
        return self.first(x) + self.sign * self.second(x)


def test_the_same_layers_put_together_otherwise_make_a_new_set(calls, tmp_path):
    together, apart = Signed(1.0), Signed(-1.0)
    for model in (together, apart):
        model(images_and_labels()[0])
    kept(tmp_path, together)
    count = len(calls)
    kept(tmp_path, together)
    assert len(calls) == count
    kept(tmp_path, apart)
    assert len(calls) == 2 * count


@pytest.mark.parametrize("name", ["REVISION", "_LIBRARIES"])
def test_what_was_measured_by_other_attacks_or_libraries_is_measured_again(name, tmp_path, monkeypatch):
    sets, (x, y) = AdversarialSets(made_ensemble(), tmp_path), images_and_labels()
    assert sets.kept("it", {"of": 1}, x, y, lambda: "before") == "before"
    assert sets.kept("it", {"of": 1}, x, y, lambda: "again") == "before"
    other = {"REVISION": -1, "_LIBRARIES": ("numpy",)}[name]
    monkeypatch.setattr(f"divtf.evaluation.adversarial_sets.{name}", other)
    assert sets.kept("it", {"of": 1}, x, y, lambda: "again") == "again"


def test_manifest_says_what_the_set_depends_on_and_its_hash(tmp_path):
    x, y = images_and_labels()
    images, digest = kept(tmp_path, seed=5)
    (path,) = tmp_path.glob("*.npy")
    manifest = json.loads(path.with_suffix(".json").read_text())
    assert manifest["sha256"] == digest == file_digest(path)
    assert path.name.startswith("rfgsm-0.1-")
    assert manifest["attack"] == "rfgsm" and manifest["epsilon"] == 0.1 and manifest["count"] == 10
    assert manifest["seed"] == 5 and manifest["batch_size"] == 4
    assert manifest["images"] == digests.array_digest(x) and manifest["labels"] == digests.array_digest(y)
    told = {"surrogate", "predicted", "params", "norm", "clip_min", "clip_max", "tensorflow", "cleverhans"}
    assert told <= {*manifest}
    np.testing.assert_array_equal(np.load(path), images)
    assert not list(tmp_path.glob(".partial*"))


def test_result_carries_the_hash_of_its_set(tmp_path):
    surrogate, (x, y) = made_ensemble(), images_and_labels()
    attacks = [make_attack("fgsm", ThreatModel(0.1))]
    clean, attacked, worst = evaluate_transfer(surrogate, surrogate, (x, y), attacks, directory=tmp_path)
    (path,) = tmp_path.glob("*.npy")
    assert attacked.adversarial_set == file_digest(path)
    assert clean.adversarial_set == worst.adversarial_set == ""


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("harm", [flip, truncate, lambda path: path.write_bytes(b"")])
def test_spoilt_set_is_made_again_and_reported(harm, suffix, calls, tmp_path, lines):
    images, digest = kept(tmp_path)
    count = len(calls)
    (path,) = tmp_path.glob("*.npy")
    harm(path.with_suffix(suffix))
    again, same = kept(tmp_path)
    assert len(calls) == 2 * count and same == digest
    np.testing.assert_array_equal(again, images)
    assert len(lines) == 1 and str(path) in lines[0] and "making it again" in lines[0]
    kept(tmp_path)
    assert len(calls) == 2 * count and len(lines) == 1


@pytest.mark.parametrize("lost", [".npy", ".json"])
def test_set_that_lost_a_file_is_made_again(lost, calls, tmp_path):
    kept(tmp_path)
    count = len(calls)
    next(tmp_path.glob(f"*{lost}")).unlink()
    kept(tmp_path)
    assert len(calls) == 2 * count


def test_pickle_in_a_set_s_place_is_not_executed(calls, tmp_path, lines):
    """Neither under the manifest's old hash, nor when the hash is forged as well."""
    witness = tmp_path / "executed"
    kept(tmp_path / "sets")
    (path,) = (tmp_path / "sets").glob("*.npy")
    np.save(path, np.array([Hostile(witness)], dtype=object), allow_pickle=True)
    kept(tmp_path / "sets")
    assert not witness.exists()
    np.save(path, np.array([Hostile(witness)], dtype=object), allow_pickle=True)
    manifest = path.with_suffix(".json")
    checked_json.write_checked(manifest, checked_json.read_checked(manifest) | {"sha256": file_digest(path)})
    lines.clear()
    images, _ = kept(tmp_path / "sets")
    assert not witness.exists()
    assert len(lines) == 1 and "making it again" in lines[0]
    np.testing.assert_array_equal(np.load(path, allow_pickle=False), images)


@pytest.mark.parametrize("other", [np.zeros((10, 5, 5, 1), "float32"), np.zeros((10, *SHAPE)), b"no array"])
def test_set_forged_with_its_manifest_is_not_taken_in_another_form(other, calls, tmp_path):
    images, digest = kept(tmp_path)
    (path,) = tmp_path.glob("*.npy")
    path.write_bytes(other) if isinstance(other, bytes) else np.save(path, other)
    manifest = path.with_suffix(".json")
    checked_json.write_checked(manifest, checked_json.read_checked(manifest) | {"sha256": file_digest(path)})
    again, same = kept(tmp_path)
    assert same == digest
    np.testing.assert_array_equal(again, images)


def test_what_a_killed_process_left_beside_the_sets_is_removed(tmp_path):
    (tmp_path / ".partial-4711-rfgsm.npy").write_bytes(b"half")
    kept(tmp_path)
    assert not list(tmp_path.glob(".partial-*"))


def test_failing_attack_leaves_no_set(monkeypatch, tmp_path):
    monkeypatch.setitem(ATTACKS, "bad", Recipe(update=Paint(0, epsilons=2.0), steps=1))
    with pytest.raises(FloatingPointError):
        kept(tmp_path, attack=make_attack("bad", ThreatModel(0.1)))
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_batches_of_a_set_start_at_random_apart():
    """Equal images in every batch: equal seeds would give equal starts."""
    x, y = np.full((8, *SHAPE), 0.5, "float32"), np.zeros(8, int)
    images, digest = kept(None, x=x, y=y, attack=make_attack("pgd_cw", ThreatModel(0.1), steps=1))
    assert digest == ""
    assert len(np.unique(images.reshape(8, -1), axis=0)) == 8


def test_callable_surrogate_cannot_be_kept_since_its_weights_cannot_be_told_apart(tmp_path):
    with pytest.raises(InputError, match="a Keras model, whose weights can be told apart"):
        kept(tmp_path, lambda images: made_ensemble()(images))


def test_progress_names_attack_epsilon_and_number_of_images(lines):
    surrogate, (x, y) = made_ensemble(), images_and_labels()
    attacks = [make_attack("fgsm", ThreatModel(0.1)), make_attack("rfgsm", ThreatModel(0.3))]
    evaluate_transfer(surrogate, surrogate, (x, y), attacks)
    assert lines == [
        "attack 1/2: fgsm, epsilon 0.1, 10 images",
        "attack 2/2: rfgsm, epsilon 0.3, 10 images",
    ]


def test_bar_of_a_set_counts_its_batches_once_it_is_made(tmp_path, bars):
    attack = make_attack("ifgsm", ThreatModel(0.1), steps=2)
    kept(tmp_path, attack=attack)
    assert bars == [("ifgsm, epsilon 0.1", 3, 3)]
    kept(tmp_path, attack=attack)
    assert len(bars) == 1
