"""Digests that tell models apart by their weights, and by what they compute."""

import hashlib
import json

import keras

from divtf.errors import require
from divtf.networks.logits import MemberList
from divtf.runtime.own_code import classes_digest
from divtf.runtime.private_names import layers_of
from divtf.storage.digests import array_digest


def weights_digest(model) -> str:
    """SHA-256 of a Keras model's weights, in their order."""
    require(isinstance(model, keras.Model), "a Keras model, whose weights can be told apart", f"{model!r}")
    hasher = hashlib.sha256()
    for weight in model.get_weights():
        hasher.update(array_digest(weight).encode())
    return hasher.hexdigest()


def model_digest(model) -> str:
    """SHA-256 of what a Keras model, or a list of members, computes: layers, their settings, and weights."""
    if isinstance(model, MemberList):
        return hashlib.sha256("".join(map(model_digest, model.members)).encode()).hexdigest()
    weights = weights_digest(model)
    # Names count the layers made before in the process, so they would tell equal models apart.
    settings = [
        (
            type(layer).__name__,
            {key: value for key, value in layer.get_config().items() if key != "name"},
            *_own_code(layer),
        )
        for layer in layers_of(model)
        if not isinstance(layer, keras.Model)
    ]
    return hashlib.sha256((json.dumps(settings, default=str) + weights).encode()).hexdigest()


def _own_code(layer: keras.layers.Layer) -> list[str]:
    """What tells the code of a layer of the user's own: its gradient may change where its outputs do not."""
    kind = type(layer)
    return [] if kind.__module__.split(".")[0] in ("divtf", "keras") else [classes_digest([kind])]
