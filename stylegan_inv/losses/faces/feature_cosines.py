"""Losses of the Feature-Style encoder: cosine distances of all feature maps of a face network (arXiv 2202.02183).

Source: InterDigitalInc/FeatureStyleEncoder, trainer.py (commit 4aa0069).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.encoders.feature_space.iresnet import FACE_SIZE, IResNet, read_iresnet
from stylegan_inv.losses.compose import LossInputs, check_region
from stylegan_inv.losses.faces.bisenet import BiSeNet
from stylegan_inv.losses.network_files import load_exactly, read_state
from stylegan_inv.utils.frozen_module import Frozen

#: Side of the images that BiSeNet reads, in pixels.
PARSED_SIZE = 512
SOURCE = "BiSeNet: 79999_iter.pth of zllrunning/face-parsing.PyTorch"


def cosine_distances(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Returns the sum over the maps of ``1 - cos(a_i, b_i)`` of each image, (B,); maps are flattened."""
    pairs = zip(a, b, strict=True)
    return torch.stack([1 - F.cosine_similarity(x.flatten(1), y.flatten(1), dim=1) for x, y in pairs]).sum(0)


class FeatureIdentity(nn.Module):
    """Batch mean of the cosine distances of the four maps and the embedding of an IResNet-50; whole image, no crop.

    Args:
        path: File of the network (``backbone.pth`` of InsightFace's ms1mv3 or glint360k).
        region: ``whole`` or ``interest`` (both images are multiplied by the mask).
    """

    compares = "faces"
    domain: str | None = "faces"

    def __init__(self, path: str | Path, region: str = "whole") -> None:
        super().__init__()
        self.region = check_region(region, ("whole", "interest"))
        network = IResNet()
        network.load_state_dict(read_iresnet(path))
        self.frozen = Frozen(network)

    def forward(self, inputs: LossInputs) -> Tensor:
        """Returns the mean distance; the target receives no gradient."""
        with torch.no_grad():
            target = self.levels(inputs.select("target", self.region))
        return cosine_distances(self.levels(inputs.select("image", self.region)), target).mean()

    def levels(self, images: Tensor) -> list[Tensor]:
        """Returns the maps and the embeddings of images (B, 3, H, W) in [-1, 1]."""
        levels: list[Tensor] = self.frozen.network.levels(F.interpolate(images, (FACE_SIZE, FACE_SIZE)))
        return levels


class ParsingSimilarity(nn.Module):
    """Batch mean of the cosine distances of BiSeNet's three outputs: parts of the face in the same places.

    The official code calls it the landmark loss. Pixels outside of [-1, 1] have no gradient, as in the official code.

    Args:
        path: The official file (`SOURCE`).
        region: ``whole`` or ``interest`` (both images are multiplied by the mask).
    """

    domain: str | None = "faces"
    mean: Tensor
    std: Tensor

    def __init__(self, path: str | Path, region: str = "whole") -> None:
        super().__init__()
        self.region = check_region(region, ("whole", "interest"))
        network = BiSeNet()
        load_exactly(network, read_state(path, SOURCE), path, SOURCE)
        self.frozen = Frozen(network)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)

    def forward(self, inputs: LossInputs) -> Tensor:
        """Returns the mean distance; the target receives no gradient."""
        with torch.no_grad():
            target = self.outputs(inputs.select("target", self.region))
        return cosine_distances(self.outputs(inputs.select("image", self.region)), target).mean()

    def outputs(self, images: Tensor) -> Sequence[Tensor]:
        """Returns the logits (B, 19, 512, 512) of the three outputs for images (B, 3, H, W) in [-1, 1]."""
        colours = ((images + 1) / 2).clamp(0, 1)
        x = F.interpolate(colours, (PARSED_SIZE, PARSED_SIZE), mode="bilinear", align_corners=False)
        logits: Sequence[Tensor] = self.frozen.network((x - self.mean) / self.std)
        return logits
