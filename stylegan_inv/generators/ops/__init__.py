"""The three operations of StyleGAN2: resampling, bias with activation, modulated convolution.

Each is a function with a reference implementation in plain PyTorch. :mod:`.dispatch` selects a faster implementation,
and ``python -m stylegan_inv.generators.ops`` reports which one would run on this machine, and why.
"""

from __future__ import annotations

from stylegan_inv.generators.ops.bias_act import bias_act
from stylegan_inv.generators.ops.modulated_conv import (
    conv2d_resample,
    demodulation,
    modulated_conv2d,
    styled_conv2d,
    weight_squares,
)
from stylegan_inv.generators.ops.upfirdn2d import (
    FILTER_TAPS,
    downsample2d,
    filter2d,
    setup_filter,
    upfirdn2d,
    upsample2d,
)

__all__ = [
    "FILTER_TAPS",
    "bias_act",
    "conv2d_resample",
    "demodulation",
    "downsample2d",
    "filter2d",
    "modulated_conv2d",
    "setup_filter",
    "styled_conv2d",
    "upfirdn2d",
    "upsample2d",
    "weight_squares",
]
