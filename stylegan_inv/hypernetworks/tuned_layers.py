"""The layers of StyleGAN2's synthesis network whose weights a hypernetwork changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from stylegan_inv.errors import UserError
from stylegan_inv.generators.network_parts import NetworkParts
from stylegan_inv.utils.checks import one_of, whole_number

#: Names of sets of layers; the official names of HyperInverter's code are ``conv_without_bias_without_torgb``,
#: ``conv_without_bias`` and ``all_without_bias``.
LAYER_SETS = ("convolutions", "with_colours", "with_affines")


@dataclass(frozen=True)
class TunedLayer:
    """A weight that a hypernetwork changes.

    Attributes:
        name: Name of the parameter in the synthesis network, e.g. ``b8.conv0.weight``.
        number: Number of its layer in the order b4.conv1, b4.torgb, b8.conv0, b8.conv1, b8.torgb, …, which is
            HyperStyle's.
        feature: Number of the feature map that predicts it in HyperInverter: 0, 1 for b4.conv1 and b4.torgb; then each
            block adds one for conv0, and one for conv1 and torgb together. It is not the row of the code.
        shape: (out, in, k, k), or (out, in) of an affine transformation.
    """

    name: str
    number: int
    feature: int
    shape: tuple[int, ...]

    @property
    def is_convolution(self) -> bool:
        """Whether it is a 3x3 convolution."""
        return self.shape[2:] == (3, 3)

    @property
    def key(self) -> str:
        """The name in the keys of state dicts, e.g. ``b8_conv0_weight``."""
        return self.name.replace(".", "_")


def tuned_layers(synthesis: nn.Module, chosen: str | Sequence[int]) -> list[TunedLayer]:
    """Returns the layers that are changed, in the order of the network.

    Args:
        synthesis: Synthesis network of StyleGAN2.
        chosen: ``convolutions``, all 3x3 convolutions; ``with_colours``, and the ToRGB layers; ``with_affines``, and
            the affine transformations of both; or numbers of layers, see `TunedLayer`.

    Raises:
        UserError: The network is not that of StyleGAN2, an unknown name, or a number that it does not have.
    """
    if not isinstance(synthesis, NetworkParts) or not synthesis.styled_colours:
        raise UserError(f"method: {type(synthesis).__name__} has no modulated weights; give a StyleGAN2 generator")
    shapes = {name: tuple(p.shape) for name, p in synthesis.named_parameters()}
    found: list[TunedLayer] = []
    for number, layer in enumerate(synthesis.layer_names()):
        kind = layer.partition(".")[2]
        feature = number if number < 2 else 2 * ((number + 1) // 3) + (kind != "conv0")
        found.append(TunedLayer(f"{layer}.weight", number, feature, shapes[f"{layer}.weight"]))
        affine = f"{layer}.affine.weight"
        found.append(TunedLayer(affine, number, feature, shapes[affine]))
    weights = [layer for layer in found if ".affine." not in layer.name]
    if isinstance(chosen, str):
        if one_of("hypernetwork.layers", chosen, LAYER_SETS) == "with_affines":
            return found
        return weights if chosen == "with_colours" else [layer for layer in weights if layer.is_convolution]
    for number in chosen:
        whole_number("hypernetwork.layers", number, 0, len(weights) - 1, hint="the generator has no others")
    if not chosen:
        raise UserError(f"hypernetwork.layers={list(chosen)}: expected at least one number, or one of {LAYER_SETS}")
    return [layer for layer in weights if layer.number in chosen]
