"""The layouts of StyleGAN2 state dicts and how they are told apart.

Inside the project there is one layout, that of NVIDIA (https://github.com/NVlabs/stylegan2-ada-pytorch, d72cc7d),
without the buffers of its FIR filters, which are constants. `rosinality_layout`, `stylegan1_layout` and
`tensorflow_layout` convert the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators.io.pickle_objects import NumpyArray
from stylegan_inv.generators.ops import FILTER_TAPS, setup_filter

State = dict[str, Tensor]
_LONGEST_SHOWN = 80
#: Numbers in names are those of layers and resolutions. Layer 10^10 would belong to an image of 2^(10^10) pixels.
_LONG_NUMBER = re.compile(r"\d{5,}")


def dense_filter() -> Tensor:
    """Returns StyleGAN2's filter with two axes, ``(4, 4)``."""
    f = setup_filter(FILTER_TAPS)
    return torch.outer(f, f)


def check_filter(key: str, value: Tensor, gain: float) -> None:
    """Checks that a filter of a file is the one that the project uses.

    Args:
        key: Name of the filter in the file.
        value: The filter, with two axes.
        gain: Factor that it includes.

    Raises:
        UserError: Another filter.
    """
    if tuple(value.shape) != (4, 4) or not torch.allclose(value.float().cpu(), dense_filter() * gain, atol=1e-4):
        raise UserError(
            f"{key} is not the [1, 3, 3, 1] filter of StyleGAN2: this network was trained with another one, "
            f"which is not supported"
        )


def shown(key: str) -> str:
    """Returns a key of a stranger's file for a message: in one line, short, and without control characters."""
    text = key if key.isprintable() else ascii(key)[1:-1]
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def check_name(key: str) -> str:
    """Returns the name of a tensor unchanged, if the numbers in it can be those of a network.

    Raises:
        UserError: A number of more than four digits.
    """
    if _LONG_NUMBER.search(key):
        raise UserError(f"contains {shown(key)}, expected names whose numbers have at most four digits")
    return key


def list_keys(noun: str, keys: list[str], limit: int = 3) -> str:
    """Returns e.g. ``4 keys (a, b, c, ...)``, for messages."""
    first = ", ".join(map(shown, keys[:limit])) + (", ..." if len(keys) > limit else "")
    return f"{len(keys)} {noun}{'' if len(keys) == 1 else 's'} ({first})"


def stored_average(content: Mapping[str, Any]) -> Tensor | None:
    """Returns ``latent_avg`` of a checkpoint, a tensor or an array of numpy: ``(D,)``, ``(1, D)`` or ``(L, D)``.

    Args:
        content: Content of the file.
    """
    value = content.get("latent_avg")
    average = value.tensor() if isinstance(value, NumpyArray) else value
    if not isinstance(average, Tensor):
        return None
    return average[0] if average.ndim == 3 and len(average) == 1 else average


def average_code(value: Tensor) -> Tensor:
    """Returns the latent average ``(D,)``.

    Args:
        value: Latent average of a file, ``(D,)``, ``(1, D)``, ``(L, D)`` or ``(1, L, D)``.

    Raises:
        UserError: A tensor of another shape.
    """
    while value.ndim > 2 and len(value) == 1:
        value = value[0]
    if value.ndim == 1:
        return value
    if value.ndim != 2 or not len(value):
        raise UserError(f"latent_avg has shape {tuple(value.shape)}, expected (D,), (1, D), (L, D) or (1, L, D)")
    # The mean of equal rows would differ from them by rounding.
    return value[0] if bool((value == value[0]).all()) else value.mean(dim=0)


def from_nvidia(sd: Mapping[str, Tensor]) -> State:
    """Converts NVIDIA's layout to the project's, which has no filter buffers.

    Raises:
        UserError: A resampling filter other than [1, 3, 3, 1].
    """
    out: State = {}
    for key, value in sd.items():
        if key.endswith("resample_filter"):
            check_filter(key, value, 1.0)
        else:
            out[key] = value
    return out


def to_nvidia(sd: Mapping[str, Tensor]) -> State:
    """Converts the project's layout to NVIDIA's by adding the filter buffers that its modules expect."""
    out = from_nvidia(sd)
    for key in list(out):
        if match := re.fullmatch(r"(synthesis\.b\d+)\.torgb\.weight", key):
            out[f"{match[1]}.resample_filter"] = dense_filter()
        elif match := re.fullmatch(r"(synthesis\.b\d+\.conv[01])\.weight", key):
            out[f"{match[1]}.resample_filter"] = dense_filter()
        elif match := re.fullmatch(r"(b\d+)\.(fromrgb|conv0|conv1|skip|conv)\.weight", key):
            out[f"{match[1]}.{match[2]}.resample_filter"] = dense_filter()
            if match[2] == "skip":
                out[f"{match[1]}.resample_filter"] = dense_filter()
    return out


def detect_layout(sd: Mapping[str, Any]) -> str | None:
    """Returns the layout of a state dict.

    Returns:
        ``"nvidia generator"``, ``"rosinality generator"``, the same for discriminators, ``"stylegan generator"`` (the
        project's layout of the original StyleGAN), ``"interfacegan generator"``, or None for anything else.
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
    """Returns a description of a state dict, for messages.

    Args:
        layout: The result of :func:`detect_layout`.
        sd: The state dict.
    """
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
    return list_keys("unknown key", [str(key) for key in sd]) if sd else "no tensors"
