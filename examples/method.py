"""The method on one image: input gradients of a plain and of a diverse ensemble, and the angles between them.

An ensemble's members are trained to be right, and by the gradient alignment loss to have input gradients that
point apart: then a change of the image that fools one member need not fool another. docs/method.png is the
picture; five minutes on two cores.

    python examples/method.py [--images=1600] [--epochs=3] [--number=7] [--to=method.png]
"""

import argparse
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import divtf
from divtf.reporting.figures.method import cosines, method_figure
from divtf.reporting.figures.style import png

SHAPE = (28, 28, 1)
OBJECTIVES = {"T_Base": divtf.CrossEntropy(), "GAL": divtf.GradientAlignment(weight=0.5)}


def trained(objective, data, epochs):
    """An ensemble of three members; both begin from the same weights."""
    keras.utils.set_random_seed(0)  # The order of the images.
    ensemble = divtf.Ensemble(divtf.build_members("conv3", 3, SHAPE, 10, seed=0), objective)
    ensemble.compile("adam")
    ensemble.fit(data.x_train / 255.0, data.y_train, batch_size=64, epochs=epochs, verbose=2)
    return ensemble


def main():
    """Train both, take the gradients at one test image, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1600, help="training images")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--number", type=int, default=7, help="of the test image")
    parser.add_argument("--to", default="method.png", help="where the picture goes")
    flags = parser.parse_args()
    data = divtf.load_dataset("mnist5k", max_train_examples=flags.images)
    x, y = data.test_set()
    one = slice(flags.number, flags.number + 1)
    gradients = {}
    for name, objective in OBJECTIVES.items():
        ensemble = trained(objective, data, flags.epochs)
        _, losses, flat = divtf.input_gradients(ensemble.members, tf.constant(x[one]), tf.constant(y[one]))
        gradients[name] = flat.numpy().reshape(-1, *SHAPE)
        coherence = divtf.gradient_statistics(ensemble, x, y).coherence
        print(f"{name}: losses of the members {np.round(losses.numpy()[:, 0], 3)}")
        print(
            f"{name}: coherence {cosines(gradients[name])[np.triu_indices(3, 1)].max():.2f} on this image, "
            f"{coherence.mean():.2f} on {len(x)}"
        )
    Path(flags.to).write_bytes(png(method_figure(x[flags.number], gradients)))
    print(f"drawn: {flags.to}")


if __name__ == "__main__":
    main()
