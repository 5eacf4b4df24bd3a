"""Face synthesis from a label map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stylegan_inv.data.tasks.base import Generators, Task
from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import whole_number


class SegmentationToFace(Task):
    """Face from label map: ``label`` (B, H, W) int64 as one-hot channels (``celebs_seg_to_face`` of pSp, 19 classes).

    For display each class has a colour, see :func:`palette`. Images given to :meth:`read` must have the resolution of
    the method: resizing mixes the colours of two classes, and the mixture can be nearest to a third one.

    Args:
        classes: Number of classes C; labels are 0 to C - 1.
    """

    def __init__(self, classes: int) -> None:
        self.classes = whole_number("dataset.task.classes", classes, 2)

    def translate(self, batch: Mapping[str, Any], generators: Generators, training: bool) -> dict[str, Tensor]:  # noqa: D102
        if "label" not in batch:
            raise UserError(
                f"segmentation: the batch has {', '.join(batch)} but no label; give dataset=synthfaces, or "
                "dataset=paired with dataset.sources=labels"
            )
        return {"source": self._one_hot(batch["label"])}

    def _one_hot(self, label: Tensor) -> Tensor:
        if int(label.min()) < 0 or int(label.max()) >= self.classes:
            raise UserError(
                f"segmentation: got labels {int(label.min())} to {int(label.max())}, expected 0 to {self.classes - 1}; "
                "give dataset.task.classes and the same number as method.in_channels"
            )
        return F.one_hot(label.long(), self.classes).permute(0, 3, 1, 2).float()

    def read(self, images: Tensor) -> Tensor:  # noqa: D102
        colours = palette(self.classes).to(images)
        distance = (images[:, None] - colours[None, :, :, None, None]).square().sum(2)
        return self._one_hot(distance.argmin(1))

    def show(self, source: Tensor) -> Tensor:  # noqa: D102
        return palette(self.classes).to(source)[source.argmax(1)].permute(0, 3, 1, 2)


def palette(classes: int) -> Tensor:
    """Returns a colour for each class, (C, 3) in [-1, 1]: points of the coarsest grid in the RGB cube, black first."""
    levels = max(2, next(n for n in range(1, classes + 1) if n**3 >= classes))
    return torch.cartesian_prod(*[torch.linspace(-1, 1, levels)] * 3)[:classes]
