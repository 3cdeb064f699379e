"""Packaging. The run-time requirements live in requirements.txt, the version in divtf/__init__.py."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_requirements() -> list[str]:
    """Returns the requirements of requirements.txt without comments and blank lines."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    stripped = (line.split("#", 1)[0].strip() for line in lines)
    return [line for line in stripped if line]


def read_version() -> str:
    """Returns __version__ without importing the package, which would import TensorFlow."""
    source = (ROOT / "divtf" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    if match is None:
        raise ValueError('Expected a line `__version__ = "..."` in divtf/__init__.py. Received: none.')
    return match.group(1)


def read_long_description() -> str:
    """Returns README.md."""
    return (ROOT / "README.md").read_text(encoding="utf-8")


setup(
    name="divtf",
    version=read_version(),
    description="Diversity training: ensembles whose members' input gradients are misaligned, in TensorFlow.",
    long_description=read_long_description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    author="The divtf authors",
    keywords=["adversarial robustness", "ensembles", "gradient alignment", "tensorflow", "keras"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    packages=find_packages(include=["divtf", "divtf.*"]),
    package_data={"divtf": ["py.typed"], "divtf.reporting.page": ["templates/*"]},
    python_requires=">=3.11",
    install_requires=read_requirements(),
    extras_require={
        "dev": [
            "build>=1.2",
            "mypy>=1.15",
            "packaging>=24.0",
            "playwright>=1.55",
            "pytest>=8.4",
            "pytest-xdist>=3.8",
            "ruff>=0.12",
        ],
        "cluster": ["ray>=2.60,<3"],
        "onnx": ["onnx>=1.20", "onnxruntime>=1.23", "tf2onnx>=1.17"],
        "litert": ["ai-edge-litert>=2.1"],
        "attacks": ["adversarial-robustness-toolbox>=1.20"],
        # The full MLflow wants an older pandas; this one keeps runs, and any MLflow shows them.
        "mlflow": ["mlflow-skinny>=3.1"],
        "wandb": ["wandb>=0.22"],
        "bench": ["foolbox>=3.3.4"],
        "docs": ["furo>=2025.7", "myst-parser>=5", "sphinx>=8.2"],
    },
    zip_safe=False,
)
