"""What holds for every attack of the registry: where results lie, what they depend on, and what they cost."""

import functools

import numpy as np
import process
import pytest
import tensorflow as tf
from attacked import (
    CLASSES,
    EPSILON,
    SEED,
    SHAPE,
    conv_members,
    images_and_labels,
    linear_ensemble,
    quick_attack,
    quick_params,
)
from followed import load

from divtf import CrossEntropy
from divtf.attacks.attack import make_attack
from divtf.attacks.context import Context, streams
from divtf.attacks.methods import ATTACKS
from divtf.attacks.names import OF_TODAY, ON_SURROGATES
from divtf.attacks.threat import ThreatModel
from divtf.ensembles.ensemble import Ensemble
from divtf.errors import InputError
from divtf.networks.logits import each_logits


def only(*names):
    """For the attacks of these names: of the others it says nothing more."""
    return pytest.mark.parametrize("name", names)


every = only(*ON_SURROGATES)
RANDOM = {"rfgsm", "pgd_cw", "pgd", "dim", "mi_di_ti_si", "admix", "vmi", "pgn", "ssa"}
PICTURES = ("dim", "tim", "mi_di_ti_si", "ssa")
# A trace takes longer than many batches: tests share them.
attack_of = functools.cache(quick_attack)


@pytest.fixture(name="linear", scope="module")
def fixture_linear():
    """An Ensemble of two linear members, and their closed forms."""
    return linear_ensemble(2)


@pytest.fixture(name="curved", scope="module")
def fixture_curved():
    """An Ensemble of two curved members."""
    return Ensemble(conv_members(2), CrossEntropy())


@every
def test_loss_rises_for_every_image(name, linear):
    ensemble, closed = linear
    of_members = closed.hinges if name == "pgd_cw" else closed.cross_entropies
    x, y = images_and_labels(count=20)
    x_adv = attack_of(name, ThreatModel(EPSILON))(ensemble, x, y).numpy()
    assert (of_members(x_adv, y).mean(axis=0) > of_members(x, y).mean(axis=0)).all()


@every
def test_true_labels_are_used_where_the_prediction_differs(name, linear):
    ensemble, _ = linear
    x, _ = images_and_labels(count=20)
    predicted = ensemble.predict(x, verbose=0).argmax(axis=-1)
    wrong = (predicted + 1) % CLASSES
    attack = attack_of(name, ThreatModel(EPSILON))
    by_label, by_prediction = attack(ensemble, x, wrong).numpy(), attack(ensemble, x, predicted).numpy()
    assert (np.abs(by_label - by_prediction).max(axis=(1, 2, 3)) > EPSILON / 2).all()


@every
@pytest.mark.parametrize(
    "threat",
    [ThreatModel(EPSILON), ThreatModel(3.0, clip_min=-1.0, clip_max=2.0)],
    ids=["a small ball", "the whole of another range"],
)
def test_result_is_inside_the_ball_and_the_image_range(threat, name, linear):
    ensemble, _ = linear
    x, y = images_and_labels()
    x[0], x[1] = 0, 1
    x = threat.clip_min + x * (threat.clip_max - threat.clip_min)
    x_adv = attack_of(name, threat)(ensemble, x, y, seed=3).numpy()
    assert x_adv.dtype == np.float32 and x_adv.shape == x.shape
    assert np.abs(x_adv - x).max() <= threat.epsilon + 1e-6
    assert x_adv.min() == threat.clip_min and x_adv.max() == threat.clip_max
    assert np.abs(x_adv - x).max() > 0.5 * threat.epsilon


@every
def test_images_are_a_function_of_the_seed_alone_and_of_none_where_nothing_is_drawn(name, curved):
    x, y = images_and_labels()
    attack = attack_of(name, ThreatModel(EPSILON))
    tf.random.set_seed(1)
    first = attack(curved, x, y, seed=3).numpy()
    other = attack(curved, x, y, seed=4).numpy()
    tf.random.set_seed(2)
    tf.random.normal([5])
    np.testing.assert_array_equal(attack(curved, x, y, seed=3), first)
    moved = (np.abs(first - other) > 1e-3).mean()
    assert moved > 0.02 if name in RANDOM else moved == 0


def of_cuts(attack, target, x, y, cuts, numbers=None):
    """The images of a set, cut into batches of some of its images each; the pool is always the same."""
    numbers = np.arange(len(x)) if numbers is None else numbers
    batches = [(x[cut], y[cut], numbers[cut]) for cut in cuts]
    made = attack.on_batches(target, batches, pool=(x, y), seed=SEED)
    return np.concatenate([images.numpy() for images in made])


CUTS = {
    "5 + 1": [range(5), [5]],
    "2 + 2 + 2": [[0, 1], [2, 3], [4, 5]],
    "another order": [[3, 5, 0], [4, 1, 2]],
    "some alone": [[4], [1]],
}


@every
def test_an_image_s_result_depends_on_its_number_and_on_nothing_beside_it(name, curved):
    x, y = images_and_labels()
    attack = attack_of(name, ThreatModel(EPSILON))
    whole = of_cuts(attack, curved, x, y, [range(6)])
    for what, cuts in CUTS.items():
        cuts = [list(cut) for cut in cuts]
        found = of_cuts(attack, curved, x, y, cuts)
        # A batch of another size may round otherwise, and a sign in a thousand turn.
        apart = np.abs(found - whole[np.concatenate(cuts)]) > 1e-6
        assert apart.mean() < 0.01, what
    others = of_cuts(attack, curved, x, y, [range(6)], numbers=np.arange(6) + 10)
    moved = (np.abs(others - whole) > 1e-3).mean()
    assert moved > 0.02 if name in RANDOM else moved == 0


@every
def test_equal_images_are_attacked_apart_where_something_is_drawn(name, curved):
    x, y = images_and_labels()
    x, y = np.repeat(x[:1], 4, axis=0), np.repeat(y[:1], 4)
    # Of another class, for Admix to mix in.
    pool = np.concatenate([x, 1 - x]), np.concatenate([y, (y + 1) % CLASSES])
    batches = [(x, y, range(4))]
    (made,) = attack_of(name, ThreatModel(EPSILON)).on_batches(curved, batches, pool=pool, seed=SEED)
    different = len(np.unique(made.numpy().reshape(4, -1), axis=0))
    # Nothing but equal images is mixed in here.
    assert different >= 2 if name in RANDOM - {"admix"} else different == 1


# As many copies of an image as there are, of each piece and update.
COPIES = ("scales", "others", "neighbours", "samples", "copies")


@only("mifgsm", *OF_TODAY)
def test_graph_does_not_grow_with_steps_or_copies(name, curved):
    x, y = images_and_labels()
    recipe = ATTACKS[name]
    many = {"steps": 50} | {field: 30 for field in COPIES if field in recipe.params}
    if recipe.random_start:
        many["restarts"] = 9
    few = {field: 2 for field in many}
    assert nodes(recipe.replace(many), curved, x, y) == nodes(recipe.replace(few), curved, x, y)


def nodes(recipe, target, x, y):
    """How many operations the attack has as a graph, its loops' bodies included."""
    threat = ThreatModel(EPSILON)

    @tf.function(autograph=False)
    def attack(x, y, numbers):
        step_size = recipe.step_in_epsilons * threat.epsilon
        context = Context(threat, y, streams(tf.constant(0), numbers), step_size, x, y)
        return recipe(target.member_logits, each_logits(target, 2), x, context)

    graph = attack.get_concrete_function(x, y, np.arange(len(x), dtype="int32")).graph.as_graph_def()
    return len(graph.node) + sum(len(function.node_def) for function in graph.library.function)


class Counting:
    """Linear logits; counts how often they are put into a graph, and how often they are differentiated."""

    def __init__(self, seed=0):
        self.placed = self.gradients = 0
        weights = np.random.default_rng(seed).normal(size=(np.prod(SHAPE), CLASSES))
        self._weights = tf.constant(weights, tf.float32)

    def __call__(self, x):
        self.placed += 1

        @tf.custom_gradient
        def counted(logits):
            def back(upstream):
                with tf.control_dependencies([tf.numpy_function(self.count, [], [])]):
                    return tf.identity(upstream)

            return tf.identity(logits), back

        return counted(tf.reshape(x, [-1, self._weights.shape[0]]) @ self._weights)

    def count(self):
        self.gradients += 1


@every
def test_one_trace_serves_all_batches_and_takes_as_many_gradients_as_the_attack_says(name):
    target, (x, y) = Counting(), images_and_labels()
    params = quick_params(name) | ({"restarts": 2} if ATTACKS[name].random_start else {})
    attack = make_attack(name, ThreatModel(EPSILON), **params)
    attack(target, x, y)
    placed = target.placed
    # For its output's shape, and once for each place in a step: not for each step, nor for each copy.
    assert placed <= 5
    # A smaller last batch included.
    for count in (6, 2, 1):
        target.gradients = 0
        attack(target, x[:count], y[:count], seed=count)
        assert target.gradients == attack.gradients
    assert target.placed == placed


@only("mifgsm", "cwa", "cse")
def test_as_many_gradients_are_taken_of_each_member(name):
    members, (x, y) = [Counting(0), Counting(1)], images_and_labels()
    attack = quick_attack(name, ThreatModel(EPSILON))
    for _ in attack.on_batches(members, [(x, y, range(6))] * 2, pool=(x, y)):
        taken = [member.gradients for member in members]
        for member in members:
            member.gradients = 0
    # Of the second batch: before the first one each member is tried.
    assert taken == [attack.gradients] * 2


@every
def test_default_gradients_are_counted_as_the_papers_do(name):
    assert (
        make_attack(name, ThreatModel(EPSILON)).gradients
        == {
            **{
                "fgsm": 1,
                "rfgsm": 1,
                "ifgsm": 10,
                "mifgsm": 10,
                "pgd_cw": 30,
                "pgd": 40,
                "dim": 10,
                "tim": 10,
            },
            **{
                "sim": 30,
                "mi_di_ti_si": 30,
                "admix": 90,
                "vmi": 210,
                "pgn": 400,
                "ssa": 200,
                "cwa": 20,
                "cse": 10,
            },
        }[name]
    )


@only("mifgsm", "pgd_cw", "vmi", "cwa")
def test_callable_target_equals_an_ensemble_of_that_one_member(name):
    member = conv_members(1)[0]
    x, y = images_and_labels()
    attack = quick_attack(name, ThreatModel(EPSILON))
    by_callable = attack(member, x, y, seed=SEED)
    of_ensemble = attack(Ensemble([member], CrossEntropy()), x, y, seed=SEED)
    np.testing.assert_allclose(by_callable, of_ensemble, atol=1e-6)


@only(*PICTURES, "mifgsm", "pgd", "admix", "vmi", "pgn", "cwa")
def test_vectors_are_taken_or_refused_in_a_line(name):
    x, y = np.random.default_rng(0).random((5, 72), "float32"), np.arange(5) % 3
    attack = quick_attack(name, ThreatModel(0.1))
    if name in PICTURES:
        message = r"images \[B, H, W, C\] for \w+\. Received: inputs of shape \(None, 72\)$"
        with pytest.raises(InputError, match=message):
            attack(lambda x: x[:, :3] - x[:, 3:6], x, y)
    else:
        x_adv = attack(lambda x: x[:, :3] - x[:, 3:6], x, y)
        assert x_adv.shape == x.shape and (np.abs(x_adv - x).max(axis=1) > 0.05).all()


@pytest.fixture(name="by_devices", scope="module")
def fixture_by_devices(tmp_path_factory):
    """Images of some attacks made on one device, and on three: batches of 5 of 24 images."""
    found = []
    for strategy, devices in (("single", 1), ("mirrored", 3)):
        path = tmp_path_factory.mktemp("devices") / f"{devices}.npz"
        values = {"strategy": strategy, "names": ON_DEVICES, "size": 5, "devices": devices}
        process.result("attack", path=path, **values)
        found.append(load(path))
    return found


ON_DEVICES = ("mi_di_ti_si", "cwa")


@only(*ON_DEVICES)
def test_devices_give_what_one_gives(name, by_devices):
    one, many = by_devices
    np.testing.assert_array_equal(many[name], one[name])
