"""Identity loss with ArcFace, which the papers use for faces (Deng et al., CVPR 2019, arXiv 1801.07698).

Source: pSp, ``criteria/id_loss.py``.
"""

from __future__ import annotations

import functools
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.encoders.irse import FACE_SIZE, FaceRecognition
from stylegan_inv.losses.crop import face_crop
from stylegan_inv.losses.identity import IdentityLoss
from stylegan_inv.losses.network_files import load_exactly, read_state

SOURCE = "ArcFace: model_ir_se50.pth of TreB1eN/InsightFace_Pytorch (IR-SE50)"


class ArcFace(nn.Module):
    """Embeds aligned portraits with a face recognition network.

    Args:
        network: Maps (B, 3, 112, 112) to embeddings (B, E) of unit length.
    """

    domain: str | None = "faces"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def embed(self, image: Tensor) -> Tensor:
        """Returns embeddings (B, E) of unit length of images (B, 3, H, W) in [-1, 1], aligned as in FFHQ."""
        embedding: Tensor = self.network(F.adaptive_avg_pool2d(face_crop(image), (FACE_SIZE, FACE_SIZE)))
        return embedding


class ArcFaceLoss(IdentityLoss):
    """Batch mean of ``1 - <f(image), f(target)>`` with ArcFace embeddings.

    Args:
        path: The official file (`SOURCE`), or its name in the weights table, ``ir-se50``.
        region: ``whole`` or ``interest`` (both images are multiplied by the mask, then cropped).
    """

    def __init__(self, path: str | Path | None, region: str = "whole") -> None:
        super().__init__(load_arcface(None if path is None else str(path)), region)


@functools.cache
def load_arcface(path: str | None) -> ArcFace:
    """Loads the official file; repeated calls return the same object.

    Args:
        path: See `ArcFaceLoss`.

    Raises:
        UserError: There is no such file, or it holds something else.
    """
    network = FaceRecognition()
    load_exactly(network, read_state(path, SOURCE), path, SOURCE)
    return ArcFace(network).eval().requires_grad_(False)
