"""Infers the class and the sizes of the papers' encoders from the names and shapes of a state dict.

The encoders of pSp and e4e have the same weights, so e4e's progressive rule cannot be inferred.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from torch import Tensor

from stylegan_inv.encoders.backbone import Backbone, Layers
from stylegan_inv.encoders.fpn import FPNEncoder
from stylegan_inv.encoders.irse import ir_se
from stylegan_inv.encoders.last_layer import LastLayerEncoder
from stylegan_inv.encoders.single_level import SingleLevelEncoder
from stylegan_inv.encoders.single_w import SingleWEncoder
from stylegan_inv.errors import UserError

#: A generator of 8192 px has 24.
_MOST_STYLES = 64
#: A map2style block of an image of 8192 px has 9 or more convolutions, depending on its map.
_MOST_CONVS = 12


@dataclass(frozen=True)
class EncoderGeometry:
    """The class and the sizes of an encoder.

    Attributes:
        head: ``fpn``, ``single_level``, ``last_layer``, ``single_w``, or ``none`` for a backbone or a face network.
        backbone: ``ir_se`` or ``resnet34``.
        in_channels: Channels of the input; 6 for ReStyle.
        channels: Channels of the four groups of units.
        units: Number of units in each group.
        se: Whether the units have squeeze and excitation.
        num_ws: Number L of styles; None if the weights are the same for any number (``single_w``).
        w_dim: Size D of a style.
        resolution: Largest image size that fits, in pixels; None for heads that accept any size.
    """

    head: str
    backbone: str
    in_channels: int
    channels: tuple[int, ...]
    units: tuple[int, ...]
    se: bool
    num_ws: int | None
    w_dim: int
    resolution: int | None

    @property
    def may_be_progressive(self) -> bool:
        """Whether the encoder may follow e4e's progressive rule."""
        return self.head in ("fpn", "single_level")

    def build(self, num_ws: int, progressive: bool = False) -> Backbone:
        """Builds the encoder, with random weights.

        Args:
            num_ws: Number L of styles.
            progressive: Whether it follows e4e's progressive rule.
        """
        backbone: Callable[..., Layers] = partial(ir_se, channels=self.channels, units=self.units, se=self.se)
        if self.backbone == "resnet34":
            from stylegan_inv.encoders.resnet_backbone import resnet34  # torchvision takes seconds to import

            backbone = partial(resnet34, channels=self.channels, units=self.units)
        sizes = (num_ws, self.w_dim, self.in_channels)
        if self.head == "single_w":
            return SingleWEncoder(*sizes, backbone=backbone)
        if self.head == "last_layer":
            return LastLayerEncoder(*sizes, backbone=backbone)
        kind = FPNEncoder if self.head == "fpn" else SingleLevelEncoder
        return kind(*sizes, backbone=backbone, resolution=self.resolution or 256, progressive=progressive)


def infer_encoder(state: Mapping[str, Tensor]) -> EncoderGeometry:
    """Infers the class and the sizes of an encoder from its state dict.

    Raises:
        UserError: The state dict of another network.
    """
    if "input_layer.0.weight" in state:
        backbone, first, unit = "ir_se", "input_layer.0.weight", "res_layer.1.weight"
    elif "conv1.weight" in state and "relu.weight" in state:
        backbone, first, unit = "resnet34", "conv1.weight", "conv1.weight"
    else:
        raise UserError("contains none of the papers' encoders: expected input_layer.0.weight or conv1.weight")
    count = 1 + max((int(m[1]) for key in state if (m := re.match(r"body\.(\d{1,4})\.", key))), default=-1)
    widths = [_shape(state, f"body.{i}.{unit}", 4)[0] for i in range(count)]
    groups = [(width, len(list(members))) for width, members in groupby(widths)]
    if len(groups) != 4:
        raise UserError(f"has an encoder whose {count} units have the widths {[w for w, _ in groups]}, expected four")
    head, num_ws, w_dim = _head(state)
    convs = {m[1] for key in state if (m := re.match(r"styles\.0\.convs\.(\d+)\.weight", key))}
    if len(convs) > _MOST_CONVS:
        raise UserError(f"has an encoder of {len(convs)} convolutions for a style, expected at most {_MOST_CONVS}")
    return EncoderGeometry(
        head=head,
        backbone=backbone,
        in_channels=_shape(state, first, 4)[1],
        channels=tuple(width for width, _ in groups),
        units=tuple(length for _, length in groups),
        se=any(key.endswith("res_layer.5.fc1.weight") for key in state),
        num_ws=num_ws,
        w_dim=w_dim,
        # Each convolution halves the map, which is 1/16 of the image, until one pixel is left.
        resolution=16 << len(convs) if convs else None,
    )


def _head(state: Mapping[str, Tensor]) -> tuple[str, int | None, int]:
    styles = {int(m[1]) for key in state if (m := re.match(r"styles\.(\d{1,4})\.", key))}
    if styles:
        if max(styles) >= _MOST_STYLES:
            raise UserError(f"has an encoder of {1 + max(styles)} styles, expected at most {_MOST_STYLES}")
        head = "fpn" if "latlayer1.weight" in state else "single_level"
        return head, 1 + max(styles), _shape(state, "styles.0.linear.weight", 2)[0]
    if "linear.weight" not in state:
        return "none", None, 512
    rows, w_dim = _shape(state, "linear.weight", 2)
    if "output_layer_2.3.weight" in state:
        return "last_layer", rows // max(w_dim, 1), w_dim
    return "single_w", None, rows


def _shape(state: Mapping[str, Tensor], key: str, ndim: int) -> tuple[int, ...]:
    if key not in state or state[key].ndim != ndim or not state[key].numel():
        found = "no such key" if key not in state else f"shape {tuple(state[key].shape)}"
        raise UserError(f"contains none of the papers' encoders: {key}: {found}, expected {ndim} axes")
    return tuple(state[key].shape)
