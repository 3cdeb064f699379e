"""Packs TensorFlow, its packages and data for a machine that has a GPU and no network.

    python -m benchmarks.gpu.pack DIRECTORY --datasets=mnist --piece=49

TensorFlow's wheel is 570 MB, most of it kernels for other GPUs, symbols, and headers. What is left without
them is 200 MB, in pieces of so many MiB. `unpack.sh` puts them together on the machine, which has NVIDIA's
libraries, of CUDA 13 too, as PyTorch brings them. It needs pip, binutils (strip) and xz here, and xz there.
"""

import argparse
import mmap
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

PACKAGES = [
    *(
        "absl-py",
        "adversarial-robustness-toolbox",
        "array_record",
        "astunparse",
        "attrs",
        "cleverhans",
        "dm-tree",
    ),
    *("docstring_parser", "easydict", "etils", "filelock", "fsspec", "gast", "google-pasta"),
    *(
        "googleapis-common-protos",
        "h5py",
        "immutabledict",
        "importlib_resources",
        "joblib",
        "keras",
        "ml_dtypes",
    ),
    *("mlxtend", "namex", "numpy", "optree", "protobuf", "simple-parsing", "tensorflow-datasets"),
    *("tensorflow-metadata", "termcolor", "toml", "wrapt"),
]
_CUDA_RUNTIME = "nvidia-cuda-runtime-cu12==12.9.79"
_PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 24, 17)] + ["manylinux2014_x86_64"]
_FAT_BINARY, _PTX = b"\x50\xed\x55\xba", 1


def main() -> None:
    """Write the pieces `part00`, `part01` ... into the directory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--python", default="3.12", help="of the machine")
    parser.add_argument("--architecture", type=int, default=90, help="of its GPU: 90 is Hopper")
    parser.add_argument("--datasets", nargs="*", default=["mnist"], help="of TFDS_DATA_DIR")
    parser.add_argument("--piece", type=int, default=49, help="MiB of a piece")
    asked = parser.parse_args()
    work = asked.directory / "work"
    content = work / "content"
    content.mkdir(parents=True)
    _tensorflow(asked, work, content)
    _packages(asked, content)
    _pip("install", asked, _CUDA_RUNTIME, "--target", str(work / "cuda"))
    shutil.copytree(work / "cuda/nvidia/cuda_runtime/lib", content / "libraries")
    for name in asked.datasets:
        shutil.copytree(Path(os.environ["TFDS_DATA_DIR"]) / name, content / "data" / name)
    archive = work / "content.tar.xz"
    _run("tar", "-C", str(content), "-I", "xz -T0 -4", "-cf", str(archive), ".")
    _run("split", "-d", f"--bytes={asked.piece}M", str(archive), str(asked.directory / "part"))
    shutil.rmtree(work)


def _tensorflow(asked: argparse.Namespace, work: Path, content: Path) -> None:
    _pip("install", asked, f"tensorflow=={metadata.version('tensorflow')}", "--target", str(content / "site"))
    package = content / "site" / "tensorflow"
    shutil.rmtree(package / "include")
    for library in ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2"):
        _blank_other_kernels(package / library, asked.architecture)
        _run("strip", "--strip-all", str(package / library))
    # 90 MB that only a profiler's client needs.
    client = package / "python/profiler/internal/_pywrap_profiler_plugin.so"
    client.unlink()
    client.with_suffix(".py").write_text("trace = monitor = None\n", encoding="utf-8")


def _blank_other_kernels(library: Path, architecture: int) -> None:
    """Fill with zeros what a library holds for GPUs of other architectures; its size stays.

    Text for the driver to compile (PTX) is kept where a fat binary has no machine code of the architecture.
    """
    with library.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        for images in list(_fat_binaries(content)):
            native = any(kind != _PTX and of == architecture for kind, of, _, _ in images)
            for kind, of, begin, end in images:
                if of != architecture or (kind == _PTX and native):
                    content[begin:end] = bytes(end - begin)


def _fat_binaries(content: mmap.mmap) -> Iterator[list[tuple[int, int, int, int]]]:
    """For each fat binary of a library the kind, architecture, begin and end of its kernel images."""
    at = content.find(_FAT_BINARY)
    while at >= 0:
        header, size = struct.unpack_from("<HQ", content, at + 6)
        entry, end, images = at + header, at + header + size, []
        # The same four bytes may stand elsewhere: a fat binary has version 1 and a header of 16 bytes.
        if content[at + 4 : at + 8] != b"\x01\x00\x10\x00":
            end = at + 4
        while entry < end and header == 16:
            kind, _, length, payload = struct.unpack_from("<HHIQ", content, entry)
            (architecture,) = struct.unpack_from("<I", content, entry + 28)
            images.append((kind, architecture, entry + length, entry + length + payload))
            entry += length + payload
        yield images
        at = content.find(_FAT_BINARY, end)


def _packages(asked: argparse.Namespace, content: Path) -> None:
    """Those that the machine may lack, of this environment's versions; others it has with PyTorch and JAX."""
    pinned = [f"{name}=={metadata.version(name)}" for name in PACKAGES]
    _pip("install", asked, *pinned, "--target", str(content / "site"))
    promise = metadata.distribution("promise")  # It has no wheel.
    for name in ("promise", f"promise-{promise.version}.dist-info"):
        source = Path(str(promise.locate_file(name)))
        if source.is_dir():
            shutil.copytree(source, content / "site" / name)


def _pip(command: str, asked: argparse.Namespace, *arguments: str) -> None:
    platforms = [f"--platform={platform}" for platform in _PLATFORMS]
    python = ("--implementation=cp", f"--python-version={asked.python}", "--only-binary=:all:", "--no-deps")
    _run(sys.executable, "-m", "pip", command, "--quiet", *python, *platforms, *arguments)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
