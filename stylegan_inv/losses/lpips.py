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
from stylegan_inv.losses.compose import LossInputs, check_region

TRUNKS = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
"""Files with torchvision's ImageNet weights, as torch names them in its cache."""


class LPIPS(nn.Module):
    """Batch mean of LPIPS, images in [-1, 1] (pSp, equation 3).

    Args:
        net: ``alex`` (the papers), ``vgg`` or ``squeeze``.
        trunk: file with the trunk's torchvision weights; None uses torch's cache or downloads.
        region: ``whole`` or ``interest`` (both images multiplied by the mask).
    """

    def __init__(self, net: str = "alex", trunk: str | Path | None = None, region: str = "whole") -> None:
        super().__init__()
        self.frozen = Frozen(load_lpips(net, trunk))
        self.region = check_region(region)

    def forward(self, inputs: LossInputs) -> Tensor:
        """The mean distance."""
        return self.frozen(inputs.picture("image", self.region), inputs.picture("target", self.region)).mean()


def load_lpips(net: str = "alex", trunk: str | Path | None = None) -> nn.Module:
    """The LPIPS network, one object for each choice; called with two images in [-1, 1] it gives (B, 1, 1, 1).

    Its heads come with the ``lpips`` package; the trunk's ImageNet weights do not. They are taken from ``trunk``, or
    from torch's cache ($TORCH_HOME), or downloaded into it.

    Raises:
        UserError: unknown net, package missing, or weights absent and not to be downloaded.
    """
    if net not in TRUNKS:
        raise UserError(f"lpips: net={net!r}, expected one of {', '.join(TRUNKS)}")
    return _load(net, None if trunk is None else str(trunk))


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
    trunk_state = _trunk_state(net, trunk)
    wanted = {name: _torchvision_name(name) for name in network.net.state_dict()}
    missing = sorted(set(wanted.values()) - set(trunk_state))
    if missing:
        raise UserError(f"lpips: {trunk} lacks {missing[0]} and {len(missing) - 1} more; expected torchvision's {net}")
    network.net.load_state_dict({name: trunk_state[source] for name, source in wanted.items()})
    return network.eval().requires_grad_(False)


def _torchvision_name(name: str) -> str:
    """``slice2.3.weight`` (lpips cuts the trunk into slices, keeping layer numbers) -> ``features.3.weight``."""
    return "features." + name.split(".", 1)[1]


def _trunk_state(net: str, trunk: str | None) -> dict[str, Tensor]:
    if trunk is not None:
        if not Path(trunk).is_file():
            raise UserError(f"lpips: trunk={trunk}: no such file; give torchvision's {TRUNKS[net]}")
        return torch.load(trunk, map_location="cpu", weights_only=True)
    url = f"https://download.pytorch.org/models/{TRUNKS[net]}"
    try:
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, progress=False)
    except (OSError, RuntimeError) as error:  # no network, proxy page instead of the file (wrong hash), full disk
        cached = Path(torch.hub.get_dir()) / "checkpoints" / TRUNKS[net]
        raise UserError(
            f"lpips: no ImageNet weights for {net} ({error}); put {url} at {cached}, or give trunk=FILE, "
            f"or use loss=embedded metrics=embedded, which need no download"
        ) from None
