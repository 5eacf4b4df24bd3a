"""Random perspective distortion, as torchvision's ``RandomPerspective`` draws it, for tensors of any values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def corners(height: int, width: int) -> Tensor:
    """Returns the corners of an image as (x, y), (4, 2): top left, top right, bottom right, bottom left."""
    right, bottom = width - 1, height - 1
    return torch.tensor([[0, 0], [right, 0], [right, bottom], [0, bottom]])


def random_corners(count: int, height: int, width: int, distortion: float) -> Tensor:
    """Returns corners that are moved inwards, (count, 4, 2), by whole pixels drawn uniformly along both axes.

    Args:
        count: Number of images.
        height: Their height H, in pixels.
        width: Their width W, in pixels.
        distortion: Largest shift as a fraction of half the side, rounded down to whole pixels.
    """
    most = [int(distortion * (side // 2)) for side in (width, height)]
    shifts = torch.stack([torch.randint(0, m + 1, (count, 4)) for m in most], dim=-1)
    inwards = torch.tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    return corners(height, width) + inwards * shifts


def perspective_coefficients(start: Tensor, end: Tensor) -> Tensor:
    """Returns the projective map from output pixels to input pixels, (8,), in single precision as torchvision's.

    With coefficients a to h, the output at (x, y) shows the input at
    ``((a x + b y + c) / (g x + h y + 1), (d x + e y + f) / (g x + h y + 1))``.

    Args:
        start: Corners (4, 2) in the input.
        end: Where they are in the output, (4, 2).
    """
    rows = []
    for (u, v), (x, y) in zip(start.double().tolist(), end.double().tolist(), strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    return torch.linalg.solve(torch.tensor(rows, dtype=torch.float64), start.double().reshape(8)).float()


def warp(images: Tensor, coefficients: Tensor | Sequence[Tensor]) -> Tensor:
    """Returns warped images (B, C, H, W), bilinear, with zeros outside of the image.

    Args:
        images: (B, C, H, W).
        coefficients: (8,) for all images, or (B, 8), see :func:`perspective_coefficients`.
    """
    height, width = images.shape[-2:]
    table = torch.as_tensor(coefficients).double().reshape(-1, 8).to(images.device)
    a, b, c, d, e, f, g, h = table[:, :, None, None].unbind(1)
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) + 0.5 for n in (height, width)), indexing="ij")
    x, y = x.to(images.device), y.to(images.device)
    depth = g * x + h * y + 1
    points = (
        torch.stack([(a * x + b * y + c) / depth * 2 / width, (d * x + e * y + f) / depth * 2 / height], dim=-1) - 1
    )
    grid = points.to(images.dtype).expand(len(images), -1, -1, -1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def random_perspective(images: Tensor, distortion: float, probability: float, same_for_all: bool = False) -> Tensor:
    """Returns images (B, C, H, W) of which some are seen in another perspective.

    Args:
        images: (B, C, H, W).
        distortion: See :func:`random_corners`.
        probability: Probability that an image is distorted.
        same_for_all: Whether all images of the batch share one decision and one distortion.
    """
    height, width = images.shape[-2:]
    count = 1 if same_for_all else len(images)
    chosen = torch.rand(count) < probability
    ends = random_corners(count, height, width, distortion)
    start = corners(height, width)
    # Corners that stay where they are give the identity, up to rounding; such images are not resampled.
    table = torch.stack([perspective_coefficients(start, end) for end in ends])
    warped = warp(images, table)
    return torch.where(chosen.to(images.device)[:, None, None, None], warped, images)
