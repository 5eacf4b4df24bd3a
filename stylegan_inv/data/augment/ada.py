"""Adaptive augmentation of all images that the discriminator sees, real and generated.

"Training Generative Adversarial Networks with Limited Data", Karras, Aittala, Hellsten, Laine, Lehtinen, Aila,
NeurIPS 2020, arXiv 2006.06676, appendix B. Differences: images are resampled bilinearly at their own resolution, where
the paper filters at twice the resolution with a sym6 wavelet; the pipeline is the paper's "bgc", without band
filtering, noise and cutout, which the paper found not to help.

The augmentation is twice differentiable, which R1 needs, and draws from PyTorch's global generator. Images are
(B, 3, R, R) in [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from stylegan_inv.data.augment.per_image_random import PerImageRandom
from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import real_number, whole_number


class _Resample(torch.autograd.Function):
    """Bilinear ``grid_sample`` with reflected borders, differentiable any number of times in the image.

    PyTorch implements no second derivative. The operation is linear in the image, so the derivative is its adjoint,
    and the derivative of the adjoint is the operation itself.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        return _sample(images, grid)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _ResampleAdjoint.apply(gradient, ctx.saved_tensors[0]), None


class _ResampleAdjoint(torch.autograd.Function):
    """The adjoint of :class:`_Resample`."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        with torch.enable_grad():
            images = torch.zeros_like(gradient, requires_grad=True)
            return torch.autograd.grad(_sample(images, grid), images, gradient)[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Resample.apply(gradient, ctx.saved_tensors[0]), None


def _sample(images: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def warp(images: Tensor, inverse: Tensor) -> Tensor:
    """Transforms each image by its own affine map.

    Args:
        images: Images (B, C, R, R).
        inverse: Matrices (B, 3, 3) from coordinates in the result to coordinates in the image, both in [-1, 1] with x
            to the right and y down.

    Returns:
        Images (B, C, R, R).
    """
    grid = F.affine_grid(inverse[:, :2].to(images.dtype), list(images.shape), align_corners=False)
    return _Resample.apply(images, grid)


def recolour(images: Tensor, matrix: Tensor) -> Tensor:
    """Transforms the colours of each image (B, 3, R, R) by its own affine map (B, 4, 4)."""
    matrix = matrix.to(images.dtype)
    return torch.einsum("bij,bjhw->bihw", matrix[:, :3, :3], images) + matrix[:, :3, 3, None, None]


def _stack(rows: Sequence[Sequence[Tensor | float]], like: Tensor) -> Tensor:
    """Returns matrices (B, n, n) from entries that are numbers or tensors (B,)."""
    flat = [torch.as_tensor(x, dtype=like.dtype, device=like.device).expand_as(like) for row in rows for x in row]
    return torch.stack(flat, dim=1).view(len(like), len(rows), len(rows[0]))


def translation(x: Tensor, y: Tensor) -> Tensor:
    """Returns translation matrices (B, 3, 3) for shifts (B,), where 2 is the width of the image."""
    return _stack([[1, 0, x], [0, 1, y], [0, 0, 1]], x)


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """Returns scaling matrices (B, 3, 3) for factors (B,)."""
    return _stack([[x, 0, 0], [0, y, 0], [0, 0, 1]], x)


def rotation(angle: Tensor) -> Tensor:
    """Returns rotation matrices (B, 3, 3) for angles (B,) in radians."""
    c, s = angle.cos(), angle.sin()
    return _stack([[c, -s, 0], [s, c, 0], [0, 0, 1]], angle)


class ADA(nn.Module):
    """Adaptive discriminator augmentation.

    Every transformation is applied with probability ``p``. It increases while the discriminator overfits to the
    training images, r_t = ``E[sign D(x)] > target``, and decreases otherwise. With p = 0 images are not changed.

    Args:
        ada_images: Number of images in which p can change from 0 to 1.
        target: Target of r_t; None keeps p constant.
        interval: Number of batches between two updates of p.
        initial_p: Initial p.
        blit: Factor of the probability of flips, rotations by 90 degrees and whole-pixel shifts; 0 disables them.
        geometric: Factor of the probability of scaling, rotation and fractional shifts; 0 disables them.
        colour: Factor of the probability of changes of brightness, contrast, hue and saturation, and of the luma flip;
            0 disables them.

    Raises:
        UserError: An argument is out of range.
    """

    p: Tensor
    _signs: Tensor
    _images: Tensor
    _batches: Tensor

    def __init__(
        self,
        ada_images: int = 500_000,
        target: float | None = 0.6,
        interval: int = 4,
        initial_p: float = 0.0,
        blit: float = 1.0,
        geometric: float = 1.0,
        colour: float = 1.0,
    ) -> None:
        super().__init__()
        self.ada_images = real_number("ada: ada_images", ada_images, least=1)
        self.interval = whole_number("ada: interval", interval)
        self.target, self.blit, self.geometric, self.colour = target, blit, geometric, colour
        self.register_buffer("p", torch.tensor(real_number("ada: initial_p", initial_p, 0, 1)))
        self.register_buffer("_signs", torch.zeros(()))
        self.register_buffer("_images", torch.zeros((), dtype=torch.int64))
        self.register_buffer("_batches", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def observe(self, mean_sign: Tensor, images: int) -> None:
        """Adds a batch to the statistics, and updates p after every ``interval`` batches.

        Args:
            mean_sign: Mean sign of the discriminator's logits of real images, a scalar.
            images: Number of these images on all ranks.
        """
        self._signs += mean_sign * images
        self._images += images
        self._batches += 1
        if self.target is None or int(self._batches) % self.interval:
            return
        r_t = self._signs / self._images
        self.p.add_(torch.sign(r_t - self.target) * self._images / self.ada_images).clamp_(0, 1)
        self._signs.zero_()
        self._images.zero_()

    def forward(self, images: Tensor) -> Tensor:
        """Returns augmented images (B, 3, R, R).

        Raises:
            UserError: The images have another shape.
        """
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
            raise UserError(f"ada: got images of shape {tuple(images.shape)}, expected (B, 3, R, R)")
        if float(self.p) == 0:
            return images
        if self.blit or self.geometric:
            images = warp(images, self.sample_geometry(images))
        return recolour(images, self.sample_colour(images)) if self.colour else images

    def sample_geometry(self, images: Tensor) -> Tensor:
        """Returns random matrices (B, 3, 3) for :func:`warp`.

        Transformations are composed by their inverses: the inverse of T2 T1 is T1^-1 T2^-1.
        """
        random = PerImageRandom(images)
        size = images.shape[-1]
        inverse = torch.eye(3, device=images.device, dtype=images.dtype).expand(len(images), 3, 3)
        if p := float(self.p) * self.blit:
            flip = random.gate(p, random.integer(2), 0)
            inverse = inverse @ scaling(1 - 2 * flip, torch.ones_like(flip))
            inverse = inverse @ rotation(-random.gate(p, random.integer(4), 0) * (math.pi / 2))
            x, y = (random.uniform(-0.125, 0.125).mul(size).round().mul(2 / size) for _ in "xy")
            inverse = inverse @ translation(*(-t for t in random.gates(p, (x, y), 0)))
        if p := float(self.p) * self.geometric:
            # Images are rotated before stretching, after it, or both. With p_rotation at least one of the two happens
            # with probability p.
            p_rotation = 1 - math.sqrt(max(0.0, 1 - p))
            scale = random.gate(p, random.normal(0.2).exp2(), 1)
            inverse = inverse @ scaling(1 / scale, 1 / scale)
            inverse = inverse @ rotation(-random.gate(p_rotation, random.uniform(-math.pi, math.pi), 0))
            stretch = random.gate(p, random.normal(0.2).exp2(), 1)
            inverse = inverse @ scaling(1 / stretch, stretch)
            inverse = inverse @ rotation(-random.gate(p_rotation, random.uniform(-math.pi, math.pi), 0))
            x, y = random.gates(p, (2 * random.normal(0.125), 2 * random.normal(0.125)), 0)
            inverse = inverse @ translation(-x, -y)
        return inverse

    def sample_colour(self, images: Tensor) -> Tensor:
        """Returns random matrices (B, 4, 4) for :func:`recolour`."""
        random, p = PerImageRandom(images), float(self.p) * self.colour
        eye = torch.eye(4, device=images.device, dtype=images.dtype)
        luma = eye.new_tensor([1, 1, 1, 0]) / math.sqrt(3)
        grey, colours = torch.outer(luma, luma), torch.diag(eye.new_tensor([1, 1, 1, 0]))
        # Rotation about the luma axis (Rodrigues): cos (I - vv^T) + sin [v]x + vv^T.
        cross = torch.zeros_like(eye)
        cross[:3, :3] = eye.new_tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
        rest = eye - colours  # keeps the homogeneous coordinate

        b = random.gate(p, random.normal(0.2), 0)
        matrix = _stack([[1, 0, 0, b], [0, 1, 0, b], [0, 0, 1, b], [0, 0, 0, 1]], b)
        c = random.gate(p, random.normal(0.5).exp2(), 1)[:, None, None]
        matrix = (c * colours + rest) @ matrix
        flip = random.gate(p, random.integer(2), 0)[:, None, None]
        matrix = (eye - 2 * flip * grey) @ matrix
        angle = random.gate(p, random.uniform(-math.pi, math.pi), 0)[:, None, None]
        matrix = (angle.cos() * (colours - grey) + angle.sin() * cross + grey + rest) @ matrix
        s = random.gate(p, random.normal(1.0).exp2(), 1)[:, None, None]
        return (grey + s * (colours - grey) + rest) @ matrix
