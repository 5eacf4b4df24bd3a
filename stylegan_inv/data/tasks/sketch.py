"""Face synthesis from a line drawing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stylegan_inv.data.tasks.base import Generators, Task, grey
from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import real_number


class SketchToFace(Task):
    """Face from line drawing: one channel in [0, 1], lines 0 and paper 1 (``celebs_sketch_to_face`` of pSp).

    With g the magnitude of the Sobel gradient of the grey image in [0, 1], the drawing is
    ``1 - clamp(strength g - threshold)``. The authors filter the image and its inverse with a weight of 0.75 each,
    which amounts to the absolute value, and then thin the lines with a network. Here a threshold removes the weakest
    edges instead.

    Args:
        strength: Factor of the gradient; a larger one draws fainter edges. The authors use 0.75.
        threshold: Scaled gradient below which the paper stays white, in [0, 1).
    """

    def __init__(self, strength: float = 0.75, threshold: float = 0.1) -> None:
        self.strength = real_number("dataset.task.strength", strength, above=0)
        self.threshold = real_number("dataset.task.threshold", threshold, 0)
        if self.threshold >= 1:
            raise UserError(f"dataset.task.threshold={threshold}: expected a number below 1")

    def translate(self, batch: Mapping[str, Any], generators: Generators, training: bool) -> dict[str, Tensor]:  # noqa: D102
        levels = F.pad((grey(batch["image"]) + 1) / 2, (1, 1, 1, 1), mode="replicate")
        across = levels.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
        slope = F.conv2d(levels, torch.stack([across, across.T])[:, None])
        lines = self.strength * torch.linalg.vector_norm(slope, dim=1, keepdim=True) - self.threshold
        return {"source": 1 - lines.clamp(0, 1)}

    def read(self, images: Tensor) -> Tensor:  # noqa: D102
        return (grey(images) + 1) / 2

    def show(self, source: Tensor) -> Tensor:  # noqa: D102
        return 2 * source - 1
