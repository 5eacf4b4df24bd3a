"""A residual network on two concatenated feature maps: StyleFeatureEditor's fuser and feature editor.

Paper: "The Devil is in the Details: StyleFeatureEditor for Detail-Rich StyleGAN Inversion and High Quality Image
Editing" (Bobkov et al., CVPR 2024, arXiv 2406.10601). Official class: ``ContentLayerDeepFast``
(ControlGenAI/StyleFeatureEditor, models/psp/encoders/psp_encoders.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import whole_number


class ResidualUnit(nn.Module):
    """``x + BN(conv(PReLU(BN(conv(BN(x))))))`` with 3x3 convolutions.

    Args:
        channels: Channels of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, C, h, w)`` to the same shape."""
        residual: Tensor = self.body(x)
        return x + residual


class FeatureFusion(nn.Module):
    """Maps two feature maps of C channels to one: a 1x1 convolution, then residual units.

    Args:
        channels: Channels C of each map.
        units: Number of residual units. Official code: 5.
    """

    def __init__(self, channels: int, units: int = 5) -> None:
        super().__init__()
        whole_number("units", units)
        self.channels = channels
        self.conv = nn.Conv2d(2 * channels, channels, 1)
        self.body = nn.Sequential(*(ResidualUnit(channels) for _ in range(units)))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Maps two maps ``(B, C, h, w)`` to one."""
        fused: Tensor = self.body(self.conv(concatenated(first, second, self.channels)))
        return fused


class SmallFeatureFusion(nn.Module):
    """The same for the embedded world: few channels, no batch norm, and a starting point.

    ``x = u first + v second + f(first, second)``, where f is a convolutional network that starts at zero.

    Args:
        channels: Channels C of each map.
        initial: The factors u and v: what an untrained network returns.
        width: Channels of the convolutions.
        units: Number of 3x3 convolutions.
        gain: Factor of f. Adam changes every weight by about the learning rate, so it determines how fast maps change.
    """

    def __init__(
        self, channels: int, initial: Sequence[float], width: int = 48, units: int = 2, gain: float = 1.0
    ) -> None:
        super().__init__()
        whole_number("units", units)
        self.channels, self.initial, self.gain = channels, (initial[0], initial[1]), gain
        layers: list[nn.Module] = [nn.Conv2d(2 * channels, width, 1)]
        for _ in range(units):
            layers += [nn.Conv2d(width, width, 3, 1, 1), nn.PReLU(width)]
        last = nn.Conv2d(width, channels, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.body = nn.Sequential(*layers, last)
        self.to(memory_format=torch.channels_last)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Maps two maps ``(B, C, h, w)`` to one."""
        change: Tensor = self.body(concatenated(first, second, self.channels))
        u, v = self.initial
        return u * first + v * second + self.gain * change


def concatenated(first: Tensor, second: Tensor, channels: int) -> Tensor:
    """Returns two feature maps of C channels as one ``(B, 2 C, h, w)``.

    Raises:
        UserError: Maps of other channels or of different shapes.
    """
    if first.shape != second.shape or first.shape[1] != channels:
        got = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise UserError(f"got feature maps {got}, expected two (B, {channels}, h, w)")
    return torch.cat([first, second], dim=1)
