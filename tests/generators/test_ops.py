"""The operations against their definitions, and their derivatives against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from stylegan_inv.errors import UserError
from stylegan_inv.generators import ops


def brute_force(x, f, up, down, padding, flip, gain):
    """The definition of upfirdn2d, pixel by pixel: zero insertion, padding, filter, downsampling."""
    x, f = x.numpy(), np.outer(f, f) if f.ndim == 1 else f.numpy()
    if not flip:
        f = f[::-1, ::-1]
    b, c, h, w = x.shape
    (ux, uy), (dx, dy), (x0, x1, y0, y1) = up, down, padding
    big = np.zeros((b, c, h * uy, w * ux))
    big[:, :, ::uy, ::ux] = x
    big = np.pad(big, ((0, 0), (0, 0), (max(y0, 0), max(y1, 0)), (max(x0, 0), max(x1, 0))))
    big = big[:, :, max(-y0, 0) : big.shape[2] - max(-y1, 0), max(-x0, 0) : big.shape[3] - max(-x1, 0)]
    fh, fw = f.shape
    out = np.zeros((b, c, big.shape[2] - fh + 1, big.shape[3] - fw + 1))
    for oy in range(out.shape[2]):
        for ox in range(out.shape[3]):
            out[:, :, oy, ox] = (big[:, :, oy : oy + fh, ox : ox + fw] * f).sum(axis=(2, 3))
    return torch.from_numpy(gain * out[:, :, ::dy, ::dx])


CASES = [
    ((1, 1), (1, 1), (1, 2, 2, 1), False, 1.0),
    ((2, 2), (1, 1), (2, 1, 2, 1), False, 4.0),
    ((1, 1), (2, 2), (1, 1, 1, 1), True, 1.0),
    ((2, 1), (1, 3), (3, 0, -1, 4), True, 0.5),
    ((3, 2), (2, 3), (2, 3, 4, 1), False, 2.0),
    ((2, 2), (1, 1), (-1, 5, 6, -2), False, 1.0),
    ((1, 1), (1, 1), (-2, 1, 0, -1), False, 1.0),
    ((1, 1), (1, 1), (9, -7, -8, 11), False, 1.0),  # crops reach the zeros of the other side
]
FILTERS = {
    "1d-short": torch.tensor([1.0, 3.0, 2.0]),
    "1d-long": torch.tensor([1.0, -2.0, 3.0, 0.5, 4.0]),
    "2d": torch.tensor([[1.0, 2.0, -1.0], [0.5, 3.0, 2.5]]),
}


@pytest.mark.parametrize("f", FILTERS.values(), ids=FILTERS.keys())
@pytest.mark.parametrize("case", CASES, ids=str)
def test_upfirdn2d_equals_its_definition(case, f):
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    f = f.double()
    up, down, padding, flip, gain = case
    got = ops.upfirdn2d(x, f, up, down, padding, flip, gain)
    torch.testing.assert_close(got, brute_force(x, f, up, down, padding, flip, gain))
    nhwc = ops.upfirdn2d(x.contiguous(memory_format=torch.channels_last), f, up, down, padding, flip, gain)
    torch.testing.assert_close(nhwc, got)


@pytest.mark.parametrize("f", FILTERS.values(), ids=FILTERS.keys())
@pytest.mark.parametrize("case", CASES[:6:2] + CASES[1:6:4], ids=str)
def test_upfirdn2d_derivatives(case, f):
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    up, down, padding, flip, gain = case

    def function(x):
        return ops.upfirdn2d(x, f, up, down, padding, flip, gain)

    assert gradcheck(function, x)
    assert gradgradcheck(function, x)
    # linear, so its second derivative vanishes; of the square it does not
    assert gradgradcheck(lambda x: function(x).square(), x)


def test_resampling_sizes_and_means():
    f = ops.setup_filter()
    x = torch.full((1, 2, 8, 6), 0.7)
    up, down, same = ops.upsample2d(x, f), ops.downsample2d(x, f), ops.filter2d(x, f)
    assert (up.shape[2:], down.shape[2:], same.shape[2:]) == ((16, 12), (4, 3), (8, 6))
    for y in (up, down, same):  # away from the border a constant stays
        torch.testing.assert_close(y[..., 2:-2, 2:-2], torch.full_like(y[..., 2:-2, 2:-2], 0.7))


def test_upsampling_weights():
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 1, 1] = 16
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    torch.testing.assert_close(ops.upsample2d(x, ops.setup_filter())[0, 0, 1:5, 1:5], torch.outer(taps, taps))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"up": 0}, "up=0: expected a positive integer"),
        ({"down": (1, 2, 3)}, r"down=\(1, 2, 3\): expected"),
        ({"padding": (1, 2, 3)}, r"padding=\(1, 2, 3\): expected"),
        ({"padding": -4}, "leaves no pixels"),
        ({"impl": "cuda"}, "unknown implementation 'cuda'"),
    ],
)
def test_upfirdn2d_errors(kwargs, message):
    with pytest.raises(UserError, match=message):
        ops.upfirdn2d(torch.zeros(1, 1, 4, 4), ops.setup_filter(), **kwargs)


@pytest.mark.parametrize("act", ["lrelu", "linear", "swish"])
def test_bias_act_derivatives(act):
    x = torch.randn(3, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    b = torch.randn(4, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x, b: ops.bias_act(x, b, act=act, clamp=1.1), (x, b))
    assert gradgradcheck(lambda x, b: ops.bias_act(x, b, act=act, clamp=1.1), (x, b))


def test_bias_act_errors():
    with pytest.raises(UserError, match="act='gelu': unknown activation"):
        ops.bias_act(torch.zeros(1, 2), act="gelu")
    with pytest.raises(UserError, match=r"bias of shape \(3,\) does not fit axis 1"):
        ops.bias_act(torch.zeros(1, 2), torch.zeros(3))


def per_sample(x, weight, styles, up, f, eps):
    """The definition: one modulated, demodulated weight for each sample."""
    out = []
    for image, s in zip(x, styles, strict=True):
        w = weight * s[None, :, None, None]
        w = w / (w.square().sum(dim=(1, 2, 3), keepdim=True) + eps).sqrt()
        if up == 1:
            y = torch.nn.functional.conv2d(image[None], w, padding=1)
        else:
            y = torch.nn.functional.conv_transpose2d(image[None], w.transpose(0, 1), stride=2)
            y = brute_force(y, f, (1, 1), (1, 1), (1, 1, 1, 1), False, 4.0)
        out.append(y)
    return torch.cat(out)


@pytest.mark.parametrize("up", [1, 2])
def test_styled_conv2d_equals_its_definition(up):
    x = torch.randn(3, 4, 6, 6, dtype=torch.float64)
    weight = torch.randn(5, 4, 3, 3, dtype=torch.float64)
    styles, bias = torch.randn(3, 4, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    noise = torch.randn(3, 1, 6 * up, 6 * up, dtype=torch.float64)
    f = ops.setup_filter().double()
    want = per_sample(x, weight, styles, up, f, 0.3) + noise + bias[:, None, None]
    want = (torch.nn.functional.leaky_relu(want, 0.2) * math.sqrt(2)).clamp(-1.5, 1.5)
    kwargs = {"noise": noise, "up": up, "resample_filter": f, "demod_eps": 0.3, "clamp": 1.5}
    torch.testing.assert_close(ops.styled_conv2d(x, weight, styles, bias, **kwargs), want)
    squares = ops.weight_squares(weight)
    torch.testing.assert_close(ops.styled_conv2d(x, weight, styles, bias, squares=squares, **kwargs), want)


@pytest.mark.parametrize("up", [1, 2])
def test_styled_conv2d_derivatives(up):
    def leaf(*shape):
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    inputs = (leaf(2, 2, 3, 3), leaf(2, 2, 3, 3), leaf(2, 2), leaf(2), leaf(1, 1, 3 * up, 3 * up))
    f = ops.setup_filter().double()

    def function(x, weight, styles, bias, noise):
        return ops.styled_conv2d(x, weight, styles, bias, noise=noise, up=up, resample_filter=f)

    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_pointwise_derivatives(layout):
    x = torch.randn(2, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 4, 1, 1, dtype=torch.float64, requires_grad=True)
    styles = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)

    def function(x, weight, styles):
        return ops.modulated_conv2d(x.contiguous(memory_format=layout), weight, styles, demodulate=False)

    want = torch.nn.functional.conv2d(x * styles[:, :, None, None], weight)
    torch.testing.assert_close(function(x, weight, styles), want)
    assert gradcheck(function, (x, weight, styles))
    assert gradgradcheck(function, (x, weight, styles))


def test_resampling_convolution_needs_a_filter():
    with pytest.raises(UserError, match="resampling needs a filter"):
        ops.conv2d_resample(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 3, 3), up=2)
    with pytest.raises(UserError, match="do not fit"):
        ops.modulated_conv2d(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 3, 3), torch.zeros(2, 2))
