"""The threat model: what the attacker may do to an image."""

import dataclasses

import numpy as np

from divtf.errors import is_number, require


@dataclasses.dataclass(frozen=True)
class ThreatModel:
    """What the attacker may do to an image (section 2.1).

    Attributes:
        epsilon: largest change of a pixel, in the units of the pixels; > 0, and no larger than their range.
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
        require(self.norm == "linf", "norm as one of {linf}", f"norm={self.norm!r}")
        require(
            is_number(self.clip_min) and is_number(self.clip_max) and self.clip_min < self.clip_max,
            "clip_min < clip_max",
            f"clip_min={self.clip_min}, clip_max={self.clip_max}",
        )
        most = self.clip_max - self.clip_min
        require(
            is_number(self.epsilon) and 0 < self.epsilon <= most,
            f"epsilon in (0, {most:g}], the pixels being in [{self.clip_min:g}, {self.clip_max:g}]",
            f"epsilon={self.epsilon!r}",
        )
        # CleverHans computes in the type that it is given, and JSON knows no NumPy.
        for name in ("epsilon", "clip_min", "clip_max"):
            object.__setattr__(self, name, float(getattr(self, name)))

    def in_range(self, low: float, high: float) -> bool:
        """Whether float32 pixels from low to high are in the image range, its ends rounded like them."""
        return bool(np.float32(self.clip_min) <= low and high <= np.float32(self.clip_max))

    def allows(self, change: float) -> bool:
        """Whether a pixel may change by so much, up to the rounding of a float32 image plus its change."""
        return change <= self.epsilon + 1e-6 * max(1.0, abs(self.clip_min), abs(self.clip_max))

    def require_in_range(self, low: float, high: float) -> None:
        """Refuse pixels from low to high that are not.

        Raises:
            InputError: says which they are.
        """
        expected = f"images in [{self.clip_min}, {self.clip_max}]"
        require(self.in_range(low, high), expected, f"values from {low:g} to {high:g}")
