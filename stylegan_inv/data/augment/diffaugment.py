"""Fixed augmentation of all images that the discriminator sees, real and generated.

"Differentiable Augmentation for Data-Efficient GAN Training", Zhao, Liu, Lin, Zhu, Han, NeurIPS 2020, arXiv 2006.10738.

The augmentation is twice differentiable, which R1 needs, and draws from PyTorch's global generator. Images are
(B, 3, H, W) in [-1, 1].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from stylegan_inv.data.augment.per_image_random import PerImageRandom
from stylegan_inv.errors import UserError


class DiffAugment(nn.Module):
    """Differentiable augmentation with fixed strength.

    Args:
        policy: Comma-separated transformations, applied in this order: ``color`` (brightness, saturation, contrast),
            ``translation`` (up to an eighth of the side, with zeros outside), ``cutout`` (a square of half the side,
            which may exceed the image). Empty for no augmentation.

    Raises:
        UserError: A transformation is unknown.
    """

    def __init__(self, policy: str = "color,translation,cutout") -> None:
        super().__init__()
        steps = [step.strip() for step in policy.split(",") if step.strip()]
        known = {"color": self.color, "translation": self.translation, "cutout": self.cutout}
        if unknown := [step for step in steps if step not in known]:
            raise UserError(f"diffaugment: policy has {', '.join(unknown)}; expected some of {', '.join(known)}")
        self.steps = [known[step] for step in steps]

    def forward(self, images: Tensor) -> Tensor:
        """Returns augmented images (B, 3, H, W)."""
        for step in self.steps:
            images = step(images)
        return images

    @staticmethod
    def color(images: Tensor) -> Tensor:
        """Adds -0.5 to 0.5 to the brightness, scales saturation by 0 to 2 and contrast by 0.5 to 1.5."""
        random = PerImageRandom(images)
        brightness, saturation, contrast = (
            random.uniform(*limits)[:, None, None, None] for limits in ((-0.5, 0.5), (0, 2), (0.5, 1.5))
        )
        images = images + brightness
        grey = images.mean(dim=1, keepdim=True)
        images = grey + saturation * (images - grey)
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        return mean + contrast * (images - mean)

    @staticmethod
    def translation(images: Tensor) -> Tensor:
        """Shifts images by whole pixels, up to an eighth of the side."""
        b, _, h, w = images.shape
        dy, dx = (torch.randint(-round(n / 8), round(n / 8) + 1, (b, 1), device=images.device) for n in (h, w))
        # Indices outside of the image are clamped to its padding of zeros.
        y, x = (
            (torch.arange(n, device=images.device) - d + 1).clamp(0, n + 1) for n, d in ((h, dy), (w, dx))
        )  # fmt: skip
        padded = F.pad(images, (1, 1, 1, 1)).permute(0, 2, 3, 1)
        rows = torch.arange(b, device=images.device)[:, None, None]
        return padded[rows, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)

    @staticmethod
    def cutout(images: Tensor) -> Tensor:
        """Sets a square of half the side at a random position to grey."""
        b, _, h, w = images.shape
        inside = []
        for n in (h, w):
            side = round(n / 2)
            start = torch.randint(0, n + (1 - side % 2), (b, 1), device=images.device) - side // 2
            position = torch.arange(n, device=images.device)
            inside.append((position >= start) & (position < start + side))
        hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return images * (~hole).to(images.dtype)
