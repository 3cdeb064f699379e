"""divtf: ensembles that resist transferred adversarial examples, by Diversity Training.

Train ensembles of Keras models under the Gradient Alignment Loss of Kariyappa & Qureshi (2019), attack
them by transfer from a surrogate, report what was measured, and serve them.
"""

import importlib
from typing import Any

from divtf.runtime.keras_registry import register_when_imported

__version__ = "0.2.0"

# Public name -> module. Loaded on first use: a report or `--help` need not wait for TensorFlow. No module
# right here has a public name: importing it would put the module in the name's place.
_HOMES = {
    "build_member": "networks.models",
    "build_members": "networks.models",
    "MODELS": "networks.models",
    "BatchNormalization": "networks.layers",
    "LayerNormalization": "networks.layers",
    "GroupNormalization": "networks.layers",
    "Resizing": "networks.resizing",
    "UpSampling2D": "networks.resizing",
    "convert_member": "networks.conversion",
    "input_gradients": "ensembles.alignment",
    "cosine_similarities": "ensembles.alignment",
    "coherence": "ensembles.alignment",
    "gradient_alignment_loss": "ensembles.alignment",
    "CrossEntropy": "ensembles.objectives.cross_entropy",
    "GradientAlignment": "ensembles.objectives.gal",
    "OBJECTIVES": "ensembles.objectives.registry",
    "make_objective": "ensembles.objectives.registry",
    "Ensemble": "ensembles.ensemble",
    "Adam": "ensembles.adam",
    "export_model": "ensembles.serving.export",
    "export_saved_model": "ensembles.serving.export",
    "ThreatModel": "attacks.threat",
    "ATTACKS": "attacks.methods",
    "make_attack": "attacks.attack",
    "compose_attack": "attacks.attack",
    "Recipe": "attacks.recipe",
    "evaluate_transfer": "evaluation.transfer",
    "gaas": "evaluation.gaas",
    "gradient_statistics": "evaluation.gradients",
    "TransferResult": "storage.records",
    "TargetRecord": "storage.records",
    "load_dataset": "data.datasets",
    "DATASETS": "data.datasets",
    "RunConfig": "pipeline.config",
    "run": "pipeline.experiment",
    "load_run": "pipeline.loading",
    "load_surrogate": "pipeline.loading",
    "InputError": "errors",
}

# What Keras may find in a file.
_SAVED = (
    *("Ensemble", "CrossEntropy", "GradientAlignment", "Adam"),
    *("BatchNormalization", "LayerNormalization", "GroupNormalization", "Resizing", "UpSampling2D"),
)
register_when_imported(
    {name: f"divtf.{_HOMES[name]}" for name in _SAVED}
    | dict.fromkeys(("Logits", "ParameterFreeShortcut"), "divtf.networks.layers")
    | {
        "AdaptiveDiversity": "divtf.ensembles.objectives.adp",
        "TransferabilityReducedSmoothness": "divtf.ensembles.objectives.trs",
        "PairwiseRobustness": "divtf.ensembles.objectives.parl",
        "VulnerabilityDiversity": "divtf.ensembles.objectives.dverge",
        "AdversarialTraining": "divtf.ensembles.objectives.adversarial",
    }
)

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'divtf' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"divtf.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
