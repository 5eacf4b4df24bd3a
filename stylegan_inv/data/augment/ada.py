"""Adaptive augmentation of all that the discriminator sees, real and generated.

"Training Generative Adversarial Networks with Limited Data", Karras, Aittala, Hellsten, Laine, Lehtinen, Aila,
NeurIPS 2020, arXiv 2006.06676, appendix B. What differs: images are resampled bilinearly at their own resolution, where
the paper filters at twice the resolution with a sym6 wavelet; band filtering, noise and cutout, which the paper found
not to help, are left out ("bgc" is all there is).

Differentiable twice (R1 needs that); draws from torch's global random numbers. Images: (B, 3, R, R) in [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from stylegan_inv.data.augment.diffaugment import Draw
from stylegan_inv.errors import UserError


class _Resample(torch.autograd.Function):
    """Bilinear `grid_sample` with reflected borders, linear in the image and differentiable any number of times.

    PyTorch's own has no second derivative. As the operation is linear, the derivative of its adjoint is itself.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        return _sample(images, grid)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _ResampleAdjoint.apply(gradient, ctx.saved_tensors[0]), None


class _ResampleAdjoint(torch.autograd.Function):
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
    """Each image under its own affine map.

    Args:
        images: (B, C, R, R).
        inverse: (B, 3, 3), from places in the result to places in the image; both in [-1, 1], x to the right, y down.
    """
    grid = F.affine_grid(inverse[:, :2].to(images.dtype), list(images.shape), align_corners=False)
    return _Resample.apply(images, grid)


def recolour(images: Tensor, matrix: Tensor) -> Tensor:
    """Each image (B, 3, R, R) under its own affine map of colours, (B, 4, 4)."""
    matrix = matrix.to(images.dtype)
    return torch.einsum("bij,bjhw->bihw", matrix[:, :3, :3], images) + matrix[:, :3, 3, None, None]


def _stack(rows: Sequence[Sequence[Tensor | float]], like: Tensor) -> Tensor:
    """(B, n, n) matrices out of entries that are numbers or (B,) tensors."""
    flat = [torch.as_tensor(x, dtype=like.dtype, device=like.device).expand_as(like) for row in rows for x in row]
    return torch.stack(flat, dim=1).view(len(like), len(rows), len(rows[0]))


def translation(x: Tensor, y: Tensor) -> Tensor:
    """(B, 3, 3) from (B,) shifts; 2 is the width of the image."""
    return _stack([[1, 0, x], [0, 1, y], [0, 0, 1]], x)


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """(B, 3, 3) from (B,) factors."""
    return _stack([[x, 0, 0], [0, y, 0], [0, 0, 1]], x)


def rotation(angle: Tensor) -> Tensor:
    """(B, 3, 3) from (B,) radians."""
    c, s = angle.cos(), angle.sin()
    return _stack([[c, -s, 0], [s, c, 0], [0, 0, 1]], angle)


class ADA(nn.Module):
    """Adaptive discriminator augmentation.

    Every transformation happens with probability ``p``. It rises while the discriminator is sure of the training
    images, ``E[sign D(x)] > target`` (r_t of the paper), and falls otherwise. With p = 0 nothing is touched.

    Args:
        ada_images: images in which p can go from 0 to 1.
        target: of r_t; None keeps p.
        interval: batches between two corrections of p.
        initial_p: p at the start.
        blit: flips, quarter turns and whole-pixel shifts: multiplies their probability; 0 turns them off.
        geometric: the same for scaling, rotation and fractional shifts.
        colour: the same for brightness, contrast, luma flip, hue and saturation.
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
        if ada_images < 1 or interval < 1 or not 0 <= initial_p <= 1:
            raise UserError(
                f"ada: ada_images={ada_images}, interval={interval}, initial_p={initial_p}; expected at least 1, at "
                "least 1, and a probability"
            )
        self.ada_images, self.target, self.interval = ada_images, target, interval
        self.blit, self.geometric, self.colour = blit, geometric, colour
        self.register_buffer("p", torch.tensor(float(initial_p)))
        self.register_buffer("_signs", torch.zeros(()))
        self.register_buffer("_images", torch.zeros((), dtype=torch.int64))
        self.register_buffer("_batches", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def observe(self, mean_sign: Tensor, images: int) -> None:
        """Take note of one batch: the mean sign of the logits of real images, and how many there were on all ranks."""
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
        """(B, 3, R, R) -> the same shape."""
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
            raise UserError(f"ada: got images of shape {tuple(images.shape)}, expected (B, 3, R, R)")
        if float(self.p) == 0:
            return images
        if self.blit or self.geometric:
            images = warp(images, self.sample_geometry(images))
        return recolour(images, self.sample_colour(images)) if self.colour else images

    def sample_geometry(self, images: Tensor) -> Tensor:
        """Random (B, 3, 3) for `warp`. Each T is a step forwards; the inverse of T2 T1 is T1^-1 T2^-1."""
        draw = Draw(images)
        size = images.shape[-1]
        inverse = torch.eye(3, device=images.device, dtype=images.dtype).expand(len(images), 3, 3)
        if p := float(self.p) * self.blit:
            flip = draw.gate(p, draw.choice(2), 0)
            inverse = inverse @ scaling(1 - 2 * flip, torch.ones_like(flip))
            inverse = inverse @ rotation(-draw.gate(p, draw.choice(4), 0) * (math.pi / 2))
            x, y = (draw.uniform(-0.125, 0.125).mul(size).round().mul(2 / size) for _ in "xy")
            inverse = inverse @ translation(*(-t for t in draw.gates(p, (x, y), 0)))
        if p := float(self.p) * self.geometric:
            # Turned before or after stretching, or both: p_rot makes the two together happen with probability p.
            p_rotation = 1 - math.sqrt(max(0.0, 1 - p))
            scale = draw.gate(p, draw.normal(0.2).exp2(), 1)
            inverse = inverse @ scaling(1 / scale, 1 / scale)
            inverse = inverse @ rotation(-draw.gate(p_rotation, draw.uniform(-math.pi, math.pi), 0))
            stretch = draw.gate(p, draw.normal(0.2).exp2(), 1)
            inverse = inverse @ scaling(1 / stretch, stretch)
            inverse = inverse @ rotation(-draw.gate(p_rotation, draw.uniform(-math.pi, math.pi), 0))
            x, y = draw.gates(p, (2 * draw.normal(0.125), 2 * draw.normal(0.125)), 0)
            inverse = inverse @ translation(-x, -y)
        return inverse

    def sample_colour(self, images: Tensor) -> Tensor:
        """Random (B, 4, 4) for `recolour`."""
        draw, p = Draw(images), float(self.p) * self.colour
        eye = torch.eye(4, device=images.device, dtype=images.dtype)
        luma = eye.new_tensor([1, 1, 1, 0]) / math.sqrt(3)
        grey, colours = torch.outer(luma, luma), torch.diag(eye.new_tensor([1, 1, 1, 0]))
        # Rotation about the luma axis (Rodrigues): cos (I - vv^T) + sin [v]x + vv^T.
        cross = torch.zeros_like(eye)
        cross[:3, :3] = eye.new_tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
        rest = eye - colours  # the homogeneous 1

        b = draw.gate(p, draw.normal(0.2), 0)
        matrix = _stack([[1, 0, 0, b], [0, 1, 0, b], [0, 0, 1, b], [0, 0, 0, 1]], b)
        c = draw.gate(p, draw.normal(0.5).exp2(), 1)[:, None, None]
        matrix = (c * colours + rest) @ matrix
        flip = draw.gate(p, draw.choice(2), 0)[:, None, None]
        matrix = (eye - 2 * flip * grey) @ matrix
        angle = draw.gate(p, draw.uniform(-math.pi, math.pi), 0)[:, None, None]
        matrix = (angle.cos() * (colours - grey) + angle.sin() * cross + grey + rest) @ matrix
        s = draw.gate(p, draw.normal(1.0).exp2(), 1)[:, None, None]
        return (grey + s * (colours - grey) + rest) @ matrix
