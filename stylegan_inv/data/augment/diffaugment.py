"""Fixed augmentation of all that the discriminator sees, real and generated.

"Differentiable Augmentation for Data-Efficient GAN Training", Zhao, Liu, Lin, Zhu, Han, NeurIPS 2020, arXiv 2006.10738.

Differentiable twice (R1 needs that); draws from torch's global random numbers. Images: (B, 3, H, W) in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from stylegan_inv.errors import UserError


class Draw:
    """Random numbers for a batch, one for each image."""

    def __init__(self, images: Tensor) -> None:
        self._zeros = torch.zeros(len(images), device=images.device, dtype=images.dtype)

    def uniform(self, low: float, high: float) -> Tensor:
        """Between two limits."""
        return low + (high - low) * torch.rand_like(self._zeros)

    def normal(self, deviation: float) -> Tensor:
        """With mean 0."""
        return deviation * torch.randn_like(self._zeros)

    def choice(self, count: int) -> Tensor:
        """Whole numbers 0 to count - 1."""
        return self.uniform(0, count).floor().clamp_max(count - 1)

    def gates(self, p: float, values: Sequence[Tensor], neutral: float) -> list[Tensor]:
        """The values with probability p, all together; else ``neutral``."""
        on = torch.rand_like(self._zeros) < p
        return [torch.where(on, value, torch.full_like(value, neutral)) for value in values]

    def gate(self, p: float, value: Tensor, neutral: float) -> Tensor:
        """`gates` of one value."""
        return self.gates(p, [value], neutral)[0]


class DiffAugment(nn.Module):
    """Differentiable augmentation with fixed strength.

    Args:
        policy: comma-separated, applied in this order: "color" (brightness, saturation, contrast), "translation" (up to
            an eighth, zeros come in), "cutout" (a square of half the side, partly outside). Empty: nothing happens.
    """

    def __init__(self, policy: str = "color,translation,cutout") -> None:
        super().__init__()
        self.steps = [step.strip() for step in policy.split(",") if step.strip()]
        known = {"color": self.color, "translation": self.translation, "cutout": self.cutout}
        if unknown := [step for step in self.steps if step not in known]:
            raise UserError(f"diffaugment: policy has {', '.join(unknown)}; expected some of {', '.join(known)}")

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> the same shape."""
        for step in self.steps:
            images = getattr(self, step)(images)
        return images

    @staticmethod
    def color(images: Tensor) -> Tensor:
        """Brightness +-0.5, saturation times 0 to 2, contrast times 0.5 to 1.5."""
        draw = Draw(images)
        brightness, saturation, contrast = (
            draw.uniform(*limits)[:, None, None, None] for limits in ((-0.5, 0.5), (0, 2), (0.5, 1.5))
        )
        images = images + brightness
        grey = images.mean(dim=1, keepdim=True)
        images = grey + saturation * (images - grey)
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        return mean + contrast * (images - mean)

    @staticmethod
    def translation(images: Tensor) -> Tensor:
        """Whole-pixel shifts of up to an eighth of the side."""
        b, _, h, w = images.shape
        dy, dx = (torch.randint(-round(n / 8), round(n / 8) + 1, (b, 1), device=images.device) for n in (h, w))
        # Row 0 and the last one of the padded image are zero: all that comes from outside is read there.
        y, x = (
            (torch.arange(n, device=images.device) - d + 1).clamp(0, n + 1) for n, d in ((h, dy), (w, dx))
        )  # fmt: skip
        padded = F.pad(images, (1, 1, 1, 1)).permute(0, 2, 3, 1)
        rows = torch.arange(b, device=images.device)[:, None, None]
        return padded[rows, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)

    @staticmethod
    def cutout(images: Tensor) -> Tensor:
        """A grey square of half the side around a random place."""
        b, _, h, w = images.shape
        inside = []
        for n in (h, w):
            side = round(n / 2)
            start = torch.randint(0, n + (1 - side % 2), (b, 1), device=images.device) - side // 2
            place = torch.arange(n, device=images.device)
            inside.append((place >= start) & (place < start + side))
        hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return images * (~hole).to(images.dtype)
