"""A frozen keras.applications backbone under diverse heads. About 40 seconds at the tiny default.

Every member has a backbone, whose weights stay as they are, and a head of its own, which is trained: the
gradient alignment loss pulls the members' input gradients apart through the heads alone. By default the
backbone is untrained; `--weights=imagenet` downloads what Keras offers, for `--size=96` and more.

    python examples/fine_tune_backbone.py [--weights=imagenet] [--size=32] [--images=192] [--epochs=2]
"""

import argparse

import keras
import numpy as np
from keras import layers

import divtf

MEMBERS = 2


def member(size: int, classes: int, weights: str | None, seed: int) -> keras.Model:
    """A backbone that is not trained and a head that is, with layers that are exact to second order."""
    backbone = keras.applications.MobileNetV2((size, size, 3), 0.35, include_top=False, weights=weights)
    backbone.trainable = False
    images = keras.Input((size, size, 3))
    x = layers.Rescaling(2.0, offset=-1.0)(images)  # From [0, 1] to what MobileNetV2 was trained on.
    x = layers.GlobalAveragePooling2D()(backbone(x))
    x = layers.Dense(32, "leaky_relu", kernel_initializer=keras.initializers.GlorotUniform(seed))(x)
    logits = layers.Dense(classes, kernel_initializer=keras.initializers.GlorotUniform(seed + 1))(x)
    return divtf.convert_member(keras.Model(images, logits, name=f"member_{seed}"))


def photographs(count: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Stand-ins for your images in [0, 1], and their classes: which of four quarters is bright."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    images = rng.uniform(0, 0.6, (count, 2, size // 2, 2, size // 2, 3))
    for image, label in zip(images, labels, strict=True):
        image[label // 2, :, label % 2] += 0.4
    return images.reshape(count, size, size, 3).astype("float32"), labels


def main() -> None:
    """Train the heads, tell how alike the members' gradients are, and that the backbone stayed as it was."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default=None, help="imagenet, or a file of weights")
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--images", type=int, default=192, help="training images")
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    keras.utils.set_random_seed(0)  # The backbone's own weights, where none are given.
    members = [member(options.size, 4, options.weights, seed=10 * i) for i in range(MEMBERS)]
    frozen = [weight.numpy() for weight in members[0].non_trainable_variables]
    ensemble = divtf.Ensemble(members, divtf.GradientAlignment(weight=0.5))
    ensemble.compile(divtf.Adam(0.005))
    x, y = photographs(options.images, options.size, seed=1)
    ensemble.fit(x, y, batch_size=32, epochs=options.epochs, verbose=2)
    unmoved = all(
        np.array_equal(before, after.numpy())
        for before, after in zip(frozen, members[0].non_trainable_variables, strict=True)
    )
    statistics = divtf.gradient_statistics(ensemble, *photographs(64, options.size, seed=2))
    print(f"trained variables a member: {len(members[0].trainable_variables)}; backbone unmoved: {unmoved}")
    print(f"mean coherence of the members' input gradients: {statistics.coherence.mean():.3f}")
    if not unmoved:
        raise SystemExit("the backbone moved")


if __name__ == "__main__":
    main()
