"""The layouts of the original StyleGAN's generators, for which InterFaceGAN published its boundaries.

Supported are the variables of the official TensorFlow networks (https://github.com/NVlabs/stylegan f3a0446, FFHQ and
CelebA-HQ) and the state dict of InterFaceGAN's PyTorch port (https://github.com/genforce/interfacegan 8da3fc0,
``stylegan_ffhq.pth``), which has the same numbers. The project's layout is that of `generators.adain`, e.g.
``synthesis.b8.layer0.weight``. It differs in two points:

* The gain sqrt(2) of the mapping network applies to the weight, in the project to the activation: biases are divided.
* Fused upsampling convolutions, by default those from 128 px on, are stored mirrored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators.io.layouts import State, list_keys

#: Smallest resolution, in pixels, of the fused convolutions of ``fused_scale="auto"``.
FUSED_FROM = 128

_EPILOGUE = {
    "apply_noise.noise": "noise_const",
    "apply_noise.weight": "noise_strength",
    "bias": "bias",
    "style_mod.dense.linear.weight": "affine.weight",
    "style_mod.dense.wscale.bias": "affine.bias",
}
_VARIABLES = {
    "Noise/weight": "noise_strength",
    "bias": "bias",
    "StyleMod/weight": "affine.weight",
    "StyleMod/bias": "affine.bias",
    "weight": "weight",
    "const": "const",
}
_FIRST, _SECOND = ("Const", "Conv0_up"), ("Conv", "Conv1")


def from_interfacegan(sd: Mapping[str, Tensor]) -> State:
    """Converts InterFaceGAN's state dict of a StyleGAN generator to the project's layout.

    Raises:
        UserError: Keys or shapes of another network, unfinished progressive growing, or another blur filter.
    """
    out: State = {}
    unknown = []
    for key, value in sd.items():
        if match := re.fullmatch(r"mapping\.dense(\d+)\.(linear\.weight|wscale\.bias)", key):
            weight = match[2] == "linear.weight"
            out[f"mapping.fc{match[1]}.{'weight' if weight else 'bias'}"] = value if weight else value / math.sqrt(2)
        elif key in ("truncation.w_avg", "latent_avg"):
            out["mapping.w_avg"] = value
        elif key == "truncation.truncation":  # the truncation of each layer, a setting of InterFaceGAN
            continue
        elif key == "synthesis.lod":
            _check_grown(value)
        elif key == "synthesis.layer0.first_layer":
            out["synthesis.b4.const"] = _first(key, value, 4, 1)
        elif match := re.fullmatch(r"synthesis\.layer(\d{1,2})\.epilogue\.(.+)", key):
            leaf = _EPILOGUE.get(match[2])
            if leaf is None:
                unknown.append(key)
            else:
                out[f"{_layer(int(match[1]))}.{leaf}"] = _first(key, value, 4, 2) if leaf == "noise_const" else value
        elif match := re.fullmatch(r"synthesis\.layer(\d{1,2})\.(conv\.)?weight", key):
            out[f"{_layer(int(match[1]))}.weight"] = value if match[2] else _mirrored(key, value)
        elif re.fullmatch(r"synthesis\.layer\d{1,2}\.blur\.kernel", key):
            _check_blur(key, value)
        elif match := re.fullmatch(r"synthesis\.output(\d)\.(conv\.weight|bias)", key):
            out[f"synthesis.b{4 << int(match[1])}.torgb.{match[2].removeprefix('conv.')}"] = value
        else:
            unknown.append(key)
    if unknown:
        raise _not_part(unknown, "InterFaceGAN's StyleGAN generator")
    return {key: value.contiguous() for key, value in out.items()}


def from_stylegan_tensorflow(variables: Mapping[str, Tensor], fused_scale: bool | str = "auto") -> State:
    """Converts the variables of an official generator to the project's layout.

    Args:
        variables: Variables by name, e.g. ``synthesis/8x8/Conv0_up/StyleMod/bias``.
        fused_scale: The option of the network: True, False or ``"auto"``.

    Raises:
        UserError: Variables or shapes of another network, or unfinished progressive growing.
    """
    lods = [int(m[1]) for name in variables if (m := re.search(r"ToRGB_lod(\d+)/weight$", name))]
    out: State = {}
    unknown = []
    for full, value in variables.items():
        name = full.removeprefix("G_")  # the scope in the TensorFlow graph
        if name == "dlatent_avg":
            out["mapping.w_avg"] = value
        elif name in ("lod", "synthesis/lod"):
            _check_grown(value)
        elif match := re.fullmatch(r"mapping/Dense(\d+)/(weight|bias)", name):
            out[f"mapping.fc{match[1]}.{match[2]}"] = value.t() if match[2] == "weight" else value / math.sqrt(2)
        elif match := re.fullmatch(r"synthesis/noise(\d{1,2})", name):
            out[f"{_layer(int(match[1]))}.noise_const"] = _first(name, value, 4, 2)
        elif match := re.fullmatch(r"synthesis/ToRGB_lod(\d+)/(weight|bias)", name):
            key = f"synthesis.b{4 << (max(lods) - int(match[1]))}.torgb.{match[2]}"
            out[key] = _conv(name, value) if match[2] == "weight" else value
        elif match := re.fullmatch(r"synthesis/(\d+)x\1/(Const|Conv|Conv0_up|Conv1)/(.+)", name):
            leaf = _VARIABLES.get(match[3], "")
            layer = f"synthesis.b{match[1]}.layer{0 if match[2] in _FIRST else 1}"
            if leaf == "const":
                out["synthesis.b4.const"] = _first(name, value, 4, 1)
            elif leaf == "weight":
                fused = int(match[1]) >= FUSED_FROM if fused_scale == "auto" else bool(fused_scale)
                mirrored = match[2] == "Conv0_up" and fused
                out[f"{layer}.weight"] = _mirrored(name, value) if mirrored else _conv(name, value)
            elif leaf:
                out[f"{layer}.{leaf}"] = value.t() if leaf == "affine.weight" else value
            else:
                unknown.append(full)
        else:
            unknown.append(full)
    if unknown:
        raise _not_part(unknown, "TensorFlow's StyleGAN generator (a conditional one?)")
    return {key: value.contiguous() for key, value in out.items()}


def check_tensorflow_options(options: Mapping[str, Any]) -> bool | str:
    """Checks the options of an official generator and returns ``fused_scale``.

    Raises:
        UserError: A variant of the architecture that is not supported.
    """
    for name, expected in {
        "blur_filter": [1, 2, 1],
        "nonlinearity": "lrelu",
        "mapping_nonlinearity": "lrelu",
        "mapping_lrmul": 0.01,
        "normalize_latents": True,
        "use_styles": True,
        "const_input_layer": True,
        "use_noise": True,
        "use_wscale": True,
        "use_pixel_norm": False,
        "use_instance_norm": True,
    }.items():
        found = options.get(name, expected)
        if found != expected:
            raise UserError(f"has {name} {found!r}; only StyleGAN's {expected!r} is supported")
    fused = options.get("fused_scale", "auto")
    if isinstance(fused, bool):
        return fused
    if fused == "auto":
        return "auto"
    raise UserError(f"has fused_scale {fused!r}; expected True, False or 'auto'")


def _layer(number: int) -> str:
    return f"synthesis.b{4 << (number // 2)}.layer{number % 2}"


def _first(name: str, value: Tensor, ndim: int, axes: int) -> Tensor:
    """Removes the first axes of a tensor, which must have length 1."""
    if value.ndim != ndim or tuple(value.shape[:axes]) != (1,) * axes:
        raise UserError(f"{name} has shape {tuple(value.shape)}, expected {ndim} axes that begin with {(1,) * axes}")
    return value.reshape(value.shape[axes:])


def _conv(name: str, value: Tensor) -> Tensor:
    if value.ndim != 4:
        raise UserError(f"{name} has shape {tuple(value.shape)}, expected (k, k, in, out)")
    return value.permute(3, 2, 0, 1)


def _mirrored(name: str, value: Tensor) -> Tensor:
    return _conv(name, value).flip(2, 3)


def _check_grown(lod: Tensor) -> None:
    if lod.numel() != 1 or float(lod) != 0:
        raise UserError(f"contains an unfinished network (lod {lod.tolist()}): its last layers are untrained")


def _check_blur(name: str, kernel: Tensor) -> None:
    taps = torch.tensor([1.0, 2.0, 1.0]) / 4
    if kernel.ndim != 4 or kernel.shape[2:] != (3, 3) or not torch.allclose(kernel.float(), torch.outer(taps, taps)):
        raise UserError(f"{name} is not the [1, 2, 1] filter of StyleGAN; others are not supported")


def _not_part(keys: list[str], what: str) -> UserError:
    return UserError(f"{list_keys('key', keys)} not part of {what}")
