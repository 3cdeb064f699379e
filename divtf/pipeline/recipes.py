"""Recipes: defences by name, each an objective with the images that it trains on. No TensorFlow."""

from collections.abc import Mapping
from typing import Any

_SEVERAL: Mapping[str, Any] = {
    "static_models": ("plain", "plain"),
    "static_attacks": ("fgsm", "mifgsm", "pgd_cw"),
    "static_budgets": "uniform",
}
_SHARP: Mapping[str, Any] = {"gal_weight": 1.0, "gal_sharpness": 10.0}

RECIPES: dict[str, Mapping[str, Any]] = {
    # The paper's four, and how much of T_Div's gain noise gives without GAL.
    "base": {"mode": "base"},
    "noise": {"mode": "noise"},
    "div": {"mode": "div"},
    "ens": {"mode": "ens"},
    "ens_div": {"mode": "ens_div"},
    # GAL's rivals, on augmented images as their authors'; from new weights, where DVERGE's are trained ones.
    "adp": {"mode": "base", "objective": "adp"},
    "trs": {"mode": "base", "objective": "trs"},
    "parl": {"mode": "base", "objective": "parl"},
    "dverge": {"mode": "base", "objective": "dverge"},
    "adversarial": {"mode": "base", "objective": "adversarial"},
    # GAL among members that are trained so.
    "adversarial_div": {
        "mode": "base",
        "objective": "adversarial",
        "label": "T_Adversarial+Div",
        "adversarial_gal": 0.5,
    },
    # GAL of the largest cosine.
    "sharp": {"mode": "div", "label": "T_Sharp", **_SHARP},
    # Images of several static models by several attacks, without GAL and with it.
    "sources": {"mode": "ens", "label": "T_Sources", **_SEVERAL},
    "sources_div": {"mode": "ens_div", "label": "T_Sources+Div", **_SEVERAL},
    "sources_sharp": {"mode": "ens_div", "label": "T_Sources+Sharp", **_SEVERAL, **_SHARP},
    # The same from static models that are diverse themselves.
    "diverse_sources_sharp": {
        "mode": "ens_div",
        "label": "T_DiverseSources+Sharp",
        **_SEVERAL,
        "static_models": ("plain", "div"),
        **_SHARP,
    },
    # By attacks that tell no label.
    "unlabelled_sources_sharp": {
        "mode": "ens_div",
        "label": "T_UnlabelledSources+Sharp",
        **_SEVERAL,
        "static_attacks": ("step_ll", "mifgsm_ll", "pgd_cw_ll"),
        **_SHARP,
    },
}
"""Name -> values of a run's configuration."""
