"""The formats that an ensemble is exported to: names, files, and the extras they need. No TensorFlow."""

import dataclasses
from typing import Any

from divtf import errors

PRECISIONS = ("float32", "float16", "int8")


@dataclasses.dataclass(frozen=True)
class Format:
    """What an ensemble is exported to.

    Attributes:
        title: its name in sentences.
        precisions: what weights may be kept in.
        extra: of this package, which installs `modules`; "" if it needs none.
        modules: packages beyond this one's requirements that write such a file, or check it.
        is_directory: whether it is a directory, or else one file.
    """

    title: str
    precisions: tuple[str, ...] = ("float32",)
    extra: str = ""
    modules: tuple[str, ...] = ()
    is_directory: bool = False


FORMATS = {
    "saved_model": Format("SavedModel", is_directory=True),
    "onnx": Format("ONNX file", extra="onnx", modules=("onnx", "onnxruntime", "tf2onnx")),
    "litert": Format("LiteRT file", PRECISIONS, extra="litert", modules=("ai_edge_litert",)),
}


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a run may export.

    Attributes:
        title: its name in what the command says.
        file: its name in a run directory.
        arguments: of `export_model`.
    """

    title: str
    file: str
    arguments: dict[str, Any]


# By the name that --export_format has for them.
CHOICES = {
    "saved_model": Choice("SavedModel", "saved_model", {"format": "saved_model"}),
    "saved_model_uint8": Choice(
        "SavedModel uint8", "saved_model_uint8", {"format": "saved_model", "uint8": True}
    ),
    "onnx": Choice("ONNX", "model.onnx", {"format": "onnx"}),
    "litert": Choice("LiteRT", "model.tflite", {"format": "litert"}),
    "litert_float16": Choice(
        "LiteRT float16", "model_float16.tflite", {"format": "litert", "precision": "float16"}
    ),
    "litert_int8": Choice("LiteRT int8", "model_int8.tflite", {"format": "litert", "precision": "int8"}),
}


def require_installed(name: str) -> None:
    """Refuse a format whose extra is not installed.

    Raises:
        InputError: says how to install it.
    """
    errors.require_installed(f"format {name}", FORMATS[name].extra, FORMATS[name].modules)
