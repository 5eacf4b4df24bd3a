"""Feature maps that per-image optimisation compares images by, with their distance and their style.

The terms of `compose` are averaged over a batch; all values of this module are per image, (B,).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.encoders.face_network import perceptual_distance, perceptual_distance_maps
from stylegan_inv.errors import UserError
from stylegan_inv.losses.feature_networks import as_network
from stylegan_inv.losses.lpips import load_lpips, torch_cache
from stylegan_inv.losses.network_files import load_exactly, read_state
from stylegan_inv.utils.domains import domain_of
from stylegan_inv.utils.frozen_module import Frozen
from stylegan_inv.weights.table import TABLE

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
"""Index of each convolution in torchvision's ``vgg16().features``; its ReLU has the next index."""


class Features(nn.Module):
    """Base class: a frozen network that maps images (B, 3, H, W) in [-1, 1] to feature maps."""

    @property
    def domain(self) -> str | None:
        """Domain of the network; None for any."""
        return None

    def maps(self, image: Tensor) -> list[Tensor]:
        """Returns the feature maps that `distance` compares, (B, C, h, w) each."""
        raise NotImplementedError

    def distance(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """Returns the perceptual distance (B,) of two results of `maps`: the sum over the maps of the mean squares."""
        return torch.stack([(x - y).square().mean((1, 2, 3)) for x, y in zip(a, b, strict=True)]).sum(0)

    def distance_maps(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> list[Tensor]:
        """Returns the distance at each position of each map, (B, 1, h, w); the sum of their means is `distance`."""
        return [(x - y).square().mean(1, keepdim=True) for x, y in zip(a, b, strict=True)]

    def style(self, image: Tensor) -> Tensor:
        """Returns the feature map (B, C, h, w) whose Gram matrix represents the style of the image."""
        raise NotImplementedError


class EmbeddedFeatures(Features):
    """Feature maps of the embedded face network (see `perceptual_distance`). They are neither VGG nor LPIPS.

    Args:
        network: A face network, or its name or file.
        style_map: Index of the map, finest first, that represents the style.
    """

    def __init__(self, network: nn.Module | str | Path = "face_train", style_map: int = 1) -> None:
        super().__init__()
        self.frozen = Frozen(as_network(network))
        self.style_map = style_map

    @property
    def domain(self) -> str | None:
        """Domain of the network; None for any."""
        return domain_of(self.frozen.network)

    def maps(self, image: Tensor) -> list[Tensor]:  # noqa: D102
        maps: list[Tensor] = self.frozen.network.features(image)
        return maps

    def distance(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:  # noqa: D102
        return perceptual_distance(a, b)

    def distance_maps(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> list[Tensor]:  # noqa: D102
        return [distance / len(a) for distance in perceptual_distance_maps(a, b)]

    def style(self, image: Tensor) -> Tensor:  # noqa: D102
        return self.maps(image)[self.style_map]


class Vgg16Features(Features):
    """ReLU outputs of VGG-16 on images of at most ``size`` pixels (Image2StyleGAN, section 5.1).

    Args:
        layers: Convolutions whose outputs are compared. Image2StyleGAN: conv1_1, conv1_2, conv3_2, conv4_2;
            Image2StyleGAN++: conv1_1, conv1_2, conv2_2, conv3_3.
        style_layer: Convolution whose output represents the style.
        weights: File with torchvision's weights; None uses torch's cache or the weights table.
        size: Larger images are averaged down to this size.
        offline: If True, nothing is downloaded; None uses ``weights.offline``.

    Raises:
        UserError: A layer is unknown, or the weights are absent.
    """

    domain: str | None = None
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
        network = _vgg16(weights, offline)
        # Two extractors, because each stops at the last layer that it returns.
        self.frozen = Frozen(_extractor(network, self.layers))
        self.frozen_style = Frozen(_extractor(network, (style_layer,)))
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)

    def maps(self, image: Tensor) -> list[Tensor]:  # noqa: D102
        found: dict[str, Tensor] = self.frozen(self._normalised(image))
        return [found[name] for name in self.layers]

    def style(self, image: Tensor) -> Tensor:  # noqa: D102
        found: dict[str, Tensor] = self.frozen_style(self._normalised(image))
        return found[self.style_layer]

    def _normalised(self, image: Tensor) -> Tensor:
        return ((_at_most(image, self.size) + 1) / 2 - self.mean) / self.std


class LpipsFeatures(Features):
    """LPIPS as feature maps whose squared distance equals it, so that the maps of a target are computed once.

    Args:
        net: ``vgg`` (StyleGAN2's projector), ``alex`` (PTI) or ``squeeze``.
        trunk: File with torchvision's weights of the backbone; None uses torch's cache or the weights table.
        size: Larger images are averaged down to this size (the projector: 256); None keeps them.
        offline: If True, nothing is downloaded; None uses ``weights.offline``.
    """

    domain: str | None = None

    def __init__(
        self, net: str = "vgg", trunk: str | Path | None = None, size: int | None = 256, offline: bool | None = None
    ) -> None:
        super().__init__()
        self.frozen, self.size = Frozen(load_lpips(net, trunk, offline)), size

    def maps(self, image: Tensor) -> list[Tensor]:  # noqa: D102
        network, maps = self.frozen.network, []
        for activation, head in zip(self._activations(image), network.lins, strict=True):
            # Same epsilon as in the lpips package.
            unit = activation / (activation.square().sum(1, keepdim=True).sqrt() + 1e-10)
            maps.append(unit * head.model[-1].weight.clamp_min(0).sqrt() * activation.shape[1] ** 0.5)
        return maps

    def style(self, image: Tensor) -> Tensor:  # noqa: D102
        return self._activations(image)[2]

    def _activations(self, image: Tensor) -> Sequence[Tensor]:
        network = self.frozen.network
        x = image if self.size is None else _at_most(image, self.size)
        activations: Sequence[Tensor] = network.net(network.scaling_layer(x))
        return activations


def _at_most(image: Tensor, size: int) -> Tensor:
    return image if image.shape[-1] <= size else F.interpolate(image, size=(size, size), mode="area")


def _vgg16(weights: str | Path | None, offline: bool | None) -> nn.Module:
    from torchvision.models import vgg16

    features: nn.Module = vgg16(weights=None, init_weights=False).features
    source = weights or torch_cache("vgg16") or "vgg16"
    what = f"torchvision's {TABLE['vgg16'].file}"
    load_exactly(features, read_state(source, what, offline), source, what, lambda name: f"features.{name}")
    return features.eval()


def _extractor(network: nn.Module, layers: Sequence[str]) -> nn.Module:
    """Returns a module that maps an image to a dict: name of a convolution -> output of its ReLU."""
    from torchvision.models.feature_extraction import create_feature_extractor

    extractor: nn.Module = create_feature_extractor(network, {str(VGG16[name] + 1): name for name in layers})
    return extractor
