"""The operations against NVIDIA's and rosinality's, first and second order."""

from __future__ import annotations

import math

import pytest
import torch

from stylegan_inv.generators import ops
from stylegan_inv.generators.discriminator import minibatch_stddev
from stylegan_inv.generators.layers import FullyConnected, normalize_2nd_moment
from tests import golden

pytestmark = golden.needs_golden


def cases(name: str) -> list[dict]:
    """Returns the parameters of every case; empty if the folder does not exist."""
    return golden.entry(name)["cases"] if (golden.golden_dir() / "index.json").is_file() else []


def number(case: dict) -> str:
    return f"case{case['case']:02d}"


def leaf(name: str, key: str) -> torch.Tensor:
    return golden.tensor(name, key).requires_grad_()


@pytest.mark.parametrize("case", cases("op_upfirdn2d"), ids=number)
def test_upfirdn2d(case):
    name, n = "op_upfirdn2d", number(case)
    x, f, probe, v = leaf(name, f"{n}_x"), *(golden.tensor(name, f"{n}_{k}") for k in ("f", "probe", "v"))
    y = ops.upfirdn2d(x, f, case["up_xy"], case["down_xy"], case["padding_x0x1y0y1"], case["flip_filter"], case["gain"])
    golden.check(name, f"{n}_y", y)
    (g1,) = torch.autograd.grad(0.5 * (probe * y.square()).sum(), x, create_graph=True)
    golden.check(name, f"{n}_g1", g1)
    (g2,) = torch.autograd.grad((g1 * v).sum(), x)
    golden.check(name, f"{n}_g2", g2)


@pytest.mark.parametrize("case", cases("op_bias_act"), ids=number)
def test_bias_act(case):
    name, n = "op_bias_act", number(case)
    x, b = leaf(name, f"{n}_x"), leaf(name, f"{n}_b")
    probe, v = golden.tensor(name, f"{n}_probe"), golden.tensor(name, f"{n}_v")
    alpha = case["alpha"] if case["act"] == "lrelu" else None
    y = ops.bias_act(x, b, case["dim"], case["act"], alpha, case["gain"], case["clamp"])
    golden.check(name, f"{n}_y", y)
    gx, gb = torch.autograd.grad(0.5 * (probe * y.square()).sum(), (x, b), create_graph=True)
    golden.check(name, f"{n}_gx", gx)
    golden.check(name, f"{n}_gb", gb)
    (g2,) = torch.autograd.grad((gx * v).sum(), x)
    golden.check(name, f"{n}_g2", g2)


@pytest.mark.parametrize("act", ["relu", "lrelu", "swish", "linear", "tanh"])
def test_bias_act_defaults(act):
    (case,) = [c for c in cases("op_bias_act") if c["act"] == act and c["clamp"] is None and c["alpha"] in (0, 0.2)]
    name, n = "op_bias_act", number(case)
    golden.check(name, f"{n}_y", ops.bias_act(leaf(name, f"{n}_x"), leaf(name, f"{n}_b"), case["dim"], act))


@pytest.mark.parametrize("dense", [True, False], ids=["2d-filter", "1d-filter"])
@pytest.mark.parametrize("case", cases("op_conv_resample"), ids=number)
def test_conv2d_resample(case, dense):
    name, n = "op_conv_resample", number(case)
    x, w, probe = leaf(name, f"{n}_x"), leaf(name, f"{n}_w"), golden.tensor(name, f"{n}_probe")
    f = ops.setup_filter([1, 3, 3, 1])
    y = ops.conv2d_resample(
        x,
        w,
        torch.outer(f, f) if dense else f,
        case["up"],
        case["down"],
        case["padding"],
        case["groups"],
        case["flip_weight"],
    )
    golden.check(name, f"{n}_y", y)
    gx, gw = torch.autograd.grad(0.5 * (probe * y.square()).sum(), (x, w))
    golden.check(name, f"{n}_gx", gx)
    golden.check(name, f"{n}_gw", gw)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("case", cases("op_modulated_conv"), ids=number)
def test_modulated_conv2d(case, layout):
    name, n = "op_modulated_conv", number(case)
    x, w, s = leaf(name, f"{n}_x"), leaf(name, f"{n}_w"), leaf(name, f"{n}_s")
    probe, v_s = golden.tensor(name, f"{n}_probe"), golden.tensor(name, f"{n}_v_s")
    y = ops.modulated_conv2d(
        x.contiguous(memory_format=layout),
        w,
        s,
        noise=golden.tensor(name, f"{n}_noise") if case["noise"] else None,
        up=case["up"],
        down=case["down"],
        padding=case["kernel"] // 2,
        resample_filter=ops.setup_filter([1, 3, 3, 1]),
        demodulate=case["demodulate"],
        flip_weight=case["flip_weight"],
    )
    golden.check(name, f"{n}_y", y)
    gx, gw, gs = torch.autograd.grad(0.5 * (probe * y.square()).sum(), (x, w, s), create_graph=True)
    for key, value in {"gx": gx, "gw": gw, "gs": gs}.items():
        golden.check(name, f"{n}_{key}", value)
    g2_x, g2_s = torch.autograd.grad((gs * v_s).sum(), (x, s))
    golden.check(name, f"{n}_g2_x", g2_x)
    golden.check(name, f"{n}_g2_s", g2_s)


@pytest.mark.parametrize("case", cases("layer_ros_modulated_conv"), ids=number)
def test_rosinality_layer(case):
    name, n = "layer_ros_modulated_conv", number(case)
    names = ("x", "w_latent", "weight", "modulation_weight", "modulation_bias")
    x, w_latent, weight, a, b = leaves = [leaf(name, f"{n}_{k}") for k in names]
    styles = w_latent @ (a / math.sqrt(a.shape[1])).t() + b
    fan_in = weight[0, 0].numel()
    resample = case["resample"]
    gain = 1.0 if case["demodulate"] else 1 / math.sqrt(fan_in)
    y = ops.modulated_conv2d(
        x,
        weight[0] * gain,
        styles,
        up=2 if resample == "up" else 1,
        down=2 if resample == "down" else 1,
        padding=case["kernel"] // 2,
        resample_filter=ops.setup_filter([1, 3, 3, 1]),
        demodulate=case["demodulate"],
        flip_weight=resample != "up",
        demod_eps=1e-8 * fan_in,
    )
    golden.check(name, f"{n}_y", y)
    grads = torch.autograd.grad(0.5 * (golden.tensor(name, f"{n}_probe") * y.square()).sum(), leaves)
    for key, value in zip(names, grads, strict=True):
        golden.check(name, f"{n}_g_{key}", value)


def test_small_layers():
    name = "layer_small"
    golden.check(name, "pixelnorm_y", normalize_2nd_moment(golden.tensor(name, "pixelnorm_x")))
    f = ops.setup_filter([1, 3, 3, 1])
    x = golden.tensor(name, "resample_x")
    golden.check(name, "upsample_y", ops.upsample2d(x, f))
    golden.check(name, "downsample_y", ops.downsample2d(x, f))
    x = golden.tensor(name, "mbstd_x")
    golden.check(name, "mbstd_y", minibatch_stddev(x, 4, 1))
    golden.check(name, "mbstd2_y", minibatch_stddev(x, 4, 2))


@pytest.mark.parametrize(
    ("key", "activation", "lr_multiplier", "scale"),
    [("lin_lrelu_y", "lrelu", 0.01, 1.0), ("lin_plain_y", "linear", 0.5, 0.02)],
)
def test_fully_connected(key, activation, lr_multiplier, scale):
    name = "layer_small"
    layer = FullyConnected(7, 5, activation=activation, lr_multiplier=lr_multiplier).double()
    layer.load_state_dict(
        {k: golden.tensor(name, f"lin_{k}") * scale for k in ("weight", "bias")},
    )
    golden.check(name, key, layer(golden.tensor(name, "lin_x")))
