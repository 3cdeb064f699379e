"""Ways to read images by their numbers, side by side: python -m benchmarks.loaders --output=PATH.

JPEGs and PNGs of a photograph's size are made, and every way reads the same ones, at random, as uint8 arrays
of a smaller size. Grain is measured where it is installed; divtf does not need it.
"""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import app, flags
from PIL import Image

from benchmarks.timing import Row, medians, write_tables
from divtf.data.datasets import load_dataset

COUNT = flags.DEFINE_integer("images", 600, "Images on disk, of each kind.", lower_bound=60)
SIDE = flags.DEFINE_integer("side", 400, "Their height and width.", lower_bound=8)
SIZE = flags.DEFINE_integer("size", 64, "Height and width that they are resized to.", lower_bound=8)
BATCH = flags.DEFINE_integer("batch_size", 128, "Images a call.", lower_bound=1)
REPEATS = flags.DEFINE_integer("repeats", 7, "Timed rounds, after two that are not counted.", lower_bound=1)
OUTPUT = flags.DEFINE_string("output", None, "Write PATH.json and, for reading, PATH.md.")
CHOSEN = "Pillow in threads, as divtf reads a folder"


def picture(seed: int) -> np.ndarray:
    """A smooth image with some noise, of which a JPEG takes as much as of a photograph."""
    rng, side = np.random.default_rng(seed), SIDE.value
    smooth = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype="uint8")).resize((side, side))
    return np.asarray(smooth) // 2 + rng.integers(0, 32, (side, side, 3), dtype="uint8")


def make_folder(root: Path, suffix: str) -> None:
    """A folder of two classes."""

    def save(number):
        path = root / ("train" if number % 10 else "test") / f"class{number // 10 % 2}" / f"{number}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number)).save(path)

    with ThreadPoolExecutor() as threads:
        list(threads.map(save, range(COUNT.value)))


def pillow(path: str) -> np.ndarray:
    """As most loaders in Python read an image: whole, then resized."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((SIZE.value, SIZE.value), Image.Resampling.BILINEAR))


def tensorflow(path: tf.Tensor) -> tf.Tensor:
    """As `keras.utils.image_dataset_from_directory` does."""
    image = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
    return tf.cast(tf.image.resize(image, [SIZE.value] * 2, antialias=True) + 0.5, tf.uint8)


def grain_ways(paths: list[str], numbers: np.ndarray) -> dict:
    """Grain's threads around Pillow, or nothing where it is not installed."""
    try:
        import grain
    except ImportError:
        return {}

    def read():
        source = grain.MapDataset.source(numbers.tolist()).map(lambda i: pillow(paths[i]))
        return list(source.batch(BATCH.value).to_iter_dataset(grain.ReadOptions(num_threads=2)))

    return {"Grain's MapDataset and threads around Pillow": read}


def array_record(root: Path, paths: list[str], numbers: np.ndarray) -> dict:
    """TFDS's random access, to the same files in its own format."""
    image = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
    features = {"image": image, "label": tfds.features.ClassLabel(num_classes=2)}
    examples = tf.data.Dataset.from_generator(
        lambda: ({"image": np.asarray(Image.open(path)), "label": 0} for path in paths),
        output_signature={
            "image": tf.TensorSpec([None, None, 3], tf.uint8),
            "label": tf.TensorSpec([], tf.int64),
        },
    )
    tfds.dataset_builders.store_as_tfds_dataset(
        "pictures",
        version="1.0.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets={"train": examples, "test": examples},
        data_dir=root,
        file_format="array_record",
        disable_shuffling=True,
    )
    data = load_dataset("tfds:pictures", data_dir=str(root), image_size=(SIZE.value, SIZE.value))
    return {"array_record of tensorflow-datasets, as divtf reads tfds:NAME": lambda: data.x_train[numbers]}


def ways(root: Path, suffix: str) -> dict:
    """Each way to read one batch."""
    make_folder(root / suffix, suffix)
    data = load_dataset(str(root / suffix), image_size=(SIZE.value, SIZE.value))
    paths = sorted(map(str, (root / suffix / "train").rglob(f"*.{suffix}")))
    numbers = np.random.default_rng(0).integers(0, len(paths), BATCH.value)
    known = tf.constant(paths)
    dataset = tf.data.Dataset.from_tensor_slices(numbers).map(
        lambda number: tensorflow(known[number]), num_parallel_calls=tf.data.AUTOTUNE
    )
    batches, threads = dataset.batch(BATCH.value), ThreadPoolExecutor()
    arrays = {name: np.asarray(getattr(data, name)) for name in ("x_train", "y_train", "x_test", "y_test")}
    np.savez(root / f"{suffix}.npz", **arrays)
    archive = load_dataset(str(root / f"{suffix}.npz"))
    return {
        CHOSEN: lambda: data.x_train[numbers],
        "Pillow in threads, JPEGs decoded whole": lambda: list(
            threads.map(pillow, [paths[i] for i in numbers])
        ),
        "tf.data by number with TensorFlow's decoders": lambda: list(batches),
        **grain_ways(paths, numbers),
        **(array_record(root / "tfds", paths, numbers) if suffix == "jpg" else {}),
        "an archive, resized before and mapped": lambda: archive.x_train[numbers],
        "an array in memory, resized before": lambda: arrays["x_train"][numbers],
    }


def main() -> None:
    tables = {}
    for suffix in ("jpg", "png"):
        with tempfile.TemporaryDirectory() as root:
            seconds = medians(ways(Path(root), suffix), REPEATS.value)
        rows = [Row(f"{CHOSEN}: images a second", BATCH.value / seconds[CHOSEN])]
        rows += [Row(f"time of {name}, over it", value / seconds[CHOSEN]) for name, value in seconds.items()]
        tables[suffix.upper()] = rows
        print(suffix, *(f"  {row.name}: {row.value:.3g}" for row in rows), sep="\n", flush=True)
    if OUTPUT.value:
        budget = {"images": COUNT.value, "side": SIDE.value, "size": SIZE.value, "batch size": BATCH.value}
        write_tables(Path(OUTPUT.value), "Loaders", budget | {"rounds": REPEATS.value}, tables)


if __name__ == "__main__":
    app.run(lambda _: main())
