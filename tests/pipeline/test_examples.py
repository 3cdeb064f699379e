"""The images that a run keeps for its page: predictions by NumPy, pictures as they were attacked."""

import base64
import io

import numpy as np
import PIL.Image
import pytest
import tiny

from divtf.evaluation.adversarial_sets import AdversarialSets
from divtf.pipeline import experiment, finished
from divtf.pipeline.examples import examples, png, strongest
from divtf.pipeline.loading import load_run, load_surrogate
from divtf.storage import run_directory
from divtf.storage.examples import ExamplesRecord
from divtf.storage.records import CLEAN, WORST_CASE, TransferResult

pytestmark = pytest.mark.usefixtures("tiny_world")
NAMES = ("fgsm", "ifgsm")


def opened(text):
    """The values of a picture, [H, W] or [H, W, 3]."""
    return np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(text))))


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_world):
    directory = tmp_path_factory.mktemp("examples") / "run"
    budget = {"epochs": 1, "attacks": NAMES, "epsilons": (0.1, 0.3), "batch_size": 24}
    experiment.run(tiny.config(mode="base", run_dir=str(directory), stored_as="uint8", **budget))
    return directory


def test_predictions_and_pictures_of_a_run(run):
    record = finished.read_analysis(ExamplesRecord, run / run_directory.EXAMPLES)
    loaded, results = load_run(run), finished.read_record(run).results
    images, labels = tiny.load()[1]
    members = tiny.weights(loaded.ensemble)
    assert [example.number for example in record.examples] == list(range(8))
    assert [example.label for example in record.examples] == labels[:8].tolist()
    for example in record.examples:
        assert [seen.epsilon for seen in example.seen] == [0.0, 0.1, 0.3]
        assert (opened(example.seen[0].png) == images[example.number, ..., 0]).all()
        for seen in example.seen:
            # What the target saw has 256 levels: the picture holds it whole.
            x = opened(seen.png).reshape(1, -1) / 255.0
            shares = [p[0] for _, p in tiny.forward(members, x)]
            assert seen.members == tuple(int(share.argmax()) for share in shares)
            assert seen.ensemble == int(np.mean(shares, axis=0).argmax())
    for place, epsilon in ((1, 0.1), (2, 0.3)):
        seen = [example.seen[place] for example in record.examples]
        (name,) = {each.attack for each in seen}
        (chosen,) = [r for r in results if (r.attack, r.epsilon) == (name, epsilon)]
        rights = [r.correct for r in results if r.epsilon == epsilon and r.attack in NAMES]
        assert chosen.correct == min(rights)
        hits = [each.ensemble == example.label for each, example in zip(seen, record.examples, strict=True)]
        assert hits == list(chosen.outcomes[:8])


def test_the_attacked_ones_are_those_of_the_set(run):
    record = finished.read_analysis(ExamplesRecord, run / run_directory.EXAMPLES)
    first = record.examples[0].seen[2]
    sets = load_surrogate(run)
    assert isinstance(sets, AdversarialSets) and record.surrogate
    from divtf.attacks.attack import make_attack
    from divtf.attacks.threat import ThreatModel

    x, y = tiny.data().test_set()
    made, _ = sets.images(make_attack(first.attack, ThreatModel(0.3)), x, y)
    assert (opened(first.png) == np.rint(255.0 * made[0, ..., 0].astype("float64"))).all()


def test_the_strongest_of_the_smallest_and_the_largest_epsilon():
    def result(attack, epsilon, right):
        return TransferResult("T", "S", attack, epsilon, right, 10)

    results = [
        result(CLEAN, 0.0, 9),
        *(result("fgsm", epsilon, right) for epsilon, right in ((0.1, 8), (0.2, 3), (0.3, 5))),
        *(result("ifgsm", epsilon, right) for epsilon, right in ((0.1, 7), (0.2, 2), (0.3, 6))),
        *(result(WORST_CASE, epsilon, 1) for epsilon in (0.1, 0.2, 0.3)),
    ]
    assert [(r.attack, r.epsilon) for r in strongest(results)] == [("ifgsm", 0.1), ("fgsm", 0.3)]
    assert strongest(results[:1]) == []
    assert [r.epsilon for r in strongest(results[:2])] == [0.1]


def test_pictures_round_to_the_nearest_level_and_are_made_small(rng):
    image = rng.random((5, 7, 3))
    assert (opened(png(image)) == np.floor(255 * image + 0.5)).all()
    assert opened(png(np.array([[[-0.2], [1.3]]]))).tolist() == [[0, 255]]
    assert opened(png(np.ones((200, 100, 1)))).shape == (96, 48)


def test_images_that_are_no_pictures_are_not_kept():
    assert examples(None, np.zeros((3, 4, 4, 2), "float32"), np.zeros(3, int), {}) == ()
