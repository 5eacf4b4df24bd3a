"""The papers' likeness loss for domains without a recognition network: MoCo v2 features (Chen et al. 2020, 2003.04297).

Source: e4e and ReStyle, ``criteria/moco_loss.py``.
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
    """ResNet-50 without its last layer as an embedding.

    Args:
        network: (B, 3, 224, 224) -> (B, E).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def embed(self, image: Tensor) -> Tensor:
        """Features (B, E) of unit length of images (B, 3, H, W) in [-1, 1]."""
        # Nearest neighbours and no ImageNet normalisation: neither suits the network, but the published encoders
        # were trained so.
        image = F.interpolate(image, size=(INPUT_SIZE, INPUT_SIZE), mode="nearest")
        return F.normalize(self.network(image), dim=1)


class MoCoLoss(IdentityLoss):
    """Batch mean of ``1 - <f(image), f(target)>`` with MoCo's features.

    Args:
        path: the official file (`SOURCE`), or its name in the weights table, ``moco-v2``.
        region: ``whole`` or ``interest`` (both images multiplied by the mask).
    """

    compares = "objects"

    def __init__(self, path: str | Path | None, region: str = "whole") -> None:
        super().__init__(load_moco(None if path is None else str(path)), region)


@functools.cache
def load_moco(path: str | None) -> MoCo:
    """The network of a MoCo v2 checkpoint; the same file gives the same object.

    Raises:
        UserError: no such file, or one with something else.
    """
    from torchvision.models import resnet50  # torchvision takes a second to import

    network = resnet50(weights=None)
    network.fc = nn.Identity()
    load_exactly(network, read_state(path, SOURCE), path, SOURCE, lambda name: "module.encoder_q." + name)
    return MoCo(network).eval().requires_grad_(False)
