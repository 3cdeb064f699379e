"""Members and data of one's own: trained to diverge, attacked by transfer, saved. About 20 seconds.

The data are signals [64, 2] in [0, 1] of four classes, made here; any arrays take their place. The members
are Keras models as anybody writes them, with a batch normalisation, which Keras differentiates wrongly to
second order, and a softmax: `divtf.convert_member` mends the one and takes off the other.

    python examples/own_members.py [--epochs=15] [--to=own_members.keras]
"""

import argparse

import keras
import numpy as np
from keras import layers

import divtf

CLASSES = 4


def signals(count, seed):
    """Waves of `CLASSES` frequencies, at random phases and in noise: [count, 64, 2], and their classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=count)
    phase, time = rng.uniform(0, 2 * np.pi, (count, 1, 2)), np.linspace(0, 2 * np.pi, 64)[:, None]
    waves = np.sin((labels[:, None, None] + 1) * time + phase) + rng.normal(0, 0.3, (count, 64, 2))
    return np.clip(0.5 + waves / 4, 0, 1).astype("float32"), labels


def member(seed):
    """One member; each begins from weights of its own."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((64, 2)),
            layers.Conv1D(16, 5, strides=2),
            layers.BatchNormalization(momentum=0.9),
            layers.LeakyReLU(0.1),
            layers.Conv1D(32, 5, strides=2, activation="leaky_relu"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(CLASSES, activation="softmax"),
        ],
        name=f"member_{seed}",
    )
    return divtf.convert_member(model)


def trained(objective, seed, epochs):
    """An ensemble of three members, trained on signals."""
    ensemble = divtf.Ensemble([member(seed + i) for i in range(3)], objective)
    ensemble.compile("adam")
    ensemble.fit(*signals(2048, seed=1), batch_size=64, epochs=epochs, verbose=2)
    return ensemble


def main():
    """Train a plain and a diverse ensemble and a surrogate, and attack the surrogate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--to", default="own_members.keras", help="where the diverse ensemble is saved")
    flags = parser.parse_args()
    targets = {
        "T_Base": trained(divtf.CrossEntropy(), 0, flags.epochs),
        "T_Div": trained(divtf.GradientAlignment(weight=0.5), 0, flags.epochs),
    }
    surrogate = trained(divtf.CrossEntropy(), 100, flags.epochs)
    test = signals(500, seed=2)
    attacks = [divtf.make_attack(name, divtf.ThreatModel(epsilon=0.1)) for name in ("fgsm", "mifgsm")]
    for result in divtf.evaluate_transfer(surrogate, targets, test, attacks):
        low, high = result.interval
        print(f"{result.target:6} {result.attack:10} {result.accuracy:.3f} [{low:.3f}, {high:.3f}]")
    targets["T_Div"].save(flags.to)
    again = keras.models.load_model(flags.to)
    predictions = [model.predict(test[0], verbose=0) for model in (again, targets["T_Div"])]
    np.testing.assert_allclose(*predictions, rtol=1e-4)
    print(f"saved {flags.to}, which predicts the same when it is loaded")


if __name__ == "__main__":
    main()
