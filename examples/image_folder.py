"""A folder of images by the command line, and the run back in Python. About 25 seconds.

Makes a folder `digits/train/CLASS/file` and `digits/test/CLASS/file` of PNGs, as yours may be, trains on it
by `python -m divtf.main`, and loads the run's ensemble again.

    python examples/image_folder.py [--to=image_folder]
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import divtf

NAMES = ("zero", "one", "two", "three")


def write_images(root: Path) -> None:
    """A folder of PNGs: the first digits of MNIST that are 0 to 3."""
    data = divtf.load_dataset("mnist5k", max_train_examples=500, max_test_examples=100)
    for split, images, labels in (
        ("train", data.x_train, data.y_train),
        ("test", data.x_test, data.y_test),
    ):
        for number in np.flatnonzero(labels < len(NAMES)):
            path = root / split / NAMES[labels[number]] / f"{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[number, ..., 0]).save(path)


def main() -> None:
    """Make the folder, run the command on it, and load what it has trained."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=Path("image_folder"), help="where everything is put")
    root = parser.parse_args().to
    write_images(root / "digits")
    command = [
        *(sys.executable, "-m", "divtf.main", "--model=conv3", "--mode=div", f"--dataset={root / 'digits'}"),
        *("--image_size=16", "--epsilons=0.05,0.1", "--epochs=2", "--num_members=2", "--batch_size=32"),
        *("--attacks=fgsm", f"--run_dir={root / 'runs' / 'digits'}", "--resume"),
    ]
    print("$", " ".join(["python", *command[1:]]), flush=True)
    subprocess.run(command, check=True)
    run = divtf.load_run(root / "runs" / "digits")
    images, labels = run.data.test_set(8)  # Read from the folder now.
    classes = run.ensemble.predict(np.asarray(images), verbose=0).argmax(axis=-1)
    for predicted, label in zip(classes, labels, strict=True):
        print(f"{run.data.spec.class_names[label]:6} is taken for {run.data.spec.class_names[predicted]}")


if __name__ == "__main__":
    main()
