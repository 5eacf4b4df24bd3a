"""The interfaces that encoders declare."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stylegan_inv.encoders import FPNEncoder, LastLayerEncoder, SingleLevelEncoder, SingleWEncoder, SmallEncoder, ir_se
from stylegan_inv.encoders.base import Encoder, ProgressiveEncoder


def small(in_channels: int) -> object:
    return ir_se(in_channels, channels=(4, 4, 4, 8), units=(1, 1, 1, 1))


ENCODERS = {
    FPNEncoder: {"backbone": small, "resolution": 32},
    SingleLevelEncoder: {"backbone": small, "resolution": 32},
    LastLayerEncoder: {"backbone": small},
    SingleWEncoder: {"backbone": small},
    SmallEncoder: {"width": 4},
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoders_declare_their_sizes(kind: type[nn.Module]) -> None:
    encoder = kind(6, 5, 3, **ENCODERS[kind]).eval()
    assert isinstance(encoder, Encoder)
    assert (encoder.num_ws, encoder.w_dim, encoder.in_channels) == (6, 5, 3)
    assert encoder(torch.zeros(2, 3, 32, 32)).shape == (2, 6, 5)


@pytest.mark.parametrize("kind", ENCODERS)
def test_progressive_encoders_have_stages(kind: type[nn.Module]) -> None:
    progressive = kind in (FPNEncoder, SingleLevelEncoder, SmallEncoder)
    options = {**ENCODERS[kind], "progressive": True} if progressive else ENCODERS[kind]
    encoder = kind(6, 5, 3, **options).eval()
    assert isinstance(encoder, ProgressiveEncoder) == progressive
    if isinstance(encoder, ProgressiveEncoder):
        encoder.set_stage(0)
        codes = encoder(torch.randn(1, 3, 32, 32))  # type: ignore[operator]
        assert torch.equal(codes, codes[:, :1].expand_as(codes))
