"""How each target is trained: the paper's, and two of its questions."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Mode:
    """How a target is trained (sections 4.1 and 4.2).

    Attributes:
        target: its name in Table 2.
        gal: whether GAL is added to the cross-entropy (Equation 9).
        sources: the image sources over which an epoch passes.
    """

    target: str
    gal: bool
    sources: tuple[str, ...]

    @property
    def adversarial(self) -> bool:
        """Whether it trains on images that attack a static model (section 4.2)."""
        return "adversarial" in self.sources


MODES: dict[str, Mode] = {
    "base": Mode("T_Base", False, ("augmented",)),
    "div": Mode("T_Div", True, ("augmented", "noise")),
    "ens": Mode("T_Ens", False, ("augmented", "adversarial")),
    "ens_div": Mode("T_Ens+Div", True, ("augmented", "noise", "adversarial")),
    # Not in the paper: how much of T_Div's gain the noise gives without GAL.
    "noise": Mode("T_Noise", False, ("augmented", "noise")),
    # Section 6: GAL without cross-entropy on images of no class, so that the members disagree on such.
    "detect": Mode("T_Detect", True, ("augmented", "noise", "outside")),
}
