"""LPIPS (Zhang et al., CVPR 2018, arXiv 1801.03924), by the authors' ``lpips`` package."""

from __future__ import annotations

import functools
import importlib
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.encoders.frozen import Frozen
from stylegan_inv.errors import UserError
from stylegan_inv.losses.compose import LossInputs, check_normalise, check_region
from stylegan_inv.losses.weights import load_exactly, read_state

TRUNKS = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
"""Files with torchvision's ImageNet weights, as torch names them in its cache."""

_URL = "https://download.pytorch.org/models/"


class LPIPS(nn.Module):
    """Batch mean of LPIPS, images in [-1, 1] (pSp, equation 3; its code: sum over the batch / batch size).

    Args:
        net: ``alex`` (the papers), ``vgg`` or ``squeeze``.
        trunk: file with the trunk's torchvision weights; None uses torch's cache or downloads.
        region: ``whole``, ``interest`` (both images multiplied by the mask) or ``crop`` (frontalisation).
        normalise: with a mask, average over ``all_pixels`` (IntereStyle's code) or over the ``mask_area``.
        offline: never download.
    """

    def __init__(
        self,
        net: str = "alex",
        trunk: str | Path | None = None,
        region: str = "whole",
        normalise: str = "all_pixels",
        offline: bool = False,
    ) -> None:
        super().__init__()
        self.frozen = Frozen(load_lpips(net, trunk, offline))
        self.region = check_region(region)
        self.normalise = check_normalise(normalise, region)

    def forward(self, inputs: LossInputs) -> Tensor:
        """The mean distance."""
        distances = self.frozen(inputs.picture("image", self.region), inputs.picture("target", self.region))
        return inputs.average(distances.flatten(), self.normalise)


def load_lpips(net: str = "alex", trunk: str | Path | None = None, offline: bool = False) -> nn.Module:
    """The LPIPS network, one object for each choice; called with two images in [-1, 1] it gives (B, 1, 1, 1).

    Its heads come with the ``lpips`` package; the trunk's ImageNet weights do not. They are taken from ``trunk``, or
    from torch's cache ($TORCH_HOME), or downloaded into it unless ``offline``.

    Raises:
        UserError: unknown net, package missing, or weights absent and not to be downloaded.
    """
    if net not in TRUNKS:
        raise UserError(f"lpips: net={net!r}, expected one of {', '.join(TRUNKS)}")
    # The cache must not tell offline from online: both mean the same network.
    if offline and trunk is None and not _cached(net).is_file():
        raise _absent(net, "offline=true, and it is not in torch's cache")
    return _load(net, None if trunk is None else str(trunk))


def _what(net: str) -> str:
    return f"the trunk of lpips, torchvision's {TRUNKS[net]}"


def _cached(net: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / TRUNKS[net]


def _absent(net: str, reason: str) -> UserError:
    return UserError(
        f"lpips: no ImageNet weights for {net} ({reason}); put {_URL}{TRUNKS[net]} at {_cached(net)}, or give "
        f"trunk=FILE, or use loss=embedded metrics=embedded, which need no download"
    )


@functools.cache
def _load(net: str, trunk: str | None) -> nn.Module:
    try:
        package = importlib.import_module("lpips")
    except ImportError:
        raise UserError("lpips: the package is not installed; pip install lpips, or use loss=embedded") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package uses arguments that torchvision has renamed
        # A random trunk: the package's own loading would download without a word.
        network: Any = package.LPIPS(net=net, pnet_rand=True, verbose=False)
    load_exactly(network.net, _trunk_state(net, trunk), trunk or _cached(net), _what(net), _torchvision_name)
    return network.eval().requires_grad_(False)


def _torchvision_name(name: str) -> str:
    """``slice2.3.weight`` (lpips cuts the trunk into slices, keeping layer numbers) -> ``features.3.weight``."""
    return "features." + name.split(".", 1)[1]


def _trunk_state(net: str, trunk: str | None) -> dict[str, Tensor]:
    if trunk is not None or _cached(net).is_file():
        return read_state(trunk or _cached(net), _what(net))
    try:
        return torch.hub.load_state_dict_from_url(
            _URL + TRUNKS[net], map_location="cpu", check_hash=True, progress=False
        )
    except (OSError, RuntimeError) as error:  # no network, proxy page instead of the file (wrong hash), full disk
        raise _absent(net, str(error)) from None
