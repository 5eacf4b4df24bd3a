"""LPIPS (Zhang et al., CVPR 2018, arXiv 1801.03924), computed by the authors' ``lpips`` package."""

from __future__ import annotations

import functools
import importlib
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.errors import UserError
from stylegan_inv.losses.compose import LossInputs, check_normalise, check_region
from stylegan_inv.losses.network_files import load_exactly, read_state
from stylegan_inv.utils.checks import one_of, whole_number
from stylegan_inv.utils.frozen_module import Frozen
from stylegan_inv.weights.download import fetch
from stylegan_inv.weights.table import TABLE

TRUNKS = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet"}
"""Backbone -> name of torchvision's ImageNet weights in the weights table."""


class LPIPS(nn.Module):
    """Batch mean of LPIPS, for images in [-1, 1] (pSp, equation 3; its code divides the sum by the batch size).

    Args:
        net: Backbone: ``alex`` (the papers), ``vgg`` or ``squeeze``.
        trunk: File with torchvision's weights of the backbone; None uses torch's cache or downloads them.
        region: ``whole``, ``interest`` (both images are multiplied by the mask) or ``crop`` (frontalisation).
        normalise: With a mask, average over ``all_pixels`` (IntereStyle's code) or over the ``mask_area``.
        offline: If True, nothing is downloaded; None uses ``weights.offline``.
        scales: Number of sizes that the distance is summed over: the images, half their size, ... (bilinear).
    """

    domain: str | None = None

    def __init__(
        self,
        net: str = "alex",
        trunk: str | Path | None = None,
        region: str = "whole",
        normalise: str = "all_pixels",
        offline: bool | None = None,
        scales: int = 1,
    ) -> None:
        super().__init__()
        self.scales = whole_number("lpips: scales", scales)
        self.frozen = Frozen(load_lpips(net, trunk, offline))
        self.region = check_region(region)
        self.normalise = check_normalise(normalise, region)

    def forward(self, inputs: LossInputs) -> Tensor:
        """Returns the mean distance."""
        image, target = inputs.select("image", self.region), inputs.select("target", self.region)
        distances = self.frozen(image, target).flatten()
        for _ in range(1, self.scales):
            image, target = (F.interpolate(x, scale_factor=0.5, mode="bilinear") for x in (image, target))
            distances = distances + self.frozen(image, target).flatten()
        return inputs.average(distances, self.normalise)


def load_lpips(net: str = "alex", trunk: str | Path | None = None, offline: bool | None = None) -> nn.Module:
    """Returns the LPIPS network, which maps two batches of images in [-1, 1] to distances (B, 1, 1, 1).

    The linear heads are part of the ``lpips`` package; the ImageNet weights of the backbone are not. They are read from
    ``trunk``, from torch's cache ($TORCH_HOME), or from the cache of the weights table, which downloads them once.
    Calls with the same arguments return the same object.

    Args:
        net: Backbone: ``alex``, ``vgg`` or ``squeeze``.
        trunk: File with torchvision's weights of the backbone; None searches the caches.
        offline: If True, nothing is downloaded; None uses ``weights.offline``.

    Raises:
        UserError: The backbone is unknown, the package is missing, or the weights are absent and cannot be downloaded.
    """
    one_of("lpips: net", net, TRUNKS)
    return _load(net, _trunk_file(net, trunk, offline))


def torch_cache(name: str) -> Path | None:
    """Returns the file of an entry of the weights table in torch's own cache, or None if it is not there."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / TABLE[name].file
    return path if path.is_file() else None


def _trunk_file(net: str, trunk: str | Path | None, offline: bool | None) -> str:
    found = trunk or torch_cache(TRUNKS[net])
    if found is not None:
        return str(found)
    try:
        return str(fetch(TRUNKS[net], offline=offline))
    except UserError as error:
        raise UserError(
            f"lpips: no ImageNet weights for {net}: {error}; or give loss.lpips.trunk=FILE, or leave "
            f"LPIPS out (~loss.lpips ~metrics.lpips)"
        ) from error


@functools.cache
def _load(net: str, trunk: str) -> nn.Module:
    try:
        package = importlib.import_module("lpips")
    except ImportError:
        raise UserError(
            "lpips: the package is not installed; pip install lpips, or leave LPIPS out (~loss.lpips ~metrics.lpips)"
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package passes arguments that torchvision has renamed
        # pnet_rand skips the package's own loading of the backbone, which would download without notice.
        network: Any = package.LPIPS(net=net, pnet_rand=True, verbose=False)
    what = f"the trunk of lpips, torchvision's {TABLE[TRUNKS[net]].file}"
    load_exactly(network.net, read_state(trunk, what), trunk, what, _torchvision_name)
    module: nn.Module = network
    return module.eval().requires_grad_(False)


def _torchvision_name(name: str) -> str:
    """Maps ``slice2.3.weight`` (the package splits the backbone but keeps the indices) to ``features.3.weight``."""
    return "features." + name.split(".", 1)[1]
