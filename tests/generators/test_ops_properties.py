"""The operations for random shapes, paddings, strides, dtypes and memory formats, against double precision."""

from __future__ import annotations

import math

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stylegan_inv.generators import ops
from tests.generators.test_ops import brute_force, per_sample

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
LAYOUTS = ("contiguous", "channels_last", "transposed", "sliced", "reversed batch")
quickly = settings(max_examples=60, deadline=None, derandomize=True)
dtypes, layouts, impls = st.sampled_from(list(TOLERANCE)), st.sampled_from(LAYOUTS), st.sampled_from(["fast", "ref"])
small, seeds = st.integers(1, 7), st.integers(0, 2**31)


def laid_out(x: torch.Tensor, layout: str) -> torch.Tensor:
    """Returns the same numbers in another memory format."""
    if layout == "channels_last":
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "transposed":
        return x.transpose(2, 3).contiguous().transpose(2, 3)
    if layout == "sliced":
        wide = torch.zeros(*x.shape[:3], 2 * x.shape[3] + 1, dtype=x.dtype)
        wide[..., 1::2] = x
        return wide[..., 1::2]
    return x.flip(0).clone()[torch.arange(len(x) - 1, -1, -1)] if layout == "reversed batch" else x.contiguous()


def close(got: torch.Tensor, want: torch.Tensor, dtype: torch.dtype, size: float = 1.0) -> None:
    """The tolerance is relative to the sum of the terms, ``size`` times the largest input."""
    assert got.dtype == dtype and got.shape == want.shape
    error = (got.double() - want).abs().max() if want.numel() else torch.zeros(())
    assert error <= TOLERANCE[dtype] * size, float(error)


@settings(quickly, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    up=st.tuples(*[st.integers(1, 3)] * 2),
    down=st.tuples(*[st.integers(1, 3)] * 2),
    padding=st.tuples(*[st.integers(-2, 3)] * 4),
    taps=st.one_of(st.tuples(st.integers(1, 6)), st.tuples(st.integers(1, 4), st.integers(1, 4))),
    flip=st.booleans(),
    gain=st.sampled_from([1.0, 4.0, 0.3]),
    dtype=dtypes,
    layout=layouts,
    impl=impls,
    seed=seeds,
)
def test_upfirdn2d(shape, up, down, padding, taps, flip, gain, dtype, layout, impl, seed):
    torch.manual_seed(seed)
    height, width = taps if len(taps) == 2 else taps * 2
    x0, x1, y0, y1 = padding
    inside = (shape[3] * up[0] + x0 + x1, shape[2] * up[1] + y0 + y1)
    assume(inside[0] >= width and inside[1] >= height)
    # Negative padding cannot crop more than the image.
    assume(max(-x0, 0) + max(-x1, 0) < shape[3] * up[0] and max(-y0, 0) + max(-y1, 0) < shape[2] * up[1])
    x, f = torch.randn(shape).to(dtype), torch.randn(taps)
    arguments = (up, down, padding, flip, gain)
    size = float(gain * (f.abs().sum() if f.ndim == 2 else f.abs().sum() ** 2) * x.abs().max()) + 1e-6
    given_x = laid_out(x.clone(), layout).requires_grad_()
    got = ops.upfirdn2d(given_x, f, *arguments, impl=impl)
    want = brute_force(x.double(), f.double(), *arguments)
    close(got.detach(), want, dtype, size)
    # The gradient is the adjoint: it is tested on an image that forward has not seen.
    g, other = torch.randn(want.shape).to(dtype), torch.randn(shape).double()
    (gradient,) = torch.autograd.grad(got, given_x, g)
    a = (gradient.double() * other).sum()
    b = (g.double() * brute_force(other, f.double(), *arguments)).sum()
    assert (a - b).abs() <= TOLERANCE[dtype] * size * math.sqrt(max(g.numel(), 1)) * 4


ACTIVATIONS = {
    "linear": (lambda v: v, 1.0),
    "relu": (torch.relu, math.sqrt(2)),
    "lrelu": (lambda v: torch.where(v > 0, v, 0.2 * v), math.sqrt(2)),
    "tanh": (torch.tanh, 1.0),
    "sigmoid": (torch.sigmoid, 1.0),
}


@quickly
@given(
    shape=st.tuples(small, small, small, small),
    dim=st.integers(0, 3),
    act=st.sampled_from(list(ACTIVATIONS)),
    gain=st.sampled_from([None, 0.5, 3.0]),
    clamp=st.sampled_from([None, 0.4]),
    biased=st.booleans(),
    dtype=dtypes,
    layout=layouts,
    impl=impls,
    seed=seeds,
)
def test_bias_act(shape, dim, act, gain, clamp, biased, dtype, layout, impl, seed):
    torch.manual_seed(seed)
    x = torch.randn(shape).to(dtype)
    b = torch.randn(shape[dim]).to(dtype) if biased else None
    function, default_gain = ACTIVATIONS[act]
    exact = x.double().requires_grad_()
    along = [-1 if axis == dim else 1 for axis in range(4)]
    value = exact if b is None else exact + b.double().view(along)
    want = function(value) * (default_gain if gain is None else gain)
    want = want if clamp is None else want.clamp(-clamp, clamp)
    given_x = laid_out(x.clone(), layout).requires_grad_()
    got = ops.bias_act(given_x, b, dim, act, gain=gain, clamp=clamp, impl=impl)
    close(got.detach(), want.detach(), dtype, 20.0)
    g = torch.randn(shape).to(dtype)
    (a,) = torch.autograd.grad(got, given_x, g)
    (e,) = torch.autograd.grad(want, exact, g.double())
    away = value.detach().abs() > TOLERANCE[dtype] * 10  # from the kink, which rounding crosses
    if clamp is not None:
        away &= (want.detach().abs() - clamp).abs() > TOLERANCE[dtype] * 10
    error = ((a.double() - e).abs() * away).max()
    assert error <= TOLERANCE[dtype] * 40


@quickly
@given(
    batch=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    size=st.tuples(small, small),
    up=st.sampled_from([1, 2]),
    noise=st.sampled_from([None, 1, "batch"]),
    clamp=st.sampled_from([None, 0.7]),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    layout=layouts,
    impl=impls,
    seed=seeds,
)
def test_styled_conv2d(batch, channels, size, up, noise, clamp, dtype, layout, impl, seed):
    torch.manual_seed(seed)
    (inputs, outputs), (h, w) = channels, size
    x, weight = torch.randn(batch, inputs, h, w).to(dtype), torch.randn(outputs, inputs, 3, 3).to(dtype)
    styles, bias = torch.randn(batch, inputs).to(dtype), torch.randn(outputs).to(dtype)
    f = ops.setup_filter()
    maps = None if noise is None else torch.randn(batch if noise == "batch" else 1, 1, h * up, w * up).to(dtype)
    want = per_sample(x.double(), weight.double(), styles.double(), up, f.double(), 0.3)
    want = want + bias.double()[:, None, None] + (0 if maps is None else maps.double())
    want = torch.nn.functional.leaky_relu(want, 0.2) * math.sqrt(2)
    want = want if clamp is None else want.clamp(-clamp, clamp)
    got = ops.styled_conv2d(
        laid_out(x, layout), weight, styles, bias, noise=maps, up=up, resample_filter=f, demod_eps=0.3, clamp=clamp,
        impl=impl,
    )  # fmt: skip
    close(got, want, dtype, 10 * float(x.abs().max()) + 5)
