"""The layout of StyleGAN2's TensorFlow networks (NVlabs/stylegan2 bf0fe0b, NVlabs/stylegan2-ada).

Dense weights are transposed, convolutions have the axes (k, k, in, out), upsampling convolutions are flipped, and the
bias of a style does not include the constant 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators.io.layouts import State, list_keys

_GENERATOR_LAYERS = {"Conv": "conv1", "Conv0_up": "conv0", "Conv1": "conv1", "ToRGB": "torgb"}
_DISCRIMINATOR_LAYERS = {"FromRGB": "fromrgb", "Conv0": "conv0", "Conv1_down": "conv1", "Skip": "skip", "Conv": "conv"}
_ENDS = {"4x4/Dense0": "b4.fc", "Output": "b4.out"}


def from_tensorflow(variables: Mapping[str, Tensor]) -> State:
    """Converts the variables of a generator, with its components, or of a discriminator to the project's layout.

    Args:
        variables: Variables by name, e.g. ``synthesis/8x8/Conv0_up/weight``.

    Raises:
        UserError: Variables that are not part of StyleGAN2's configuration F.
    """
    generator = any(name.startswith("synthesis/") for name in variables)
    rename = _generator if generator else _discriminator
    out: State = {}
    unknown = []
    for name, value in variables.items():
        if name.rsplit("/", 1)[-1] == "lod":  # the level of progressive growing, which StyleGAN2 does not use
            continue
        key, change = rename(name)
        if not key:
            unknown.append(name)
            continue
        try:
            out[key] = change(value).contiguous()
        except (RuntimeError, IndexError) as error:
            raise UserError(f"{name} has shape {tuple(value.shape)}, which StyleGAN2 does not use") from error
    if unknown:
        raise UserError(f"{list_keys('variable', unknown)} not part of TensorFlow's StyleGAN2: another network?")
    return out


Change = Callable[[Tensor], Tensor]


def _same(value: Tensor) -> Tensor:
    return value


def _dense(value: Tensor) -> Tensor:
    return value.t()


def _conv(value: Tensor) -> Tensor:
    return value.permute(3, 2, 0, 1)


def _flipped_conv(value: Tensor) -> Tensor:
    return value.flip(0, 1).permute(3, 2, 0, 1)


def _plus_one(value: Tensor) -> Tensor:
    return value + 1


def _noise_layer(number: int) -> str:
    return f"b{4 << ((number + 1) // 2)}.conv{1 - number % 2}"


def _generator(name: str) -> tuple[str, Change]:
    if name == "dlatent_avg":
        return "mapping.w_avg", _same
    if match := re.fullmatch(r"mapping/(?:Dense(\d+)|LabelEmbed)/(weight|bias)", name):
        layer = "embed" if match[1] is None else f"fc{int(match[1])}"
        return f"mapping.{layer}.{match[2]}", _dense if match[2] == "weight" else _same
    if name == "synthesis/4x4/Const/const":
        return "synthesis.b4.const", lambda value: value[0]
    if match := re.fullmatch(r"synthesis/noise(\d{1,2})", name):
        return f"synthesis.{_noise_layer(int(match[1]))}.noise_const", lambda value: value[0, 0]
    if match := re.fullmatch(r"synthesis/(\d+)x\1/(Conv|Conv0_up|Conv1|ToRGB)/(\w+)", name):
        leaf, change = {
            "weight": ("weight", _flipped_conv if match[2] == "Conv0_up" else _conv),
            "bias": ("bias", _same),
            "mod_weight": ("affine.weight", _dense),
            "mod_bias": ("affine.bias", _plus_one),
            "noise_strength": ("noise_strength", _same),
        }.get(match[3], ("", _same))
        return f"synthesis.b{match[1]}.{_GENERATOR_LAYERS[match[2]]}.{leaf}" if leaf else "", change
    return "", _same


def _discriminator(name: str) -> tuple[str, Change]:
    layer, _, leaf = name.rpartition("/")
    if leaf not in ("weight", "bias"):
        return "", _same
    if layer in _ENDS:
        return f"{_ENDS[layer]}.{leaf}", _dense if leaf == "weight" else _same
    if match := re.fullmatch(r"(\d+)x\1/(\w+)", layer):
        if match[2] in _DISCRIMINATOR_LAYERS:
            return f"b{match[1]}.{_DISCRIMINATOR_LAYERS[match[2]]}.{leaf}", _conv if leaf == "weight" else _same
    return "", _same
