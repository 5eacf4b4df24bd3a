"""The stages of Image2StyleGAN++: what each of them optimises and compares with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from stylegan_inv.optim.per_image_optimization import EarlyStop
from stylegan_inv.utils.checks import one_of, whole_number

REGIONS = ("everywhere", "inside", "outside", "nowhere")


@dataclass
class EmbeddingStage:
    """One of the paper's building blocks: ``W_l`` (``variable="w"``) or ``Mk_n`` (``variable="noise"``).

    With the target x, the reference y and the reconstruction G, a stage minimises (the paper's equation 1)

        style S(M_s, G, y) + perceptual P(M_p, G, x)
        + pixel |M_m (G - x)|^2 / N + pixel_reference |(1 - M_m) (G - y)|^2 / N

    Attributes:
        variable: ``w`` or ``noise``.
        steps: Number of steps.
        lr: Learning rate of Adam.
        pixel: Weight of the mean squared error to x.
        pixel_reference: Weight of the mean squared error to y.
        perceptual: Weight of the perceptual distance to x; both images are multiplied by M_p.
        perceptual_reference: Weight of the perceptual distance to y; both images are multiplied by 1 - M_p. Paper:
            none.
        style: Weight of the distance of the Gram matrices.
        pixel_mask: M_m: ``everywhere``, ``inside`` or ``outside`` the mask, or ``nowhere``.
        perceptual_mask: M_p, in the same words.
        style_mask: M_s, in the same words.
        blur: Standard deviation of the Gaussian blur of M_m, as a fraction of the image's side.
        reference: What y is: ``image``, the reference image, or ``initial``, the reconstruction at the start of the
            stage.
        layers: Rows of the code that are optimised; None optimises all.
        early_stop: When an image stops before the last step.
    """

    variable: str
    steps: int
    lr: float
    pixel: float = 0.0
    pixel_reference: float = 0.0
    perceptual: float = 0.0
    perceptual_reference: float = 0.0
    style: float = 0.0
    pixel_mask: str = "everywhere"
    perceptual_mask: str = "everywhere"
    style_mask: str = "inside"
    blur: float = 0.0
    reference: str = "image"
    layers: Sequence[int] | None = None
    early_stop: EarlyStop = field(default_factory=EarlyStop)

    def __post_init__(self) -> None:
        one_of("method.stages: variable", self.variable, ("w", "noise"))
        one_of("method.stages: reference", self.reference, ("image", "initial"))
        for name, region in self._regions().items():
            one_of(f"method.stages: {name}", region, REGIONS)
        whole_number("method.stages: steps", self.steps)

    def _regions(self) -> dict[str, str]:
        return {
            "pixel_mask": self.pixel_mask, "perceptual_mask": self.perceptual_mask, "style_mask": self.style_mask
        }  # fmt: skip

    @property
    def needs_reference(self) -> bool:
        """Whether it compares with the reference image."""
        weighted = self.pixel_reference or self.perceptual_reference or self.style
        return self.reference == "image" and bool(weighted)

    @property
    def needs_mask(self) -> bool:
        """Whether a loss term with a weight is restricted to one side of the mask."""
        used = {
            self.pixel_mask if self.pixel or self.pixel_reference else "",
            self.perceptual_mask if self.perceptual or self.perceptual_reference else "",
            self.style_mask if self.style else "",
        }
        return bool(used & {"inside", "outside"})
