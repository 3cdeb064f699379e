"""Adversarial images of a surrogate, made once and kept with a manifest and a hash."""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from divtf.attacks.attack import REVISION, Attack, pool_numbers
from divtf.data.images import blocks, images_digest
from divtf.errors import require
from divtf.evaluation import surrogates
from divtf.evaluation.model_digests import model_digest
from divtf.evaluation.predictions import all_member_logits, predictions
from divtf.networks.logits import as_target, member_logits, true_class_margin
from divtf.runtime import progress
from divtf.runtime.devices import devices_of
from divtf.runtime.logs import get_logger
from divtf.storage import checked_json, digests, files, run_directory
from divtf.storage.digests import array_digest, digest
from divtf.storage.kept import kept

_LOG = get_logger(__name__)
# What attacks hang on; the last one, of the extra `attacks`, if it is there.
_LIBRARIES = ("divtf", "tensorflow", "keras", "cleverhans", "adversarial-robustness-toolbox")
# As many images tell models apart that have the same layers and weights, but put them together otherwise.
_ASKED = 64
# Below this loss float32 gives a member's gradient few right digits, if the loss is not written with care.
SATURATED_LOSS = 1e-7


class AdversarialSets:
    """Adversarial images of one surrogate, made once and kept in a directory.

    A set's name is a digest of all that it depends on: attack, threat model, surrogate, images, labels,
    seed, batch size and library versions. A surrogate is known by its layers and weights, and by what its
    members predict for the first images. Its manifest holds these and the SHA-256 of the file,
    which is checked whenever the set is read; a file that fails is made again. It also holds what tells the
    surrogate whole, by which no set is told from another. Processes may share the directory: one makes a set
    while the others wait for it.

    Args:
        surrogate: the attacked Ensemble, a list of members, or a callable that gives logits.
        directory: where sets are kept; None keeps nothing.
        seed: of all that attacks draw at random, for each image by its number.
        batch_size: images attacked at a time.
        settings: what tells the surrogate whole: names to texts and numbers, as "seed", "epochs" and
            "learning rate". An Ensemble tells its objective and number of members by itself.
        attacked: what attacks are given in its place: the same, so that they take it. None gives them the
            surrogate.

    Attributes:
        surrogate: the same.

    Raises:
        InputError: if the batch size or a setting is none.
    """

    def __init__(
        self,
        surrogate,
        directory: str | os.PathLike | None = None,
        *,
        seed: int = 0,
        batch_size: int = 250,
        settings: Mapping[str, Any] | None = None,
        attacked: Any = None,
    ):
        require(isinstance(batch_size, int) and batch_size >= 1, "batch_size >= 1", batch_size=batch_size)
        self.surrogate = as_target(surrogate)
        self._given = self.surrogate if attacked is None else attacked
        self._directory = None if directory is None else Path(directory)
        self._seed = seed
        self._batch_size = batch_size
        self._settings = surrogates.settings(self.surrogate, settings)
        self._told: dict[str, dict[str, Any]] = {}
        self._predicted: dict[str, str] = {}  # By the digests of surrogate and images.

    def images(
        self,
        attack: Attack,
        x: Any,
        y: np.ndarray,
        *,
        numbers: np.ndarray | None = None,
        seed: int | None = None,
        true: np.ndarray | None = None,
    ) -> tuple[np.ndarray, str]:
        """Adversarial images of x, float32, and the digest of their file ("" if not kept).

        What is kept is mapped from its file: neither it nor `x`, an array or `LazyImages`, need be in memory.

        Args:
            attack: made by `make_attack`.
            x: images [n, ...].
            y: their true classes [n], or those that the attack leads to.
            numbers: of the images that are attacked, ascending; None attacks all. An image has the same
                adversarial image whichever others are attacked, but of a `Search`.
            seed: of the attack's random draws; None is that of the sets.
            true: the true classes, where y are others.
        """
        numbers = np.arange(len(x)) if numbers is None else numbers
        seed = self._seed if seed is None else seed
        if self._directory is None:
            return np.concatenate(list(self._make(attack, x, y, numbers, seed))), ""
        manifest = self._manifest(attack, x, y, numbers, seed)

        def make():
            return self._make(attack, x, y, numbers, seed)

        true = y if true is None else true
        return self._stored(self._directory, manifest, make, np.dtype("<f4"), attack, x, true)

    def changes(self, attack: Attack, x: Any, y: np.ndarray, *, true: np.ndarray | None = None) -> np.ndarray:
        """What an attack adds to each image in units of its epsilon, 127 for a whole one: int8 [n, ...].

        A quarter of the images' bytes, and rounded to 1/127 of epsilon; a step of FGSM is exact. The
        arguments are those of `images`.
        """
        numbers = np.arange(len(x))

        def make():
            batches = self._make(attack, x, y, numbers, self._seed)
            return _changes(x, batches, attack.threat.epsilon)

        if self._directory is None:
            return np.concatenate(list(make()))
        manifest = self._manifest(attack, x, y, numbers, self._seed) | {"kept": "changes of 1/127 epsilon"}
        true = y if true is None else true
        return self._stored(self._directory, manifest, make, np.dtype("int8"), attack, x, true)[0]

    def _stored(
        self,
        directory: Path,
        manifest: dict[str, Any],
        make: Callable[[], Iterator[np.ndarray]],
        dtype: np.dtype,
        attack: Attack,
        x: Any,
        y: np.ndarray,
    ) -> tuple[np.ndarray, str]:
        """The set of this manifest, read from its file or made now, and the file's digest; y are true."""
        shape = (manifest["count"], *x.shape[1:])
        path = directory / f"{attack.name}-{attack.threat.epsilon:g}-{digest(manifest)}.npy"
        if stored := _read(path, manifest, shape, dtype):
            return stored
        # One process makes a set; who waited for it finds it ready.
        with run_directory.held(directory, wait=True):
            if stored := _read(path, manifest, shape, dtype):
                return stored
            if path.with_suffix(".json").exists():
                _LOG.info(f"{path} is not the file of its manifest; making it again")
            # One before there is a file: tracing the attack takes files of TensorFlow's own.
            batches = make()
            first = next(batches)
            written = _write(path, shape, dtype, itertools.chain([first], batches))
            told = {"surrogate_settings": self.told(x, y), "sha256": written[1]}
            checked_json.write_checked(path.with_suffix(".json"), manifest | told)
            return written

    def told(self, x: Any, y: np.ndarray) -> dict[str, Any]:
        """The surrogate's settings, and its "clean accuracy" on images and their labels, a share in [0, 1].

        Where it has no gradient at some of the first images, "no gradient at" says at how many.

        Raises:
            InputError: if TensorFlow cannot differentiate it.
        """
        key = self._digest() + surrogates.images_and_labels_digest(x, y)
        if key not in self._told or not self._directory:  # It may have been trained since.
            found = surrogates.without_gradient(self._given, np.asarray(x[: self._batch_size]), y)
            count = min(len(x), self._batch_size)
            measured: dict[str, Any] = {}
            if found:
                measured["no gradient at"] = f"{found} of the first {count} images"
            if "clean accuracy" not in self._settings:
                hits = predictions(self.surrogate, x, self._batch_size) == y
                measured["clean accuracy"] = float(hits.mean())
            self._told[key] = self._settings | measured
        return dict(self._told[key])

    def kept(
        self, name: str, settings: Mapping[str, Any], x: Any, y: np.ndarray, make: Callable[[], Any]
    ) -> Any:
        """Something else that is measured on the attacked model with these images, kept beside the sets.

        Args:
            name: of the measurement.
            settings: what it depends on beside model, images and labels, as JSON values.
            x: images [n, ...].
            y: their true classes [n].
            make: measures it; gives JSON values.
        """
        if self._directory is None:
            return make()
        depends = {**settings, "revision": REVISION, **self._attacked(x, y)}
        return kept(self._directory, name, depends, make)

    def saturated(self, x: Any, y: np.ndarray) -> float:
        """Share of the images for which the loss of every surrogate member is below 1e-7."""
        losses = []
        for i in range(0, len(x), self._batch_size):
            logits = member_logits(self.surrogate, tf.constant(np.asarray(x[i : i + self._batch_size])))
            labels = tf.broadcast_to(y[i : i + self._batch_size], logits.shape[:-1])
            losses.append(tf.nn.softplus(true_class_margin(logits, labels)).numpy())
        return float((np.concatenate(losses, axis=1).max(axis=0) < SATURATED_LOSS).mean())

    def _make(
        self, attack: Attack, x: Any, y: np.ndarray, numbers: np.ndarray, seed: int
    ) -> Iterator[np.ndarray]:
        """The adversarial images of some of x, batch by batch."""
        parts = list(blocks(numbers, self._batch_size))
        batches = ((np.asarray(x[part]), y[part], part) for part in parts)
        mixed_in = pool_numbers(len(x))
        pool = np.asarray(x[mixed_in]), y[mixed_in]
        with progress.bar(f"{attack.name}, epsilon {attack.threat.epsilon:g}", total=len(parts)) as bar:
            for x_adv in attack.on_batches(
                self._given, batches, pool=pool, seed=seed, devices=devices_of(self.surrogate)
            ):
                yield x_adv.numpy()
                bar.update(1)

    def _manifest(self, attack, x, y, numbers, seed) -> dict[str, Any]:
        return attack.describe() | {
            **self._attacked(x, y),
            "count": len(numbers),
            "numbers": array_digest(numbers),
            "seed": seed,
            "batch_size": self._batch_size,
        }

    def _digest(self) -> str:
        """Of the surrogate as it is now; "" where nothing is kept, since it may be any callable then."""
        return model_digest(self.surrogate) if self._directory else ""

    def _attacked(self, x: Any, y: np.ndarray) -> dict[str, Any]:
        """What tells the attacked model, the images, and the libraries."""
        surrogate, images = self._digest(), images_digest(x)
        if surrogate + images not in self._predicted:
            logits = all_member_logits(self.surrogate, np.asarray(x[:_ASKED]), self._batch_size)
            self._predicted[surrogate + images] = array_digest(logits.argmax(axis=-1))
        return {
            "surrogate": surrogate,
            "predicted": self._predicted[surrogate + images],
            "images": images,
            "labels": array_digest(y),
            **{name: metadata.version(name) for name in _LIBRARIES if _is_installed(name)},
        }


def _is_installed(name: str) -> bool:
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


def _changes(x: Any, batches: Iterable[np.ndarray], epsilon: float) -> Iterator[np.ndarray]:
    """What the images of batches, in order, add to x, in 1/127 of epsilon."""
    done = 0
    for batch in batches:
        change = batch - np.asarray(x[done : done + len(batch)])
        yield np.rint(change * (127 / epsilon)).clip(-127, 127).astype(np.int8)
        done += len(batch)


def _write(
    path: Path, shape: tuple[int, ...], dtype: np.dtype, batches: Iterable[np.ndarray]
) -> tuple[np.ndarray, str]:
    """Keep a set's images; it counts once its manifest is there."""
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    with files.atomic_path(path) as partial, partial.open("wb") as handle:
        np.lib.format.write_array_header_1_0(handle, header)
        for batch in batches:
            handle.write(batch.astype(dtype).tobytes())
    return np.load(path, mmap_mode="r", allow_pickle=False), digests.file_digest(path)


def _read(
    path: Path, manifest: Mapping[str, Any], shape: tuple[int, ...], dtype: np.dtype
) -> tuple[np.ndarray, str] | None:
    """The images of a file and its SHA-256, if they and their manifest are what was written."""
    try:
        recorded = checked_json.read_checked(path.with_suffix(".json"))
        sha256 = digests.file_digest(path)
        if not recorded.items() >= {**manifest, "sha256": sha256}.items():
            return None
        # Forged together, file and manifest may agree: nothing is unpickled, nor taken in another shape.
        images = np.load(path, mmap_mode="r", allow_pickle=False)
        return (images, sha256) if (images.dtype, images.shape) == (dtype, shape) else None
    except (OSError, ValueError, AttributeError, RecursionError, MemoryError):
        return None
