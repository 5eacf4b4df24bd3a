"""Face frontalization, learnt without pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.data.tasks.base import Generators, Task

#: Entries of a batch that are flipped with the image.
_MAPS = ("image", "mask", "label", "obstacle")


class Frontalization(Task):
    """Frontal view of a face (``ffhq_frontalize`` of pSp).

    In training, source and target are flipped horizontally, independently of each other and each with probability 0.5
    (the authors in issues 66 and 89 of pSp). The method cannot know the side to which the target looks, and its best
    answer is a face that looks ahead. Evaluation flips nothing. A batch that has a ``source``, as the validation
    batches of ``dataset=synthfaces_paired`` do, is returned unchanged.
    """

    def translate(self, batch: Mapping[str, Any], generators: Generators, training: bool) -> dict[str, Tensor]:  # noqa: D102
        if "source" in batch:
            return {}
        if not training:
            return {"source": batch["image"]}
        flipped = torch.tensor([[generator.random() < 0.5 for _ in range(2)] for generator in generators])
        maps = {name: _flip(batch[name], flipped[:, 1]) for name in _MAPS if name in batch}
        return {**maps, "source": _flip(batch["image"], flipped[:, 0])}


def _flip(maps: Tensor, rows: Tensor) -> Tensor:
    """Flips the rows of a batch (B, ..., W) for which ``rows`` (B,) is true."""
    return torch.where(rows.to(maps.device).view(-1, *[1] * (maps.ndim - 1)), maps.flip(-1), maps)
