"""Members of the user's own by name: a function's, an application of Keras, or saved ones to go on from."""

import contextlib
import difflib
import hashlib
import inspect
import random
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from divtf.errors import InputError, first_line, require
from divtf.networks import names
from divtf.networks.conversion import (
    convert_member,
    give_weights,
    is_graph,
    random_images,
    require_same,
    takes_bytes,
)
from divtf.runtime import own_code
from divtf.runtime.draws import draws_kept
from divtf.runtime.logs import get_logger
from divtf.runtime.private_names import layers_of
from divtf.storage.digests import file_digest

_LOG = get_logger(__name__)
# Seeds that every generator takes, keras.utils.set_random_seed among them.
_SEEDS = 2**31 - 1


def own_members(
    model: str, input_shape: Sequence[int], num_classes: int, *, seeds: Sequence[int]
) -> list[keras.Model]:
    """Members of a model of the user's own, converted by `convert_member` where they are graphs.

    Args:
        model: as `networks.names` has them.
        input_shape: of the images, without the batch.
        num_classes: number of logits.
        seeds: one a member; saved members that are gone on with take none.

    Raises:
        InputError: if the model cannot be had, does not fit, or begins two members from the same weights.
    """
    shape = tuple(input_shape)
    if names.files_of(model):
        members = _saved_members(model, shape, num_classes, seeds)
    elif model.startswith(names.KERAS):
        template = _application(model, shape, num_classes)
        name = names.short(model)
        members = [drawn_anew(template, seed, f"{name}_{index}") for index, seed in enumerate(seeds)]
    else:
        function = own_code.function(model, "model")
        members = [
            _called(model, function, shape, num_classes, index, seed) for index, seed in enumerate(seeds)
        ]
    _require_apart(model, members)
    return members


def drawn_anew(model: keras.Model, seed: int, name: str) -> keras.Model:
    """A model of the same configuration whose weights are drawn from a seed of its own.

    Every initialiser and random layer gets a seed from a stream. What is not trained stays as it is: weights
    of frozen layers, and the statistics of keras.layers.Normalization.

    Args:
        model: built.
        seed: of the stream; the global generators are left as they were.
        name: of the copy.

    Raises:
        InputError: if the model cannot be made again from its configuration.
    """
    try:
        config = _reseeded(model.get_config(), random.Random(seed))
        with _drawn_from(seed):
            copy = type(model).from_config(config | ({"name": name} if "name" in config else {}))
            if not copy.built:
                copy(keras.Input(batch_shape=model.get_build_config()["input_shape"]))
        for layer, before in zip(layers_of(copy), layers_of(model), strict=True):
            if not before.trainable or isinstance(before, keras.layers.Normalization):
                layer.set_weights(before.get_weights())
            if isinstance(before, keras.layers.Normalization):
                layer.finalize_state()
    except Exception as error:  # Whatever the user's layers say.
        raise InputError(
            f"Expected a model that can be made again from its get_config(). "
            f"Received: {model.name!r}: {reason(error)}"
        ) from error
    return copy


def computes_as(model: keras.Model, saved: keras.Model, input_shape: Sequence[int]) -> bool:
    """Whether a model, given the weights of a saved one, computes the same; it keeps these weights.

    Args:
        model: as the user's code makes it now.
        saved: as it was before.
        input_shape: of the images, without the batch.
    """
    shapes = [[tuple(weight.shape) for weight in each.weights] for each in (model, saved)]
    if shapes[0] != shapes[1]:
        return False
    give_weights(model, saved.get_weights())
    images = random_images((None, *input_shape))
    try:
        require_same(model(images, training=False), saved, saved(images, training=False))
    except InputError:
        return False
    return True


def reason(error: Exception) -> str:
    """What Keras could not make from a configuration, in one line: it says so last, after all of that."""
    return first_line(ValueError(str(error).rpartition("Exception encountered: ")[2]))[:200]


def _reseeded(config: Any, stream: random.Random) -> Any:
    """A configuration with each "seed" in it, of initialisers and random layers, from a stream."""
    if isinstance(config, dict):
        return {
            key: stream.randrange(_SEEDS)
            if key == "seed" and (value is None or isinstance(value, int))
            else _reseeded(value, stream)
            for key, value in config.items()
        }
    return [_reseeded(value, stream) for value in config] if isinstance(config, list) else config


@contextlib.contextmanager
def _drawn_from(seed: int) -> Iterator[None]:
    """Let what is drawn without a seed come from this one: Keras takes such seeds from Python's generator."""
    with draws_kept():
        random.seed(seed)
        np.random.seed(seed % 2**32)
        yield


def _called(
    model: str, function: Callable[..., Any], shape: tuple[int, ...], num_classes: int, index: int, seed: int
) -> keras.Model:
    """A member that the user's function makes."""
    name = f"{names.short(model)}_{index}"
    given = {"input_shape": shape, "num_classes": num_classes, "name": name, "seed": seed % _SEEDS}
    _require_taken(model, function, given)
    with _drawn_from(seed):
        expected = f"{model} to make a model of images {shape} and {num_classes} classes"
        with own_code.told_in_one_line(expected):
            member = function(**given)
        return _converted(model, member, shape, num_classes)


def _require_taken(model: str, function: Callable[..., Any], given: dict[str, Any]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # As of some classes; the call will tell.
        return
    try:
        signature.bind(**given)
    except TypeError as error:
        raise InputError(
            f"Expected {model} to be called with {', '.join(given)} as keywords. "
            f"Received: {model.partition(':')[2]}{signature}: {error}"
        ) from None


def _converted(source: str, member: Any, shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """A model of the user's as a member, if it takes the images and gives a logit a class."""
    require(isinstance(member, keras.Model), f"a Keras model of {source}", f"a {type(member).__name__}")
    taken = getattr(member, "input_shape", None)
    fits = taken is None or (
        isinstance(taken, tuple)
        and len(taken) == 1 + len(shape)
        and all(size in (None, wanted) for size, wanted in zip(taken[1:], shape, strict=True))
    )
    require(fits, f"{source} of images {shape}, as the data set has them", f"a model of inputs {taken}")
    with own_code.told_in_one_line(f"{source} to take images {shape}"):
        outputs = member(random_images((None, *shape)), training=False)
    found = tuple(getattr(outputs, "shape", ()))[1:]
    require(
        found == (num_classes,),
        f"{source} with {num_classes} outputs, one a class of the data set",
        f"outputs of shape {found}" if hasattr(outputs, "shape") else f"a {type(outputs).__name__}",
    )
    warn_of_bytes(source, member)
    # What is no graph is taken as it is: the Ensemble measures it.
    return convert_member(member) if is_graph(member) else member


def warn_of_bytes(source: str, model: keras.Model) -> None:
    """Warn of a model that rescales bytes: what it was trained on decides whether it is to be given them."""
    if takes_bytes(model):
        _LOG.warning(
            f"{source} rescales bytes, and runs give images in [0, 1]: keras.layers.Rescaling(255) before it "
            "gives it bytes"
        )


def _applications() -> dict[str, Callable[..., keras.Model]]:
    found = inspect.getmembers(keras.applications, callable)
    return {name: function for name, function in found if not name.startswith("_")}


def _application(model: str, shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """A classifier of keras.applications for images in [0, 1]."""
    name, known = model.removeprefix(names.KERAS), _applications()
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    require(name in known, f"--model={names.KERAS}NAME of keras.applications", f"{name}{hint}")
    try:
        # Some look up by their name what they are made of, and fail where it is another one.
        made = known[name](weights=None, input_shape=shape, classes=num_classes, classifier_activation=None)
    except Exception as error:  # What an application does not take it says in its own way.
        raise InputError(
            f"Expected images and classes that {model} takes. "
            f"Received: {shape}, {num_classes} classes: {first_line(error):.200}"
        ) from error
    if any(
        isinstance(layer, keras.layers.Rescaling | keras.layers.Normalization) for layer in layers_of(made)
    ):
        images = keras.Input(shape, name="images")
        # It brings pixels of [0, 255] to its own range by itself.
        made = keras.Model(images, made(keras.layers.Rescaling(255.0)(images)), name=f"{name}_of_bytes")
    return _converted(model, made, shape, num_classes)


def _saved_members(
    model: str, shape: tuple[int, ...], num_classes: int, seeds: Sequence[int]
) -> list[keras.Model]:
    """The members in the user's files."""
    loaded = [(file, _load(file)) for file in names.files_of(model)]
    if len(loaded) == 1 and isinstance(within := getattr(loaded[0][1], "members", None), list):
        loaded = [(loaded[0][0], member) for member in within]  # Of an Ensemble.
    require(
        len(loaded) == len(seeds),
        f"num_members={len(loaded)}, as many as there are in the files",
        f"num_members={len(seeds)}",
    )
    members = [_converted(str(file.path), member, shape, num_classes) for file, member in loaded]
    if names.is_new(model):
        return [drawn_anew(member, seed, member.name) for member, seed in zip(members, seeds, strict=True)]
    return members


def _load(file: names.SavedModel) -> Any:
    path = file.path
    require(path.is_file(), "files of saved members", f"{path}: no file")
    require(zipfile.is_zipfile(path), "a model that Keras saved", f"{path}, which is no .keras file")
    require(
        file_digest(path).startswith(file.digest),
        f"{path} as it was when the run was configured, {file.digest}",
        "a file that has changed since",
    )
    try:
        # In safe mode Keras runs no code that a file brings.
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # A file that Keras did not write may fail in any way.
        raise InputError(
            f"Expected a model that Keras saved, of layers that it knows (MODULE:FUNCTION may load others). "
            f"Received: {path}: {reason(error)}"
        ) from error


def _require_apart(model: str, members: Sequence[keras.Model]) -> None:
    """Refuse members that would be one and the same for ever."""
    found: dict[str, int] = {}
    for index, member in enumerate(members):
        content = hashlib.sha256(b"".join(weight.tobytes() for weight in member.get_weights())).hexdigest()
        require(
            content not in found,
            f"members of {model} that begin from weights of their own, as by the seed that each is given",
            f"members {found.get(content)} and {index} with the same weights",
        )
        found[content] = index
