"""The layouts of StyleGAN2 state dicts, and the geometry that can be read off their shapes.

The one layout inside the project is NVIDIA's (https://github.com/NVlabs/stylegan2-ada-pytorch, d72cc7d) without its
FIR filter buffers, which are constants. rosinality's (https://github.com/rosinality/stylegan2-pytorch, bef283a) holds
the same numbers under other names, with an extra leading axis on the weights of the modulated convolutions and filters
that include the upsampling gain of 4; no weight is flipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators.layers import resolutions
from stylegan_inv.generators.ops import FILTER_TAPS, setup_filter

State = dict[str, Tensor]


# ---------------------------------------------------------------------------------------------------------------------
# rosinality <-> NVIDIA


def _filter2d() -> Tensor:
    f = setup_filter(FILTER_TAPS)
    return torch.outer(f, f)


def _check_filter(key: str, value: Tensor, gain: float) -> None:
    if tuple(value.shape) != (4, 4) or not torch.allclose(value.float().cpu(), _filter2d() * gain, atol=1e-4):
        raise UserError(
            f"{key} is not the [1, 3, 3, 1] filter of StyleGAN2: this network was trained with another one, "
            f"which is not supported"
        )


def _unknown_keys(keys: Iterable[str], layout: str) -> UserError:
    return UserError(
        f"{list_keys('key', list(keys))} not part of {layout}: is this a StyleGAN2 network (skip / resnet)?"
    )


def list_keys(noun: str, keys: list[str], limit: int = 3) -> str:
    """``4 keys (a, b, c, ...)``, for messages."""
    shown = ", ".join(keys[:limit]) + (", ..." if len(keys) > limit else "")
    return f"{len(keys)} {noun}{'' if len(keys) == 1 else 's'} ({shown})"


def _drop_axes(key: str, value: Tensor, axes: int) -> Tensor:
    """``value`` without its first axes, each of which must have length 1."""
    if tuple(value.shape[:axes]) != (1,) * axes:
        raise UserError(f"{key} has shape {tuple(value.shape)}, expected it to begin with {(1,) * max(axes, 1)}")
    return value.reshape(value.shape[axes:])


def average_code(value: Tensor) -> Tensor:
    """The average code ``(D,)`` of a file, which may be ``(D,)``, ``(1, D)`` or ``(L, D)``.

    Raises:
        UserError: another number of axes.
    """
    if value.ndim == 1:
        return value
    if value.ndim != 2 or not len(value):
        raise UserError(f"latent_avg has shape {tuple(value.shape)}, expected (D,), (1, D) or (L, D)")
    # The layers share one average; the mean of equal rows would differ from them by rounding.
    return value[0] if bool((value == value[0]).all()) else value.mean(dim=0)


def _noise_layer(position: int) -> str:
    """The layer of rosinality's noise map number ``position``; ``convs.n`` is the layer of map ``n + 1``."""
    if position == 0:
        return "synthesis.b4.conv1"
    return f"synthesis.b{8 << ((position - 1) // 2)}.conv{(position - 1) % 2}"


def _generator_layer(prefix: str) -> str:
    """``convs.3`` -> ``synthesis.b16.conv1``, ``to_rgb1`` -> ``synthesis.b4.torgb``."""
    if prefix == "conv1":
        return _noise_layer(0)
    if prefix == "to_rgb1":
        return "synthesis.b4.torgb"
    group, number = prefix.split(".")
    return _noise_layer(int(number) + 1) if group == "convs" else f"synthesis.b{8 << int(number)}.torgb"


def _rosinality_generator(sd: Mapping[str, Tensor]) -> State:
    out: State = {}
    unknown = []
    for key, value in sd.items():
        if match := re.fullmatch(r"style\.(\d+)\.(weight|bias)", key):
            out[f"mapping.fc{int(match[1]) - 1}.{match[2]}"] = value
        elif key == "latent_avg":
            out["mapping.w_avg"] = average_code(value)
        elif key == "input.input":
            out["synthesis.b4.const"] = _drop_axes(key, value, 1)
        elif match := re.fullmatch(r"noises\.noise_(\d+)", key):
            out[f"{_noise_layer(int(match[1]))}.noise_const"] = _drop_axes(key, value, 2)
        elif match := re.fullmatch(
            r"(conv1|convs\.\d+|to_rgb1|to_rgbs\.\d+)"
            r"\.(conv\.weight|conv\.modulation\.weight|conv\.modulation\.bias|noise\.weight|activate\.bias|bias|"
            r"conv\.blur\.kernel|upsample\.kernel)",
            key,
        ):
            layer = _generator_layer(match[1])
            leaf = match[2]
            if leaf.endswith("kernel"):
                _check_filter(key, value, 4.0)
            elif leaf == "conv.weight":
                out[f"{layer}.weight"] = _drop_axes(key, value, 1)
            elif leaf.startswith("conv.modulation."):
                out[f"{layer}.affine.{leaf.rsplit('.', 1)[1]}"] = value
            elif leaf == "noise.weight":
                out[f"{layer}.noise_strength"] = _drop_axes(key, value, value.ndim)
            else:
                out[f"{layer}.bias"] = value.reshape(-1)
        else:
            unknown.append(key)
    if unknown:
        raise _unknown_keys(unknown, "rosinality's generator")
    return out


def _to_rosinality_generator(sd: Mapping[str, Tensor]) -> State:
    out: State = {}
    unknown = []
    kernel = _filter2d() * 4
    for key, value in sd.items():
        if key == "mapping.w_avg":
            continue
        if match := re.fullmatch(r"mapping\.fc(\d+)\.(weight|bias)", key):
            out[f"style.{int(match[1]) + 1}.{match[2]}"] = value
        elif key == "synthesis.b4.const":
            out["input.input"] = value[None]
        elif match := re.fullmatch(r"synthesis\.b(\d+)\.(conv0|conv1|torgb)\.(.+)", key):
            stage = int(match[1]).bit_length() - 4  # 8 px is stage 0, 4 px is -1
            layer, leaf = match[2], match[3]
            if layer == "torgb":
                prefix = "to_rgb1" if stage < 0 else f"to_rgbs.{stage}"
            else:
                prefix = "conv1" if stage < 0 else f"convs.{2 * stage + int(layer[-1])}"
            if leaf == "weight":
                out[f"{prefix}.conv.weight"] = value[None]
            elif leaf in ("affine.weight", "affine.bias"):
                out[f"{prefix}.conv.modulation.{leaf[7:]}"] = value
            elif leaf == "bias" and layer == "torgb":
                out[f"{prefix}.bias"] = value.reshape(1, -1, 1, 1)
                if stage >= 0:
                    out[f"{prefix}.upsample.kernel"] = kernel.clone()
            elif leaf == "bias":
                out[f"{prefix}.activate.bias"] = value
                if layer == "conv0":
                    out[f"{prefix}.conv.blur.kernel"] = kernel.clone()
            elif leaf == "noise_strength":
                out[f"{prefix}.noise.weight"] = value.reshape(1)
            elif leaf == "noise_const":
                position = 0 if stage < 0 else 2 * stage + 1 + int(layer[-1])
                out[f"noises.noise_{position}"] = value[None, None]
            else:
                unknown.append(key)
        else:
            unknown.append(key)
    if unknown:
        raise UserError(f"rosinality's generator has no place for {list_keys('key', unknown)} (a conditional network?)")
    return out


def _rosinality_discriminator(sd: Mapping[str, Tensor]) -> State:
    numbers = [int(m[1]) for key in sd if (m := re.match(r"convs\.(\d+)\.", key))]
    size = 4 << max(numbers, default=0)
    names = {
        "convs.0.0.weight": f"b{size}.fromrgb.weight",
        "convs.0.1.bias": f"b{size}.fromrgb.bias",
        "final_conv.0.weight": "b4.conv.weight",
        "final_conv.1.bias": "b4.conv.bias",
        "final_linear.0.weight": "b4.fc.weight",
        "final_linear.0.bias": "b4.fc.bias",
        "final_linear.1.weight": "b4.out.weight",
        "final_linear.1.bias": "b4.out.bias",
    }
    leaves = {
        "conv1.0.weight": "conv0.weight",
        "conv1.1.bias": "conv0.bias",
        "conv2.1.weight": "conv1.weight",
        "conv2.2.bias": "conv1.bias",
        "skip.1.weight": "skip.weight",
    }
    out: State = {}
    unknown = []
    for key, value in sd.items():
        match = re.fullmatch(r"convs\.(\d+)\.(.+)", key)
        if key in names:
            out[names[key]] = value
        elif match and match[2] in leaves and int(match[1]) > 0:
            out[f"b{size >> (int(match[1]) - 1)}.{leaves[match[2]]}"] = value
        elif match and match[2] in ("conv2.0.kernel", "skip.0.kernel"):
            _check_filter(key, value, 1.0)
        else:
            unknown.append(key)
    if unknown:
        raise _unknown_keys(unknown, "rosinality's discriminator")
    return out


def _to_rosinality_discriminator(sd: Mapping[str, Tensor]) -> State:
    size = max(int(m[1]) for key in sd if (m := re.match(r"b(\d+)\.", key)))
    leaves = {
        "conv0.weight": "conv1.0.weight",
        "conv0.bias": "conv1.1.bias",
        "conv1.weight": "conv2.1.weight",
        "conv1.bias": "conv2.2.bias",
        "skip.weight": "skip.1.weight",
    }
    ends = {
        "conv.weight": "final_conv.0.weight",
        "conv.bias": "final_conv.1.bias",
        "fc.weight": "final_linear.0.weight",
        "fc.bias": "final_linear.0.bias",
        "out.weight": "final_linear.1.weight",
        "out.bias": "final_linear.1.bias",
    }
    out: State = {}
    unknown = []
    for key, value in sd.items():
        match = re.fullmatch(r"b(\d+)\.(.+)", key)
        leaf = match[2] if match else ""
        if match and leaf in ("fromrgb.weight", "fromrgb.bias") and int(match[1]) == size:
            out["convs.0.0.weight" if leaf.endswith("weight") else "convs.0.1.bias"] = value
        elif match and match[1] == "4" and leaf in ends:
            out[ends[leaf]] = value
        elif match and leaf in leaves:
            number = (size // int(match[1])).bit_length()
            out[f"convs.{number}.{leaves[leaf]}"] = value
            if leaf == "conv1.weight":
                out[f"convs.{number}.conv2.0.kernel"] = _filter2d()
            elif leaf == "skip.weight":
                out[f"convs.{number}.skip.0.kernel"] = _filter2d()
        else:
            unknown.append(key)
    if unknown:
        raise UserError(
            f"rosinality's discriminator has no place for {list_keys('key', unknown)} (a conditional network?)"
        )
    return out


def from_rosinality(sd: Mapping[str, Tensor]) -> State:
    """Rename a rosinality generator or discriminator to the project's layout; values are shared, not copied.

    Args:
        sd: the state dict of one network. A ``latent_avg`` beside a generator's keys becomes ``mapping.w_avg``
            (rows of a per-layer average are averaged); without it that key is missing from the result.

    Raises:
        UserError: keys that belong to neither network, or another resampling filter than [1, 3, 3, 1].
    """
    layout = detect_layout(sd)
    if layout == "rosinality generator":
        return _rosinality_generator(sd)
    if layout == "rosinality discriminator":
        return _rosinality_discriminator(sd)
    raise UserError(f"expected a rosinality state dict, got {describe(layout, sd)}")


def to_rosinality(sd: Mapping[str, Tensor]) -> State:
    """Rename a generator or discriminator to rosinality's layout, filters included.

    rosinality's generator has no place for ``mapping.w_avg``: it is left out, and belongs into the file beside the
    network, ``{"g_ema": to_rosinality(sd), "latent_avg": sd["mapping.w_avg"]}``.

    Raises:
        UserError: a conditional network, or another layout.
    """
    layout = detect_layout(sd)
    if layout == "nvidia generator":
        return _to_rosinality_generator(from_nvidia(sd))
    if layout == "nvidia discriminator":
        return _to_rosinality_discriminator(from_nvidia(sd))
    raise UserError(f"expected a state dict in NVIDIA's layout, got {describe(layout, sd)}")


def from_nvidia(sd: Mapping[str, Tensor]) -> State:
    """NVIDIA's state dict to the project's: check the filter buffers and drop them.

    Raises:
        UserError: another resampling filter than [1, 3, 3, 1].
    """
    out: State = {}
    for key, value in sd.items():
        if key.endswith("resample_filter"):
            _check_filter(key, value, 1.0)
        else:
            out[key] = value
    return out


def to_nvidia(sd: Mapping[str, Tensor]) -> State:
    """The project's state dict to NVIDIA's, i.e. with the filter buffers that their modules expect."""
    out = from_nvidia(sd)
    for key in list(out):
        if match := re.fullmatch(r"(synthesis\.b\d+)\.torgb\.weight", key):
            out[f"{match[1]}.resample_filter"] = _filter2d()
        elif match := re.fullmatch(r"(synthesis\.b\d+\.conv[01])\.weight", key):
            out[f"{match[1]}.resample_filter"] = _filter2d()
        elif match := re.fullmatch(r"(b\d+)\.(fromrgb|conv0|conv1|skip|conv)\.weight", key):
            out[f"{match[1]}.{match[2]}.resample_filter"] = _filter2d()
            if match[2] == "skip":
                out[f"{match[1]}.resample_filter"] = _filter2d()
    return out


def detect_layout(sd: Mapping[str, Any]) -> str | None:
    """``"nvidia generator"``, ``"rosinality generator"``, the same for discriminators, or None.

    The original StyleGAN's: ``"stylegan generator"`` (the project's layout) and ``"interfacegan generator"``.
    """
    for layout, pattern in (
        ("stylegan generator", r"synthesis\.b\d+\.layer[01]\."),
        ("interfacegan generator", r"synthesis\.layer\d+\.epilogue\."),
        ("nvidia generator", r"synthesis\.b\d+\.(conv[01]|torgb|const)"),
        ("rosinality generator", r"(conv1|convs\.\d+|to_rgb1|to_rgbs\.\d+)\.conv\.(weight|modulation\.)"),
        ("rosinality discriminator", r"convs\.\d+\.(conv1|conv2|skip)\.\d+\.|final_linear\.\d+\."),
        ("nvidia discriminator", r"b\d+\.(fromrgb|conv0|conv1|skip|conv|fc|out)\."),
    ):
        if any(re.match(pattern, str(key)) for key in sd):
            return layout
    return None


def describe(layout: str | None, sd: Mapping[str, Any]) -> str:
    """What a state dict holds, for messages; ``layout`` from :func:`detect_layout`."""
    if layout is not None:
        name, network = layout.split()
        if name == "stylegan":
            return "a generator of the original StyleGAN"
        names = {"nvidia": "NVIDIA", "interfacegan": "InterFaceGAN"}
        return f"a {network} in {names.get(name, name)}'s layout"
    if any(str(key).startswith("synthesis.input.") for key in sd):
        return "a StyleGAN3 generator"
    if any(str(key).startswith("FromRGB_lod") for key in sd):
        return "a discriminator of the original StyleGAN"
    return f"{list_keys('unknown entry', [str(k) for k in sd])}".replace("entrys", "entries")


# ---------------------------------------------------------------------------------------------------------------------
# Geometry


def _shape(sd: Mapping[str, Tensor], key: str, ndim: int) -> tuple[int, ...]:
    if key not in sd:
        raise UserError(f"missing key {key}")
    shape = tuple(sd[key].shape)
    if len(shape) != ndim:
        raise UserError(f"{key} has shape {shape}, expected {ndim} axes")
    return shape


def infer_generator_config(sd: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of :class:`.Generator` from a state dict in the project's layout.

    What the shapes do not tell keeps its default: ``conv_clamp`` None, ``mapping_lr_multiplier`` 0.01.

    Raises:
        UserError: keys that carry the geometry are missing or have the wrong number of axes.
    """
    sizes = {int(m[1]) for key in sd if (m := re.match(r"synthesis\.b(\d+)\.", key))}
    resolution = max(sizes, default=0)
    adain = any(re.match(r"synthesis\.b\d+\.layer[01]\.", key) for key in sd)
    last = "layer1" if adain else "conv1"
    channels = {r: _shape(sd, f"synthesis.b{r}.{last}.weight", 4)[0] for r in resolutions(resolution)}
    img_channels = _shape(sd, f"synthesis.b{resolution}.torgb.weight", 4)[0]
    w_dim = _shape(sd, f"synthesis.b4.{last}.affine.weight", 2)[1]
    depth = len({m[1] for key in sd if (m := re.match(r"mapping\.fc(\d+)\.", key))})
    inputs = _shape(sd, "mapping.fc0.weight", 2)[1]
    c_dim = _shape(sd, "mapping.embed.weight", 2)[1] if "mapping.embed.weight" in sd else 0
    # Only a way to colours at 4 px tells that an original StyleGAN can be run in parts.
    kind = {"style": "adain", "progressive": "synthesis.b4.torgb.weight" in sd} if adain else {}
    return {
        **kind,
        "resolution": resolution,
        "z_dim": inputs - (w_dim if c_dim else 0),
        "w_dim": w_dim,
        "mapping_layers": depth,
        "channels": channels,
        "c_dim": c_dim,
        "img_channels": img_channels,
    }


def infer_discriminator_config(sd: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of :class:`.Discriminator` from a state dict in the project's layout.

    The group size of the minibatch standard deviation keeps its default, 4.

    Raises:
        UserError: keys that carry the geometry are missing or have the wrong number of axes.
    """
    resolution = max((int(m[1]) for key in sd if (m := re.match(r"b(\d+)\.", key))), default=0)
    channels = {r: _shape(sd, f"b{r}.conv0.weight", 4)[0] for r in resolutions(resolution)[1:]}
    channels[4], last = _shape(sd, "b4.conv.weight", 4)[:2]
    config: dict[str, Any] = {
        "resolution": resolution,
        "channels": channels,
        "c_dim": _shape(sd, "mapping.embed.weight", 2)[1] if "mapping.embed.weight" in sd else 0,
        "img_channels": _shape(sd, f"b{resolution}.fromrgb.weight", 4)[1],
        "mbstd_features": last - channels[4],
        "progressive": resolution > 4 and "b4.fromrgb.weight" in sd,
    }
    if config["c_dim"]:
        config["mapping_layers"] = len({m[1] for key in sd if (m := re.match(r"mapping\.fc(\d+)\.", key))})
    return config
