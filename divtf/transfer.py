"""Black-box evaluation by transfer: surrogate x attack x epsilon -> images -> every target (section 4.1)."""

import hashlib
import json
import os
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from divtf import distribution, files, run_dir
from divtf.alignment import true_class_margin
from divtf.attacks import Attack
from divtf.config import digest
from divtf.errors import require
from divtf.layers import flat_layers
from divtf.records import CLEAN, WORST_CASE, TransferResult

# Below this loss float32 gives a member's gradient few right digits, if the loss is not written with care.
SATURATED_LOSS = 1e-7
_PREDICTIONS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


class AdversarialSets:
    """Adversarial images of one surrogate, made once and kept in a directory.

    A set's name is a digest of all that it depends on: attack, threat model, surrogate, images, labels,
    seed, batch size and library versions. Its manifest holds these and the SHA-256 of the file,
    which is checked whenever the set is read; a file that fails is made again. Processes may share the
    directory: one makes a set while the others wait for it.

    Args:
        surrogate: the attacked ensemble, or a callable that gives logits.
        directory: where sets are kept; None keeps nothing.
        seed: of the attacks' random starts.
        batch_size: images attacked at a time.
        say: takes a line of progress.
    """

    def __init__(
        self,
        surrogate,
        directory: str | os.PathLike | None = None,
        *,
        seed: int = 0,
        batch_size: int = 250,
        say: Callable[[str], object] = lambda line: None,
    ):
        require(isinstance(batch_size, int) and batch_size >= 1, "batch_size >= 1", batch_size=batch_size)
        self._surrogate = surrogate
        self._directory = None if directory is None else Path(directory)
        self._seed = seed
        self._batch_size = batch_size
        self._say = say
        self._surrogate_digest = model_digest(surrogate) if directory else ""

    def images(self, attack: Attack, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, str]:
        """Adversarial images of x, float32 in its shape, and the digest of their file ("" if not kept)."""
        if self._directory is None:
            return self._make(attack, x, y), ""
        manifest = self._manifest(attack, x, y)
        path = self._directory / f"{attack.name}-{attack.threat.epsilon:g}-{digest(manifest)}.npy"
        if kept := _kept(path, manifest, x.shape):
            return kept
        # One process makes a set; who waited for it finds it ready.
        with run_dir.held(self._directory, self._say):
            if kept := _kept(path, manifest, x.shape):
                return kept
            if path.with_suffix(".json").exists():
                self._say(f"{path} is not the file of its manifest; making it again")
            return self._write(path, manifest, self._make(attack, x, y))

    def saturated(self, x: np.ndarray, y: np.ndarray) -> float:
        """Share of the images for which the loss of every surrogate member is below 1e-7."""
        losses = []
        for i in range(0, len(x), self._batch_size):
            logits = _member_logits(self._surrogate, tf.constant(x[i : i + self._batch_size]))
            labels = tf.broadcast_to(y[i : i + self._batch_size], logits.shape[:-1])
            losses.append(tf.nn.softplus(true_class_margin(logits, labels)).numpy())
        return float((np.concatenate(losses, axis=1).max(axis=0) < SATURATED_LOSS).mean())

    def _make(self, attack, x, y):
        size = self._batch_size
        batches = [(x[i : i + size], y[i : i + size], self._seed + i) for i in range(0, len(x), size)]
        devices = distribution.devices_of(self._surrogate)
        return np.concatenate([a.numpy() for a in attack.on_batches(self._surrogate, batches, devices)])

    def _write(self, path: Path, manifest: Mapping[str, Any], x_adv: np.ndarray) -> tuple[np.ndarray, str]:
        """Keep a set; it counts once its manifest is there."""
        with files.atomic_path(path) as partial, partial.open("wb") as handle:
            np.save(handle, x_adv, allow_pickle=False)
        sha256 = run_dir.file_digest(path)
        run_dir.write_json(path.with_suffix(".json"), {**manifest, "sha256": sha256})
        return x_adv, sha256

    def _manifest(self, attack, x, y) -> dict[str, Any]:
        return attack.describe() | {
            "surrogate": self._surrogate_digest,
            "images": array_digest(x),
            "labels": array_digest(y),
            "count": len(x),
            "seed": self._seed,
            "batch_size": self._batch_size,
            **{name: metadata.version(name) for name in ("divtf", "tensorflow", "keras", "cleverhans")},
        }


def evaluate_transfer(
    surrogate,
    targets,
    dataset,
    attacks: Iterable[Attack] | Attack,
    *,
    clean=None,
    directory: str | os.PathLike | None = None,
    surrogate_name: str = "surrogate",
    seed: int = 0,
    batch_size: int = 250,
    say: Callable[[str], object] = lambda line: None,
) -> list[TransferResult]:
    """Accuracy of every target on adversarial images of the surrogate: rows of Table 2.

    Args:
        surrogate: an Ensemble, or a callable that gives logits [B, C].
        targets: the same, one or several: a mapping from names, or a sequence (then each goes by its
            `name`).
        dataset: images [n, H, W, C] in [0, 1] and integer labels [n] to attack: a pair of arrays, or a
            tf.data.Dataset of batches.
        attacks: made by `make_attack`, one or several.
        clean: images and labels for clean accuracy; None takes `dataset`.
        directory: keeps the adversarial sets for further calls; None keeps nothing.
        surrogate_name: for the results.
        seed: of the attacks' random starts.
        batch_size: images at a time.
        say: takes a line of progress.

    Returns:
        For each target the clean result, one for each attack, and for each epsilon the worst case: an
        image counts as correct there if it is so under all attacks of that epsilon.

    Raises:
        InputError: if images, labels, models and attacks do not fit together, or a model's outputs are NaN.
    """
    x, y = _arrays(dataset)
    x_clean, y_clean = (x, y) if clean is None else _arrays(clean)
    named = _named(targets)
    attacks = [attacks] if isinstance(attacks, Attack) else list(attacks)
    foreign = [attack for attack in attacks if not isinstance(attack, Attack)]
    require(not foreign, "attacks made by make_attack", f"{foreign!r:.80}")
    sets = AdversarialSets(surrogate, directory, seed=seed, batch_size=batch_size, say=say)
    models = [*named.values(), *([surrogate] if attacks else [])]
    _check(attacks, models, x, y)
    _check(attacks, models, x_clean, y_clean)
    saturated = sets.saturated(x, y) if attacks else 0.0
    results = {
        name: [_clean_result(name, target, x_clean, y_clean, batch_size)] for name, target in named.items()
    }
    survivors: dict[tuple[str, float], np.ndarray] = {}
    for number, attack in enumerate(attacks, 1):
        epsilon = attack.threat.epsilon
        say(f"attack {number}/{len(attacks)}: {attack.name}, epsilon {epsilon:g}, {len(x)} images")
        x_adv, file_digest = sets.images(attack, x, y)
        for name, target in named.items():
            hits = predictions(target, x_adv, batch_size) == y
            survivors[name, epsilon] = survivors.get((name, epsilon), True) & hits
            results[name].append(
                TransferResult(
                    name,
                    surrogate_name,
                    attack.name,
                    epsilon,
                    int(hits.sum()),
                    len(y),
                    saturated,
                    file_digest,
                )
            )
    for (name, epsilon), hits in survivors.items():
        results[name].append(
            TransferResult(name, surrogate_name, WORST_CASE, epsilon, int(hits.sum()), len(y), saturated)
        )
    return [result for rows in results.values() for result in rows]


def predictions(target, x: np.ndarray, batch_size: int = 250) -> np.ndarray:
    """Class indices [n] that the target gives the images.

    Raises:
        InputError: if its outputs are NaN, which would count as a class.
    """
    scores = outputs(target, x, batch_size)
    lost = int(np.isnan(scores).any(axis=-1).sum())
    require(lost == 0, "a target whose outputs are numbers", f"NaN for {lost} of {len(x)} images")
    return scores.argmax(axis=-1)


def outputs(target, x: np.ndarray, batch_size: int = 250) -> np.ndarray:
    """What the target gives the images, [n, C]: an Ensemble the logarithms of its mean probabilities."""
    devices = distribution.devices_of(target)
    if isinstance(target, keras.Model) and not devices:
        return target.predict(x, batch_size=batch_size, verbose=0)
    batches = [(tf.constant(x[i : i + batch_size]),) for i in range(0, len(x), batch_size)]
    # Keras would split each batch over the devices, and sums may depend on how much is summed at once.
    outputs = distribution.map_batches(
        _prediction(target, x.shape[1:]) if devices else target, batches, devices
    )
    return np.concatenate([np.asarray(output) for output in outputs])


def _prediction(model: keras.Model, image_shape: tuple[int, ...]) -> Callable[[tf.Tensor], tf.Tensor]:
    """The model's prediction as one graph, traced once: it is asked for after every attack."""
    if model not in _PREDICTIONS:
        reference: Any = weakref.ref(model)  # The cache must not keep the model alive.
        signature = [tf.TensorSpec([None, *image_shape], tf.float32)]
        traced = tf.function(lambda x: reference()(x, training=False), input_signature=signature)
        _PREDICTIONS[model] = traced.get_concrete_function()
    return _PREDICTIONS[model]


def array_digest(array: np.ndarray) -> str:
    """SHA-256 of an array's type, shape and values."""
    hasher = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    hasher.update(np.ascontiguousarray(array).tobytes())
    return hasher.hexdigest()


def weights_digest(model) -> str:
    """SHA-256 of a Keras model's weights, in their order."""
    require(isinstance(model, keras.Model), "a Keras model, whose weights can be told apart", f"{model!r}")
    hasher = hashlib.sha256()
    for weight in model.get_weights():
        hasher.update(array_digest(weight).encode())
    return hasher.hexdigest()


def model_digest(model) -> str:
    """SHA-256 of what a Keras model computes: its layers' kinds and settings, and its weights."""
    weights = weights_digest(model)
    # Names count the layers made before in the process, so they would tell equal models apart.
    settings = [
        (type(layer).__name__, {key: value for key, value in layer.get_config().items() if key != "name"})
        for layer in flat_layers(model)
        if not isinstance(layer, keras.Model)
    ]
    return hashlib.sha256((json.dumps(settings, default=str) + weights).encode()).hexdigest()


def _kept(path: Path, manifest: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[np.ndarray, str] | None:
    """The images of a file and its SHA-256, if they and their manifest are what was written."""
    try:
        recorded = json.loads(path.with_suffix(".json").read_bytes())
        sha256 = run_dir.file_digest(path)
        if recorded != {**manifest, "sha256": sha256}:
            return None
        # Forged together, file and manifest may agree: nothing is unpickled, nor taken in another shape.
        images = np.load(path, allow_pickle=False)
        return (images, sha256) if (images.dtype, images.shape) == (np.float32, shape) else None
    except (OSError, ValueError, AttributeError, RecursionError, MemoryError):
        return None


def _clean_result(name, target, x, y, batch_size) -> TransferResult:
    hits = predictions(target, x, batch_size) == y
    return TransferResult(name, "", CLEAN, 0.0, int(hits.sum()), len(y))


def _member_logits(target, x: tf.Tensor) -> tf.Tensor:
    return (
        target.member_logits(x) if hasattr(target, "member_logits") else tf.convert_to_tensor(target(x))[None]
    )


def _arrays(dataset) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(dataset, tf.data.Dataset):
        endless = dataset.cardinality() == tf.data.INFINITE_CARDINALITY
        require(not endless, "a dataset that ends", "an endless one, as .repeat() makes it")
        batches = [(x.numpy(), y.numpy()) for x, y in dataset]
        unbatched = any(np.ndim(y) == 0 for _, y in batches)
        require(not unbatched, "a dataset of batches, as .batch(250) makes them", "one of single images")
        require(len(batches) > 0, "a dataset with at least one batch", "none")
        dataset = tuple(np.concatenate(part) for part in zip(*batches, strict=True))
    x, y = np.asarray(dataset[0], "float32"), np.asarray(dataset[1])
    require(len(x) == len(y) > 0, "as many images as labels, at least one", f"{len(x)} and {len(y)}")
    integers = np.issubdtype(y.dtype, np.integer) and y.size == len(y)
    require(integers, "integer labels, one an image", f"{y.dtype} of shape {y.shape}")
    return x, y.reshape(-1)


def _check(attacks: Sequence[Attack], models: Sequence[Any], x: np.ndarray, y: np.ndarray) -> None:
    """Hold images to the attacks' range, or [0, 1], and the models' shape, and labels to their classes."""
    low, high = float(x.min()), float(x.max())
    least = min((attack.threat.clip_min for attack in attacks), default=0.0)
    most = max((attack.threat.clip_max for attack in attacks), default=1.0)
    require(least <= low and high <= most, f"images in [{least}, {most}]", f"values from {low:g} to {high:g}")
    # Callables and subclassed models do not tell their shapes.
    telling = [plain for plain in map(_plain, models) if isinstance(getattr(plain, "input_shape", 0), tuple)]
    for shape in (plain.input_shape[1:] for plain in telling):
        fits = len(shape) == x.ndim - 1 and all(
            a in (None, b) for a, b in zip(shape, x.shape[1:], strict=True)
        )
        require(fits, f"images of the models' shape {shape}", f"images of shape {x.shape[1:]}")
    classes = min((plain.output_shape[-1] for plain in telling), default=None)
    first, last = int(y.min()), int(y.max())
    inside = first >= 0 and (classes is None or last < classes)
    require(inside, f"labels in [0, {classes or 'classes'})", f"labels from {first} to {last}")


def _plain(model):
    """The model, or an ensemble's first member, which has the shapes of all."""
    return model.members[0] if hasattr(model, "members") else model


def _named(targets) -> Mapping[str, Any]:
    if isinstance(targets, Mapping):
        return targets
    several: Sequence = targets if isinstance(targets, Sequence) else [targets]
    names = [getattr(target, "name", f"target_{i}") for i, target in enumerate(several)]
    require(len(set(names)) == len(names), "targets with distinct names, or a mapping from names", f"{names}")
    return dict(zip(names, several, strict=True))
