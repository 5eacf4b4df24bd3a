"""What the encoders of the papers stand on: a stem and four groups of residual units, image -> four feature maps.

Official state dicts name the layers of a backbone and those of the heads side by side, without a prefix. A backbone is
therefore not a child of an encoder but its base class, filled with the layers that a recipe builds:
`irse.ir_se` or `resnet34.resnet34`, or one of yours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.generators.io.weight_files import read_weights
from stylegan_inv.weights.download import TABLE, fetch


@dataclass
class Layers:
    """The parts of a backbone.

    Attributes:
        in_channels: Channels of the input.
        stem: Layers before the body under their official names, in the order in which they run.
        groups: Four groups of residual units; together the stem and group i halve the input i + 1 times.
        channels: Of the map that each group ends with.
    """

    in_channels: int
    stem: dict[str, nn.Module]
    groups: list[list[nn.Module]]
    channels: tuple[int, ...]


class Backbone(nn.Module):
    """Image (B, C, H, W) -> maps of 1/2, 1/4, 1/8 and 1/16 of its size (rounded up)."""

    def __init__(self, layers: Layers) -> None:
        super().__init__()
        self.in_channels, self.channels = layers.in_channels, layers.channels
        for name, layer in layers.stem.items():
            self.add_module(name, layer)
        self.body = nn.Sequential(*(unit for group in layers.groups for unit in group))
        self.stem_names = tuple(layers.stem)
        self._last_units = frozenset(accumulate(len(group) for group in layers.groups))

    def maps(self, x: Tensor) -> list[Tensor]:
        """The four maps, finest first.

        Raises:
            UserError: the input has another number of axes or channels.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise UserError(
                f"the encoder got an input of shape {tuple(x.shape)}, expected (B, {self.in_channels}, H, W); "
                f"give it other images or set in_channels"
            )
        for name in self.stem_names:
            x = getattr(self, name)(x)
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
    """Four groups of ``unit(in_channels, out_channels, stride)``; the first unit of each carries the stride.

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
    """Fill a backbone from a file of a network for three-channel images; nothing in it is executed.

    An input of 6, 9, ... channels is taken for RGB images side by side: the first takes the weights of the file. With
    any other number (1 for sketches, 19 for label maps) it is no RGB image, and the stem stays as initialised (as pSp).

    Args:
        layers: Filled in place.
        path: Of the file, or its name in the weights table, which is downloaded once.
        first_conv: Name of the first convolution's weight.
        ignored: Beginning of the file's keys that belong to its own head.
        rename: Key in the file -> key here.
        absent: Keys that the file cannot have.
        extra_channels: Weights of the second and later images: ``zero`` or ``normal``.

    Raises:
        UserError: No such file, a broken one, or one of another network.
    """
    # ReStyle's code draws the extra weights from N(0, 1) ("normal"), ten times the scale at which PyTorch initialises
    # a 3x3 convolution of three channels: the second image drowns the first, and the units behind the stem see nothing
    # like what they were trained on. With zeros training starts from exactly the pretrained features.
    if extra_channels not in ("zero", "normal"):
        raise UserError(f"extra_channels={extra_channels!r}: expected 'zero' or 'normal'")
    if not (str(path) in TABLE or Path(path).expanduser().is_file()):
        raise UserError(
            f"{path}: no such file, expected pretrained weights; give their path, or a name (ir-se50, resnet34) to "
            f"download them, or pretrained=null"
        )
    content, _ = read_weights(fetch(path))
    state = {rename(key): value for key, value in content.items() if not key.startswith(ignored)}
    backbone = Backbone(layers)  # holds the same layers: loading into it fills them
    own = backbone.state_dict()
    absent = set(absent)
    if layers.in_channels % 3:
        stem = tuple(f"{name}." for name in backbone.stem_names)
        absent.update(key for key in own if key.startswith(stem))
        state = {key: value for key, value in state.items() if not key.startswith(stem)}
    elif layers.in_channels > 3 and isinstance(image := state.get(first_conv), Tensor):
        extra_shape = (image.shape[0], layers.in_channels - 3, *image.shape[2:])
        extra = torch.zeros(extra_shape) if extra_channels == "zero" else torch.randn(extra_shape)
        state[first_conv] = torch.cat([image, extra.to(image)], dim=1)
    _check(own, state, absent, path)
    backbone.load_state_dict(state, strict=False)


def _check(own: Mapping[str, Tensor], state: Mapping[str, Tensor], absent: set[str], path: str | Path) -> None:
    # Files of early PyTorch versions (torchvision's among them) do not count batches.
    needed = {key for key in own if key not in absent and not key.endswith("num_batches_tracked")}
    shapes = {
        f"{key} {tuple(value.shape)} instead of {tuple(own[key].shape)}"
        for key, value in state.items()
        if key in own and isinstance(value, Tensor) and value.shape != own[key].shape
    }
    found = {"missing": needed - state.keys(), "surplus": state.keys() - own.keys(), "shape": shapes}
    problems = [
        f"{what} {', '.join(sorted(keys)[:3])}{', ...' if len(keys) > 3 else ''} ({len(keys)})"
        for what, keys in found.items()
        if keys
    ]
    if problems:
        raise UserError(f"{path}: not the weights of this backbone, give another file: {'; '.join(problems)}")
