"""The layout of rosinality's StyleGAN2 (https://github.com/rosinality/stylegan2-pytorch, bef283a).

It contains the same numbers as NVIDIA's under other names. The weights of modulated convolutions have an extra leading
axis, and the filters include the upsampling gain of 4. No weight is flipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators.io.layouts import (
    State,
    average_code,
    check_filter,
    dense_filter,
    describe,
    detect_layout,
    from_nvidia,
    list_keys,
)


def from_rosinality(sd: Mapping[str, Tensor]) -> State:
    """Converts a generator or discriminator of rosinality's layout to the project's; tensors are not copied.

    Args:
        sd: State dict of one network. If a generator's contains ``latent_avg``, it becomes ``mapping.w_avg``; one
            average for each layer is reduced to their mean. Otherwise the result has no ``mapping.w_avg``.

    Raises:
        UserError: Keys of another network, or a resampling filter other than [1, 3, 3, 1].
    """
    layout = detect_layout(sd)
    if layout == "rosinality generator":
        return _rosinality_generator(sd)
    if layout == "rosinality discriminator":
        return _rosinality_discriminator(sd)
    raise UserError(f"expected a rosinality state dict, got {describe(layout, sd)}")


def to_rosinality(sd: Mapping[str, Tensor]) -> State:
    """Converts a generator or discriminator to rosinality's layout, with its filters.

    rosinality's generator does not contain ``mapping.w_avg``, which is omitted. In a file it is an entry of its own:
    ``{"g_ema": to_rosinality(sd), "latent_avg": sd["mapping.w_avg"]}``.

    Raises:
        UserError: A conditional network, or another layout.
    """
    layout = detect_layout(sd)
    if layout == "nvidia generator":
        return _to_rosinality_generator(from_nvidia(sd))
    if layout == "nvidia discriminator":
        return _to_rosinality_discriminator(from_nvidia(sd))
    raise UserError(f"expected a state dict in NVIDIA's layout, got {describe(layout, sd)}")


def _unknown_keys(keys: Iterable[str], layout: str) -> UserError:
    return UserError(
        f"{list_keys('key', list(keys))} not part of {layout}: is this a StyleGAN2 network (skip / resnet)?"
    )


def _drop_axes(key: str, value: Tensor, axes: int) -> Tensor:
    """Removes the first axes of a tensor, which must have length 1."""
    if tuple(value.shape[:axes]) != (1,) * axes:
        raise UserError(f"{key} has shape {tuple(value.shape)}, expected it to begin with {(1,) * max(axes, 1)}")
    return value.reshape(value.shape[axes:])


def _noise_layer(position: int) -> str:
    """Returns the layer of rosinality's noise map number ``position``; ``convs.n`` has map ``n + 1``."""
    if position == 0:
        return "synthesis.b4.conv1"
    return f"synthesis.b{8 << ((position - 1) // 2)}.conv{(position - 1) % 2}"


def _generator_layer(prefix: str) -> str:
    """Converts e.g. ``convs.3`` to ``synthesis.b16.conv1``, and ``to_rgb1`` to ``synthesis.b4.torgb``."""
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
                check_filter(key, value, 4.0)
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
    kernel = dense_filter() * 4
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
        raise UserError(f"rosinality's generator cannot store {list_keys('key', unknown)} (a conditional network?)")
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
            check_filter(key, value, 1.0)
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
                out[f"convs.{number}.conv2.0.kernel"] = dense_filter()
            elif leaf == "skip.weight":
                out[f"convs.{number}.skip.0.kernel"] = dense_filter()
        else:
            unknown.append(key)
    if unknown:
        raise UserError(f"rosinality's discriminator cannot store {list_keys('key', unknown)} (a conditional network?)")
    return out
