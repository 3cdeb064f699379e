"""The ONNX file of an ensemble: written by tf2onnx, read by ONNX Runtime. Both are an extra."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from divtf.ensembles import served
from divtf.ensembles.ensemble import Ensemble

# The newest operator set that tf2onnx writes.
_OPSET = 18


def write(ensemble: Ensemble, path: Path) -> None:
    """Write one file: `images` [batch, ...] to `served.OUTPUTS`."""
    import tf2onnx

    signature = served.signature(ensemble)
    function = tf.function(lambda images: served.outputs(ensemble, images), input_signature=signature)
    model, _ = tf2onnx.convert.from_function(function, signature, opset=_OPSET)
    given = sorted(model.graph.output, key=lambda output: served.OUTPUTS.index(output.name))
    outputs = [type(output).FromString(output.SerializeToString()) for output in given]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"  # tf2onnx numbers what has no size.
    path.write_bytes(model.SerializeToString())


def load(path: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The written file as a function from float32 images [B, ...] to `served.OUTPUTS`."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(served.OUTPUTS, session.run(served.OUTPUTS, {"images": images}), strict=True))

    return predict
