"""FID and KID, computed on torch-fidelity's port of the Inception network that published values use."""

from __future__ import annotations

import functools
import io
from pathlib import Path

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.generators.io.weight_files import unusable_values
from stylegan_inv.losses.network_files import read_state
from stylegan_inv.metrics.frechet import FrechetDistance
from stylegan_inv.metrics.kernel import KernelDistance

FEATURES = 2048
_SOURCE = "weights-inception-2015-12-05-6726825d.pth of toshas/torch-fidelity (TensorFlow's Inception of 2015)"


class Inception(nn.Module):
    """torch-fidelity's port of TensorFlow's Inception of 2015, including its resizing to 299 px.

    Args:
        state: The weights.

    Raises:
        UserError: torch-fidelity is not installed, or the weights are those of another network.
    """

    domain: str | None = None  # trained on ImageNet

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise UserError("FID and KID need torch-fidelity: pip install 'stylegan_inv[fid]'") from error
        # The extractor unpickles its file without restrictions, so it gets a file that contains tensors only.
        tensors = io.BytesIO()
        torch.save(state, tensors)
        tensors.seek(0)
        try:
            self.extractor = FeatureExtractorInceptionV3(
                "inception-v3-compat", [str(FEATURES)], feature_extractor_weights_path=tensors
            )
        except RuntimeError as error:
            raise UserError(
                f"not the weights of Inception, expected {_SOURCE}: {str(error).splitlines()[0]}"
            ) from error
        if values := unusable_values(self.extractor.state_dict(), state):
            raise UserError(f"not the weights of Inception, expected {_SOURCE}: {values[0]}")

    def pooled(self, images: Tensor) -> Tensor:
        """Returns features (B, 2048) of images (B, 3, H, W) in [-1, 1], which are rounded to 8 bits as in a file."""
        levels = ((images + 1) * 127.5).round().clamp(0, 255)
        features: Tensor = self.extractor(levels.to(torch.uint8))[0]
        return features


@functools.cache
def load_inception(path: str | Path) -> Inception:
    """Loads the network; repeated calls return the same object.

    Args:
        path: The file, or its name in the weights table, ``inception``.

    Raises:
        UserError: There is no such file, it holds something else, or torch-fidelity is not installed.
    """
    return Inception(read_state(path, _SOURCE)).eval().requires_grad_(False)


class FID(FrechetDistance):
    """Frechet Inception distance (Heusel et al., NeurIPS 2017, arXiv 1706.08500).

    The value decreases with the number of images and depends on how they were resized and stored; only values of the
    same protocol can be compared.

    Args:
        weights: See :func:`load_inception`.
    """

    def __init__(self, weights: str | Path = "inception") -> None:
        super().__init__(load_inception(weights), features=FEATURES)

    def describe(self) -> str:
        """Returns the name of the network."""
        return f"Frechet distance of the 2048 pooled features of {self._description}"


class KID(KernelDistance):
    """Kernel Inception distance (Binkowski et al., ICLR 2018, arXiv 1801.01401), over all pairs instead of subsets.

    Args:
        weights: See :func:`load_inception`.
    """

    def __init__(self, weights: str | Path = "inception") -> None:
        super().__init__(load_inception(weights), features=FEATURES)

    def describe(self) -> str:
        """Returns the name of the network."""
        return f"squared MMD, cubic kernel, all pairs, of the 2048 pooled features of {self._description}"
