"""divtf: ensembles that resist transferred adversarial examples, by Diversity Training.

Train ensembles of Keras models under the Gradient Alignment Loss of Kariyappa & Qureshi (2019), attack
them by transfer from a surrogate, report what was measured, and serve them.
"""

import importlib
from typing import Any

from divtf._version import __version__

# Public name -> module. Loaded on first use: a report or `--help` need not wait for TensorFlow. No module has
# a public name: importing it would put the module in the name's place.
_HOMES = {
    "build_member": "models",
    "build_members": "models",
    "MODELS": "models",
    "BatchNormalization": "layers",
    "convert_member": "layers",
    "input_gradients": "alignment",
    "cosine_similarities": "alignment",
    "coherence": "alignment",
    "gradient_alignment_loss": "alignment",
    "CrossEntropy": "objectives",
    "GradientAlignment": "objectives",
    "Ensemble": "ensemble",
    "Adam": "optimizer",
    "ThreatModel": "threat",
    "make_attack": "attacks",
    "ATTACKS": "attacks",
    "evaluate_transfer": "transfer",
    "TransferResult": "records",
    "TargetRecord": "records",
    "gaas": "subspace",
    "gradient_statistics": "analysis",
    "load_dataset": "datasets",
    "DATASETS": "datasets",
    "export_saved_model": "export",
    "RunConfig": "config",
    "run": "experiment",
    "InputError": "errors",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'divtf' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"divtf.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
