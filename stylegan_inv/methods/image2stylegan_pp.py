"""Image2StyleGAN++: How to Edit the Embedded Images?

Rameen Abdal, Yipeng Qin, Peter Wonka, CVPR 2020, arXiv 1911.11544. No official code.

Differences: many images at once. Weights are relative to one another (Adam does not see a common factor, the paper's
1e-5); so the noise maps take ordinary rates, where the paper's 5 makes up for gradients below Adam's epsilon. The parts
of the applications beyond embedding follow the paper's idea; its step counts and blurs are not published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from stylegan_inv.errors import UserError
from stylegan_inv.losses.style import gram, style_distance
from stylegan_inv.methods.common.base import pool
from stylegan_inv.methods.common.per_image import PerImageMethod
from stylegan_inv.optim.descent import EarlyStop, Stage, Variables

REGIONS = ("everywhere", "inside", "outside", "nowhere")


@dataclass
class Part:
    """One of the paper's building blocks: ``W_l`` (``vary=w``) or ``Mk_n`` (``vary=noise``).

    With x the image, y the second one and G the picture, a part minimises (the paper's equation 1)

        style S(M_s, G, y) + perceptual P(M_p, G, x)
        + pixel |M_m (G - x)|^2 / N + pixel_second |(1 - M_m) (G - y)|^2 / N

    Attributes:
        vary: ``w`` or ``noise``.
        steps: Steps.
        rate: Learning rate of Adam.
        pixel: Weight of the first mean squared error.
        pixel_second: Weight of the second.
        perceptual: Weight of the perceptual distance of pictures that are both multiplied by M_p.
        perceptual_second: Weight of that to y, multiplied by 1 - M_p (not in the paper).
        style: Weight of the Gram matrices' distance.
        pixel_mask: M_m: ``everywhere``, ``inside`` the mask that is given, ``outside`` or ``nowhere``.
        perceptual_mask: M_p.
        style_mask: M_s.
        blur: Standard deviation of the blur of M_m, as a share of the side.
        second: y is the image ``given``, or the picture ``before`` this part.
        layers: Rows of the code that move; None: all.
        stop: When an image is done early.
    """

    vary: str
    steps: int
    rate: float
    pixel: float = 0.0
    pixel_second: float = 0.0
    perceptual: float = 0.0
    perceptual_second: float = 0.0
    style: float = 0.0
    pixel_mask: str = "everywhere"
    perceptual_mask: str = "everywhere"
    style_mask: str = "inside"
    blur: float = 0.0
    second: str = "given"
    layers: Sequence[int] | None = None
    stop: EarlyStop = field(default_factory=EarlyStop)

    def __post_init__(self) -> None:
        masks = (self.pixel_mask, self.perceptual_mask, self.style_mask)
        if self.vary not in ("w", "noise") or self.second not in ("given", "before") or not set(masks) <= set(REGIONS):
            raise UserError(
                f"method.parts: got vary={self.vary}, second={self.second}, masks {', '.join(masks)}; expected vary w "
                f"or noise, second given or before, masks {', '.join(REGIONS)}"
            )
        if self.steps < 1:
            raise UserError(f"method.parts: steps={self.steps}, expected a whole number of at least 1")

    @property
    def needs_second(self) -> bool:
        """Whether it compares with a second image that must be given."""
        return self.second == "given" and bool(self.pixel_second or self.perceptual_second or self.style)

    @property
    def needs_mask(self) -> bool:
        """Whether it treats a region in its own way."""
        used = {
            self.pixel_mask if self.pixel or self.pixel_second else "",
            self.perceptual_mask if self.perceptual or self.perceptual_second else "",
            self.style_mask if self.style else "",
        }
        return bool(used & {"inside", "outside"})


class Image2StyleGANPP(PerImageMethod):
    """Embed into W+ and noise maps, with masks and a second image.

    Args:
        parts: Name -> part, carried out in order.
        rounds: 1 carries out the parts one after another; more take turns, each with its share of the steps.
        **kwargs: See :class:`PerImageMethod`.
    """

    def __init__(self, *, parts: Mapping[str, Part], rounds: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if rounds < 1 or not parts:
            raise UserError(f"method: got {len(parts)} parts and rounds={rounds}, expected at least one of each")
        for name, part in parts.items():
            wrong = [k for k in part.layers or () if not 0 <= k < self.generator.num_ws]
            if wrong:
                raise UserError(
                    f"method.parts.{name}.layers: no layer {wrong[0]}, expected 0 to {self.generator.num_ws - 1}"
                )
        self.parts, self.rounds = dict(parts), rounds
        self.stages = len(parts) * rounds
        self.needs_second = any(part.needs_second for part in parts.values())
        self.needs_mask = any(part.needs_mask for part in parts.values())

    def prepare(self, images: Tensor, second: Tensor | None, mask: Tensor | None) -> dict[str, Any]:  # noqa: D102
        if self.needs_second and second is None:
            raise UserError(f"{type(self).__name__}: got one image, this application needs two; give second=…")
        if self.needs_mask and mask is None:
            raise UserError(f"{type(self).__name__}: got no mask, this application needs one; give mask=…")
        if second is not None and second.shape != images.shape:
            raise UserError(f"the second image is {tuple(second.shape)}, expected {tuple(images.shape)}")
        if mask is not None and mask.shape != (len(images), 1, *images.shape[-2:]):
            raise UserError(f"the mask is {tuple(mask.shape)}, expected {(len(images), 1, *images.shape[-2:])}")
        return {"target": images, "second": second, "mask": mask}

    @torch.no_grad()
    def stage(self, number: int, given: Mapping[str, Any], before: Tensor) -> Stage:  # noqa: D102
        name, part = list(self.parts.items())[number % len(self.parts)]
        x, network = given["target"], self.features.network
        y = given["second"] if part.second == "given" else pool(before, x.shape[-1])
        goal: dict[str, Any] = {"x": x, "y": y, "pixel_mask": region(given["mask"], part.pixel_mask, x)}
        if part.blur:
            goal["pixel_mask"] = _blurred(goal["pixel_mask"], part.blur * x.shape[-1])
        goal["perceptual_mask"] = region(given["mask"], part.perceptual_mask, x)
        if part.perceptual:
            goal["x_maps"] = network.maps(x * goal["perceptual_mask"])
        if part.perceptual_second:
            goal["y_maps"] = network.maps(y * (1 - goal["perceptual_mask"]))
        if part.style:
            goal["style_mask"] = region(given["mask"], part.style_mask, x)
            goal["gram"] = gram(network.style(y), goal["style_mask"])
        # Taking turns, a part gets its share of the steps; what division leaves over goes to the first rounds.
        turn = number // len(self.parts)
        steps = part.steps // self.rounds + (turn < part.steps % self.rounds)

        def loss(variables: Variables, goal: Mapping[str, Any], step: int) -> dict[str, Tensor]:
            return self._objective(part, variables, goal)

        return Stage(name, steps, (part.vary,), loss, goal, lambda step: part.rate, stop=part.stop)

    def _objective(self, part: Part, variables: Variables, goal: Mapping[str, Any]) -> dict[str, Tensor]:
        w = variables["w"]
        if part.layers is not None:
            moves = torch.zeros(w.shape[1], 1, dtype=torch.bool, device=w.device)
            moves[list(part.layers)] = True
            variables = {**variables, "w": torch.where(moves, w, w.detach())}
        x, y, network = goal["x"], goal["y"], self.features.network
        picture = self.render(variables, x.shape[-1])
        terms: dict[str, Tensor] = {}
        if part.pixel:
            terms["pixel"] = (goal["pixel_mask"] * (picture - x)).square().mean((1, 2, 3))
        if part.pixel_second:
            terms["pixel_second"] = ((1 - goal["pixel_mask"]) * (picture - y)).square().mean((1, 2, 3))
        if part.perceptual:
            terms["perceptual"] = network.distance(network.maps(picture * goal["perceptual_mask"]), goal["x_maps"])
        if part.perceptual_second:
            maps = network.maps(picture * (1 - goal["perceptual_mask"]))
            terms["perceptual_second"] = network.distance(maps, goal["y_maps"])
        if part.style:
            terms["style"] = style_distance(gram(network.style(picture), goal["style_mask"]), goal["gram"])
        total = sum((getattr(part, name) * value for name, value in terms.items()), picture.new_zeros(len(picture)))
        return {**terms, "total": total}


def region(mask: Tensor | None, where: str, like: Tensor) -> Tensor:
    """The part of the images (B, 3, H, W) that a word of `REGIONS` means, (B, 1, H, W) in [0, 1]."""
    if where in ("everywhere", "nowhere") or mask is None:
        return torch.full_like(like[:, :1], where != "nowhere")
    return mask if where == "inside" else 1 - mask


def _blurred(mask: Tensor, sigma: float) -> Tensor:
    # Reflection needs a kernel below twice the side.
    size = min(2 * round(3 * sigma) + 1, 2 * mask.shape[-1] - 1)
    blurred: Tensor = gaussian_blur(mask, [size, size], [sigma, sigma])
    return blurred
