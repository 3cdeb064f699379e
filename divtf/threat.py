"""The threat model: what the attacker may do to an image."""

import dataclasses

from divtf.errors import is_number, require


@dataclasses.dataclass(frozen=True)
class ThreatModel:
    """What the attacker may do to an image (section 2.1).

    Attributes:
        epsilon: largest change of a pixel, in units of the image range; > 0.
        norm: of the perturbation; "linf" is the paper's and the only one here.
        clip_min: least pixel value.
        clip_max: largest pixel value.

    Raises:
        InputError: if a value is out of range.
    """

    epsilon: float
    norm: str = "linf"
    clip_min: float = 0.0
    clip_max: float = 1.0

    def __post_init__(self):
        require(is_number(self.epsilon) and self.epsilon > 0, "epsilon > 0", f"epsilon={self.epsilon!r}")
        require(self.norm == "linf", "norm as one of {linf}", f"norm={self.norm!r}")
        require(
            is_number(self.clip_min) and is_number(self.clip_max) and self.clip_min < self.clip_max,
            "clip_min < clip_max",
            f"clip_min={self.clip_min}, clip_max={self.clip_max}",
        )
