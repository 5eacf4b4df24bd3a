"""What pictures are compared by in per-image optimisation: feature maps, their distance and their style.

Unlike the terms of `compose`, which are averages over a batch, everything here is per image, (B,).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.encoders.face_network import perceptual_distance
from stylegan_inv.errors import UserError
from stylegan_inv.losses.compose import as_network
from stylegan_inv.losses.lpips import load_lpips
from stylegan_inv.losses.network_files import load_exactly, read_state
from stylegan_inv.utils.frozen_module import Frozen
from stylegan_inv.weights.download import TABLE

VGG16 = {
    "conv1_1": 0,
    "conv1_2": 2,
    "conv2_1": 5,
    "conv2_2": 7,
    "conv3_1": 10,
    "conv3_2": 12,
    "conv3_3": 14,
    "conv4_1": 17,
    "conv4_2": 19,
    "conv4_3": 21,
    "conv5_1": 24,
    "conv5_2": 26,
    "conv5_3": 28,
}
"""Place of each convolution in torchvision's ``vgg16().features``; its ReLU follows."""


class Features(nn.Module):
    """A frozen network that turns images (B, 3, H, W) in [-1, 1] into feature maps."""

    def maps(self, image: Tensor) -> list[Tensor]:
        """The maps that `distance` compares, (B, C, h, w) each."""
        raise NotImplementedError

    def distance(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """Perceptual distance (B,) of two results of `maps`: squared differences, averaged over each map, summed."""
        return torch.stack([(x - y).square().mean((1, 2, 3)) for x, y in zip(a, b, strict=True)]).sum(0)

    def style(self, image: Tensor) -> Tensor:
        """The map (B, C, h, w) whose Gram matrix is the image's style."""
        raise NotImplementedError


class EmbeddedFeatures(Features):
    """The embedded face network: see `perceptual_distance`; not VGG and not LPIPS.

    Args:
        network: name or file of a face network, or one.
        style_map: which of its four maps, finest first, carries style.
    """

    def __init__(self, network: nn.Module | str | Path = "face_train", style_map: int = 1) -> None:
        super().__init__()
        self.frozen = Frozen(as_network(network))
        self.style_map = style_map

    def maps(self, image: Tensor) -> list[Tensor]:  # noqa: D102
        return self.frozen.network.features(image)

    def distance(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:  # noqa: D102
        return perceptual_distance(a, b)

    def style(self, image: Tensor) -> Tensor:  # noqa: D102
        return self.maps(image)[self.style_map]


class Vgg16Features(Features):
    """VGG-16 on images of at most ``size`` pixels (Image2StyleGAN, section 5.1): outputs of ReLUs.

    Args:
        layers: convolutions whose outputs are compared. Image2StyleGAN: conv1_1, conv1_2, conv3_2, conv4_2;
            Image2StyleGAN++: conv1_1, conv1_2, conv2_2, conv3_3.
        style_layer: convolution whose output carries style.
        weights: file with torchvision's weights; None uses torch's cache or the weights table.
        size: larger images are averaged down to it.
        offline: never download; None: as ``weights.offline`` says.

    Raises:
        UserError: an unknown layer, or weights that are absent.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        layers: Sequence[str] = ("conv1_1", "conv1_2", "conv3_2", "conv4_2"),
        style_layer: str = "conv3_3",
        weights: str | Path | None = None,
        size: int = 256,
        offline: bool | None = None,
    ) -> None:
        super().__init__()
        unknown = [name for name in (*layers, style_layer) if name not in VGG16]
        if unknown or not layers:
            raise UserError(f"VGG-16 layer {unknown or list(layers)}: expected some of {', '.join(VGG16)}")
        self.layers, self.style_layer, self.size = tuple(layers), style_layer, size
        self.frozen = Frozen(_vgg16(weights, offline))
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)

    def maps(self, image: Tensor) -> list[Tensor]:  # noqa: D102
        return self._run(image, self.layers)

    def style(self, image: Tensor) -> Tensor:  # noqa: D102
        return self._run(image, (self.style_layer,))[0]

    def _run(self, image: Tensor, layers: Sequence[str]) -> list[Tensor]:
        x = ((_at_most(image, self.size) + 1) / 2 - self.mean) / self.std
        after, maps = [VGG16[name] + 1 for name in layers], {}
        for place, module in enumerate(self.frozen.network[: max(after) + 1]):
            x = module(x)
            if place in after:
                maps[place] = x
        return [maps[place] for place in after]


class LpipsFeatures(Features):
    """LPIPS as feature maps whose squared distance it is, so that the target's are computed once.

    Args:
        net: ``vgg`` (StyleGAN2's projector), ``alex`` (PTI) or ``squeeze``.
        trunk: file with the trunk's torchvision weights; None uses torch's cache or the weights table.
        size: larger images are averaged down to it (the projector: 256); None leaves them.
        offline: never download; None: as ``weights.offline`` says.
    """

    def __init__(
        self, net: str = "vgg", trunk: str | Path | None = None, size: int | None = 256, offline: bool | None = None
    ) -> None:
        super().__init__()
        self.frozen, self.size = Frozen(load_lpips(net, trunk, offline)), size

    def maps(self, image: Tensor) -> list[Tensor]:  # noqa: D102
        network, maps = self.frozen.network, []
        for tap, head in zip(self._taps(image), network.lins, strict=True):
            unit = tap / (tap.square().sum(1, keepdim=True).sqrt() + 1e-10)  # as the package does it
            maps.append(unit * head.model[-1].weight.clamp_min(0).sqrt() * tap.shape[1] ** 0.5)
        return maps

    def style(self, image: Tensor) -> Tensor:  # noqa: D102
        return self._taps(image)[2]

    def _taps(self, image: Tensor) -> Sequence[Tensor]:
        network = self.frozen.network
        x = image if self.size is None else _at_most(image, self.size)
        return network.net(network.scaling_layer(x))


def _at_most(image: Tensor, size: int) -> Tensor:
    return image if image.shape[-1] <= size else F.interpolate(image, size=(size, size), mode="area")


def _vgg16(weights: str | Path | None, offline: bool | None) -> nn.Sequential:
    from torchvision.models import vgg16

    features = vgg16(weights=None, init_weights=False).features
    cached = Path(torch.hub.get_dir()) / "checkpoints" / TABLE["vgg16"].file
    source = weights or (cached if cached.is_file() else "vgg16")
    what = f"torchvision's {TABLE['vgg16'].file}"
    load_exactly(features, read_state(source, what, offline), source, what, lambda name: f"features.{name}")
    for module in features:
        if isinstance(module, nn.ReLU):
            module.inplace = False  # what goes into it is wanted, too
    return features
