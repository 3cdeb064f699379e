"""The LiteRT file of an ensemble: written by TensorFlow's converter, read by LiteRT, an extra."""

import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from divtf.ensembles.ensemble import Ensemble
from divtf.ensembles.serving import served
from divtf.storage.files import PARTIAL


def write(
    ensemble: Ensemble, path: Path, *, precision: str = "float32", calibration: np.ndarray | None = None
) -> None:
    """Write one file with one signature: `images` [batch, ...] to `served.OUTPUTS`, all in float32.

    Args:
        ensemble: with images [B, ...].
        path: of the file. A SavedModel lies beside it meanwhile: from it alone, the converter takes weights
            for constants.
        precision: "float32"; "float16", of the weights; or "int8", of weights and activations. What combines
            the members' logits is in float32 always.
        calibration: for int8, images [n, ...] float32 that show what values the activations have.
    """
    with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=path.parent) as directory:
        archive = served.archive(ensemble)
        archive.add_endpoint(
            "serve",
            lambda images: served.outputs(ensemble, images),
            input_signature=served.signature(ensemble),
        )
        archive.write_out(directory, verbose=False)
        converted = _converted(directory, precision, calibration)
    path.write_bytes(converted)


def _converted(directory: str, precision: str, calibration: np.ndarray | None) -> bytes:
    if calibration is not None:
        return _quantized(directory, calibration)
    converter = _converter(directory)
    if precision == "float16":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def _converter(directory: str) -> Any:
    return tf.lite.TFLiteConverter.from_saved_model(directory, signature_keys=["serve"])


def _quantized(directory: str, calibration: np.ndarray) -> bytes:
    """The model in int8, without what combines the logits.

    Quantized too, probabilities would be multiples of 1/256 that do not add up to 1, logarithms multiples of
    1/16, and classes would be mistaken for each other. Only TensorFlow's debugger of quantization can leave
    parts out, by the names that they have in the model in float32.
    """
    in_float32 = _tensor_names(_converter(directory).convert())

    def images() -> Iterator[dict[str, np.ndarray]]:
        return ({"images": image[None]} for image in calibration)

    converter = _converter(directory)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = images
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=in_float32)
    with warnings.catch_warnings():
        # The debugger uses it within.
        warnings.filterwarnings("ignore", r"\s*Warning: tf.lite.Interpreter is deprecated", UserWarning)
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=images, debug_options=options
        )
        return debugger.get_nondebug_quantized_model()


def _tensor_names(model: bytes) -> list[str]:
    """Names of the outputs, and of all tensors from the members' logits on."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model)
    outputs = [output["name"] for output in interpreter.get_output_details()]
    names = [tensor["name"] for tensor in interpreter.get_tensor_details()]
    return [name for name in names if name in outputs or name.startswith(f"{served.SCOPE}/")]


def load(path: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The written file as a function from float32 images [B, ...] to `served.OUTPUTS`."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(path)).get_signature_runner()
    return lambda images: dict(runner(images=images))
