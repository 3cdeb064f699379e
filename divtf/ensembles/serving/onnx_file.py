"""The ONNX file of an ensemble: written by tf2onnx, read by ONNX Runtime. Both are an extra."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from divtf.ensembles.ensemble import Ensemble
from divtf.ensembles.serving import served

# The newest operator set that tf2onnx writes.
_OPSET = 18


def write(ensemble: Ensemble, path: Path) -> None:
    """Write one file: `images` [batch, ...] to `served.OUTPUTS`.

    Raises:
        onnx.checker.ValidationError: names an operation that ONNX lacks.
    """
    import onnx
    import tf2onnx

    signature = served.signature(ensemble)
    function = tf.function(lambda images: served.outputs(ensemble, images), input_signature=signature)
    with _quiet("tf2onnx"):  # What it does not know is told by the check, in one line.
        model, _ = tf2onnx.convert.from_function(
            function, signature, opset=_OPSET, custom_op_handlers={"Erfc": (_complement, [])}
        )
    _name(model)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _complement(context: Any, node: Any, name: str, _: Any) -> None:
    """Write erfc(x), half of GELU, as 1 - erf(x): ONNX has erf alone."""
    (x,), (output,) = node.input, node.output
    shape, dtype = context.get_shape(output), context.get_dtype(output)
    context.remove_node(name)
    one = context.make_const(f"{name}_one", np.ones([], "float32")).output[0]
    erf = context.make_node("Erf", [x], name=f"{name}_erf", shapes=[shape], dtypes=[dtype]).output[0]
    context.make_node("Sub", [one, erf], name=name, outputs=[output], shapes=[shape], dtypes=[dtype])


def _name(model: Any) -> None:
    """Put the outputs into the order of `served.OUTPUTS`; name the batch: tf2onnx numbers open sizes."""
    copies = [type(output).FromString(output.SerializeToString()) for output in model.graph.output]
    del model.graph.output[:]
    model.graph.output.extend(sorted(copies, key=lambda output: served.OUTPUTS.index(output.name)))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep what a library logs from the root logger, and from standard error."""
    logger, handler = logging.getLogger(name), logging.NullHandler()
    propagate = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def load(path: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The written file as a function from float32 images [B, ...] to `served.OUTPUTS`."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(served.OUTPUTS, session.run(served.OUTPUTS, {"images": images}), strict=True))

    return predict
