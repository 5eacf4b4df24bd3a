"""LPIPS (Zhang et al., CVPR 2018, arXiv 1801.03924), by the authors' ``lpips`` package."""

from __future__ import annotations

import functools
import importlib
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.losses.compose import LossInputs, check_normalise, check_region
from stylegan_inv.losses.network_files import load_exactly, read_state
from stylegan_inv.utils.frozen_module import Frozen
from stylegan_inv.weights.download import TABLE, fetch

TRUNKS = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet"}
"""The names of torchvision's ImageNet weights in the weights table."""


class LPIPS(nn.Module):
    """Batch mean of LPIPS, images in [-1, 1] (pSp, equation 3; its code: sum over the batch / batch size).

    Args:
        net: ``alex`` (the papers), ``vgg`` or ``squeeze``.
        trunk: file with the trunk's torchvision weights; None uses torch's cache or downloads them.
        region: ``whole``, ``interest`` (both images multiplied by the mask) or ``crop`` (frontalisation).
        normalise: with a mask, average over ``all_pixels`` (IntereStyle's code) or over the ``mask_area``.
        offline: never download; None: as ``weights.offline`` says.
    """

    def __init__(
        self,
        net: str = "alex",
        trunk: str | Path | None = None,
        region: str = "whole",
        normalise: str = "all_pixels",
        offline: bool | None = None,
    ) -> None:
        super().__init__()
        self.frozen = Frozen(load_lpips(net, trunk, offline))
        self.region = check_region(region)
        self.normalise = check_normalise(normalise, region)

    def forward(self, inputs: LossInputs) -> Tensor:
        """The mean distance."""
        distances = self.frozen(inputs.picture("image", self.region), inputs.picture("target", self.region))
        return inputs.average(distances.flatten(), self.normalise)


def load_lpips(net: str = "alex", trunk: str | Path | None = None, offline: bool | None = None) -> nn.Module:
    """The LPIPS network, one object for each choice; called with two images in [-1, 1] it gives (B, 1, 1, 1).

    Its heads come with the ``lpips`` package; the trunk's ImageNet weights do not. They are taken from ``trunk``, or
    from torch's cache ($TORCH_HOME), or from the weights table's, which downloads them once unless ``offline``.

    Raises:
        UserError: unknown net, package missing, or weights absent and not to be downloaded.
    """
    if net not in TRUNKS:
        raise UserError(f"lpips: net={net!r}, expected one of {', '.join(TRUNKS)}")
    return _load(net, _trunk(net, trunk, offline))


def _trunk(net: str, trunk: str | Path | None, offline: bool | None) -> str:
    """The file of the trunk."""
    cached = Path(torch.hub.get_dir()) / "checkpoints" / TABLE[TRUNKS[net]].file
    if trunk is not None or cached.is_file():
        return str(trunk or cached)
    try:
        return str(fetch(TRUNKS[net], offline=offline))
    except UserError as error:
        raise UserError(
            f"lpips: no ImageNet weights for {net}: {error}; or give trunk=FILE, or use loss=embedded "
            f"metrics=embedded, which need no download"
        ) from error


@functools.cache
def _load(net: str, trunk: str) -> nn.Module:
    try:
        package = importlib.import_module("lpips")
    except ImportError:
        raise UserError("lpips: the package is not installed; pip install lpips, or use loss=embedded") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package uses arguments that torchvision has renamed
        # A random trunk: the package's own loading would download without a word.
        network: Any = package.LPIPS(net=net, pnet_rand=True, verbose=False)
    what = f"the trunk of lpips, torchvision's {TABLE[TRUNKS[net]].file}"
    load_exactly(network.net, read_state(trunk, what), trunk, what, _torchvision_name)
    return network.eval().requires_grad_(False)


def _torchvision_name(name: str) -> str:
    """``slice2.3.weight`` (lpips cuts the trunk into slices, keeping layer numbers) -> ``features.3.weight``."""
    return "features." + name.split(".", 1)[1]
