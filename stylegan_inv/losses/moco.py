"""Similarity loss with MoCo v2 features, which the papers use for domains without a recognition network.

Paper: Chen et al. 2020, arXiv 2003.04297. Source: e4e and ReStyle, ``criteria/moco_loss.py``.
"""

from __future__ import annotations

import functools
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.losses.identity import IdentityLoss
from stylegan_inv.losses.network_files import load_exactly, read_state

INPUT_SIZE = 224
SOURCE = "MoCo v2: moco_v2_800ep_pretrain.pth.tar of facebookresearch/moco (ResNet-50, 800 epochs)"


class MoCo(nn.Module):
    """Embeds images with a ResNet-50 without its last layer.

    Args:
        network: Maps (B, 3, 224, 224) to features (B, E).
    """

    domain: str | None = None  # trained on ImageNet

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def embed(self, image: Tensor) -> Tensor:
        """Returns features (B, E) of unit length of images (B, 3, H, W) in [-1, 1]."""
        # Nearest-neighbour resizing without ImageNet normalisation does not match MoCo's own training, but the
        # published encoders were trained with it.
        image = F.interpolate(image, size=(INPUT_SIZE, INPUT_SIZE), mode="nearest")
        return F.normalize(self.network(image), dim=1)


class MoCoLoss(IdentityLoss):
    """Batch mean of ``1 - <f(image), f(target)>`` with MoCo features.

    Args:
        path: The official file (`SOURCE`), or its name in the weights table, ``moco-v2``.
        region: ``whole`` or ``interest`` (both images are multiplied by the mask).
    """

    compares = "objects"

    def __init__(self, path: str | Path | None, region: str = "whole") -> None:
        super().__init__(load_moco(None if path is None else str(path)), region)


@functools.cache
def load_moco(path: str | None) -> MoCo:
    """Loads the network of a MoCo v2 checkpoint; repeated calls return the same object.

    Args:
        path: See `MoCoLoss`.

    Raises:
        UserError: There is no such file, or it holds something else.
    """
    from torchvision.models import resnet50  # importing torchvision takes a second

    network = resnet50(weights=None)
    network.fc = nn.Identity()
    load_exactly(network, read_state(path, SOURCE), path, SOURCE, lambda name: "encoder_q." + name)
    return MoCo(network).eval().requires_grad_(False)
