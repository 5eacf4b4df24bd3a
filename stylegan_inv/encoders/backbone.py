"""The backbone of the papers' encoders: a stem and four groups of residual units, which give four feature maps.

In official state dicts the layers of the backbone and of the heads have no prefix. A backbone is therefore the base
class of an encoder, not one of its submodules. Its layers come from a function: `irse.ir_se`,
`resnet_backbone.resnet34` or your own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.generators.io.layouts import shown
from stylegan_inv.generators.io.weight_files import network_state, read_weights, unusable_values
from stylegan_inv.utils.checks import one_of
from stylegan_inv.weights.download import fetch
from stylegan_inv.weights.table import TABLE


@dataclass
class Layers:
    """The layers of a backbone.

    Attributes:
        in_channels: Channels of the input.
        stem: Layers before the groups by their official names, in the order of execution.
        groups: Four groups of residual units. The map of group i = 0 ... 3 has 1 / 2^(i + 1) of the input's size.
        channels: Channels of the last map of each group.
    """

    in_channels: int
    stem: dict[str, nn.Module]
    groups: list[list[nn.Module]]
    channels: tuple[int, ...]


class Backbone(nn.Module):
    """Maps images ``(B, C, H, W)`` to feature maps of 1/2, 1/4, 1/8 and 1/16 of their size, rounded up.

    Args:
        layers: The layers.
    """

    def __init__(self, layers: Layers) -> None:
        super().__init__()
        self.in_channels, self.channels = layers.in_channels, layers.channels
        for name, layer in layers.stem.items():
            self.add_module(name, layer)
        self.body = nn.Sequential(*(unit for group in layers.groups for unit in group))
        self.stem_names = tuple(layers.stem)
        self._last_units = frozenset(accumulate(len(group) for group in layers.groups))

    def maps(self, x: Tensor) -> list[Tensor]:
        """Returns the four feature maps, the finest first.

        Raises:
            UserError: An input with another number of axes or channels.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise UserError(
                f"the encoder got an input of shape {tuple(x.shape)}, expected (B, {self.in_channels}, H, W); "
                f"give other images, or method.in_channels"
            )
        for name in self.stem_names:
            x = self.get_submodule(name)(x)
        maps = []
        for number, unit in enumerate(self.body, start=1):
            x = unit(x)
            if number in self._last_units:
                maps.append(x)
        return maps


def residual_groups(
    unit: Callable[[int, int, int], nn.Module],
    in_channels: int,
    channels: Sequence[int],
    units: Sequence[int],
    first_stride: int,
) -> list[list[nn.Module]]:
    """Builds four groups of residual units.

    Args:
        unit: Builds a unit from its input channels, output channels and stride.
        in_channels: Channels of the input.
        channels: Channels of each group.
        units: Number of units in each group.
        first_stride: Stride of the first group; that of the others is 2. The first unit of a group has the stride.

    Raises:
        UserError: ``channels`` or ``units`` are not four positive numbers.
    """
    for name, values in (("channels", channels), ("units", units)):
        if len(values) != 4 or min(values) < 1:
            raise UserError(f"{name}={list(values)}: expected four positive numbers, one for each group")
    groups = []
    for out_channels, count, stride in zip(channels, units, (first_stride, 2, 2, 2), strict=True):
        strides = [stride] + [1] * (count - 1)
        inputs = [in_channels] + [out_channels] * (count - 1)
        groups.append([unit(i, out_channels, s) for i, s in zip(inputs, strides, strict=True)])
        in_channels = out_channels
    return groups


def start_from(
    layers: Layers,
    path: str | Path,
    *,
    first_conv: str,
    ignored: str,
    rename: Callable[[str], str] = str,
    absent: Iterable[str] = (),
    extra_channels: str = "zero",
) -> None:
    """Initialises a backbone with the weights of a network for RGB images.

    An input of 6, 9, ... channels is a concatenation of RGB images, the first of which gets the weights of the file.
    With another number of channels (1 for sketches, 19 for label maps) the stem keeps its initialisation, as in pSp.

    Args:
        layers: Layers of the backbone, initialised in place.
        path: The file, or its name in the weights table, which is downloaded once.
        first_conv: Name of the first convolution's weight.
        ignored: Prefix of keys of the file's own head.
        rename: Converts a key of the file to a key of the backbone.
        absent: Keys that the file does not contain.
        extra_channels: Weights of the second and further images: ``zero`` or ``normal``.

    Raises:
        UserError: No such file, a damaged one, or one of another network.
    """
    # ReStyle's code draws the extra weights from N(0, 1) ("normal"), ten times the scale of PyTorch's initialisation of
    # a 3x3 convolution of three channels. The second image then dominates, and the pretrained units get inputs unlike
    # those of their training. With zeros, training starts from the pretrained features.
    one_of("extra_channels", extra_channels, ("zero", "normal"))
    if not (str(path) in TABLE or Path(path).expanduser().is_file()):
        raise UserError(
            f"{path}: no such file, expected pretrained weights; give their path, a name to download (ir-se50, "
            f"resnet34), or encoder.backbone.pretrained=null"
        )
    content, _ = read_weights(fetch(path))
    try:
        state = {rename(key): value for key, value in network_state(content).items() if not key.startswith(ignored)}
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    backbone = Backbone(layers)  # shares the layers, so loading its state dict initialises them
    own = backbone.state_dict()
    absent = set(absent)
    if layers.in_channels % 3:
        stem = tuple(f"{name}." for name in backbone.stem_names)
        absent.update(key for key in own if key.startswith(stem))
        state = {key: value for key, value in state.items() if not key.startswith(stem)}
    elif layers.in_channels > 3 and (image := state.get(first_conv)) is not None and image.ndim == 4:
        extra_shape = (image.shape[0], layers.in_channels - 3, *image.shape[2:])
        extra = torch.zeros(extra_shape) if extra_channels == "zero" else torch.randn(extra_shape)
        state[first_conv] = torch.cat([image, extra.to(image)], dim=1)
    _check(own, state, absent, path)
    backbone.load_state_dict(state, strict=False)


def _check(own: Mapping[str, Tensor], state: Mapping[str, Tensor], absent: set[str], path: str | Path) -> None:
    # Files of early PyTorch versions, among them torchvision's, have no counters of batch norm.
    needed = {key for key in own if key not in absent and not key.endswith("num_batches_tracked")}
    shapes = {
        f"{key} {tuple(value.shape)} instead of {tuple(own[key].shape)}"
        for key, value in state.items()
        if key in own and value.shape != own[key].shape
    }
    found = {"missing": needed - state.keys(), "unexpected": state.keys() - own.keys(), "shape": shapes}
    problems = [
        f"{what} {', '.join(map(shown, sorted(keys)[:3]))}{', ...' if len(keys) > 3 else ''} ({len(keys)})"
        for what, keys in found.items()
        if keys
    ]
    if problems:
        raise UserError(f"{path}: expected the weights of this backbone: {'; '.join(problems)}")
    if values := unusable_values(own, state):
        raise UserError(f"{path}: {values[0]}")
