"""One ensemble in three formats, each asked for predictions without divtf. About 30 seconds.

Needs the extras: pip install 'divtf[onnx,litert]'. The first functions below are what a server has to do:
they need neither divtf nor Keras, and two of them no TensorFlow.

    python examples/serve.py [--to=served]
"""

import argparse
from pathlib import Path

import numpy as np


def by_saved_model(path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """A SavedModel's three endpoints, in TensorFlow; TensorFlow Serving offers the same by name."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    return {
        "probabilities": loaded.serve(images)["probabilities"].numpy(),
        "members": loaded.members(images)["probabilities"].numpy(),
        "disagreement": loaded.disagreement(images)["disagreement"].numpy(),
    }


def by_onnx(path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """An ONNX file's three outputs, in ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


def by_litert(path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """A LiteRT file's three outputs, as on a phone."""
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_path=str(path)).get_signature_runner()(images=images)


def member(seed: int):
    """A small network for digits."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.Conv2D(32, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(10),
        ],
        name=f"member_{seed}",
    )


def trained_ensemble():
    """A small ensemble, trained for a moment, and images like those to be served."""
    import divtf

    data = divtf.load_dataset("mnist5k", max_train_examples=512, max_test_examples=200)
    x, (x_test, y_test) = data.x_train.astype("float32") / 255, data.test_set()
    ensemble = divtf.Ensemble([member(seed) for seed in (0, 1)], divtf.CrossEntropy())
    ensemble.compile(divtf.Adam(0.005))
    ensemble.fit(x, data.y_train, batch_size=32, epochs=5, verbose=2)
    return ensemble, x[:100], x_test, y_test


def main() -> None:
    """Export, ask, and compare."""
    import divtf

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=Path("served"), help="a new directory")
    to = parser.parse_args().to
    ensemble, calibration, images, labels = trained_ensemble()
    expected = np.exp(ensemble.predict(images, verbose=0))
    divtf.export_model(ensemble, to / "saved_model")
    divtf.export_model(ensemble, to / "model.onnx", "onnx")
    divtf.export_model(ensemble, to / "model.tflite", "litert")
    int8 = divtf.export_model(
        *(ensemble, to / "model_int8.tflite", "litert"),
        precision="int8",
        calibration=calibration,
        images=images,
        labels=labels,
    )
    answers = {
        "SavedModel": by_saved_model(to / "saved_model", images),
        "ONNX": by_onnx(to / "model.onnx", images),
        "LiteRT": by_litert(to / "model.tflite", images),
    }
    for name, answer in answers.items():
        off = np.abs(answer["probabilities"] - expected).max()
        surest = answer["disagreement"].argmin()
        print(f"{name:10} off by {off:.1e} at most; the members agree most on image {surest}")
        if off > 1e-5:
            raise SystemExit(f"{name} predicts something else")
    print(f"LiteRT int8: the same class for {int8.agreement:.1%}, accuracy {int8.accuracy:.1%}", end="")
    print(f" against {int8.ensemble_accuracy:.1%}")


if __name__ == "__main__":
    main()
