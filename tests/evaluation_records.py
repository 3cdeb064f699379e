"""Records of evaluations made by hand: what each attack fooled, image by image."""

from divtf.storage.evaluations import EvaluationRecord, TrialResult, packed_at
from divtf.storage.records import packed

IMAGES = 8


def trial(kind, fooled, *, tried=range(IMAGES), attack="pgd", epsilon=0.1, settings=None, **told):
    """An attack tried on the images of these numbers, which fooled some of them."""
    tried = list(tried)
    assert set(fooled) <= set(tried)
    bits, hits = packed_at(tried, [number not in fooled for number in tried], IMAGES)
    values = {"gradients": 20, "queries": 0, "settings": {"steps": 20} if settings is None else settings}
    return TrialResult(attack=attack, kind=kind, epsilon=epsilon, tried=bits, hits=hits, **values | told)


def record(target, trials, *, wrong=(), seed=0, epsilons=(0.1,), **told):
    """A target that classifies all images as labelled when clean, but for the wrong ones."""
    values = {
        "protocol": "strong",
        "images": IMAGES,
        "clean": packed(number not in wrong for number in range(IMAGES)),
        "surrogates": {name: {"seed": 1} for name in dict.fromkeys(t.surrogate for t in trials) if name},
        "stored_as": "float32",
        "query_images": 0,
        "images_digest": "of all",
        "budget": {"members": 2},
        "analysis": {"command": "evaluate it", "commit": "0123abc", "platform": "secret"},
        "provenance": {"command": "train it", "commit": "0123abc", "platform": "secret"},
    }
    return EvaluationRecord(
        target, "conv3", "mnist", seed, trials=tuple(trials), epsilons=epsilons, **values | told
    )
