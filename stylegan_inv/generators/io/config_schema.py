"""The configuration that a file of weights claims for its network, checked before the network is built.

A file of a stranger may claim any size. Building three million layers takes hours, and a multiplier of zero gives
images of noise without an error.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from stylegan_inv.errors import UserError
from stylegan_inv.utils.plain_data import check_plain

_MOST_CHARACTERS = 1 << 20
_MOST_CHANNELS = 1 << 15


def _whole(least: int, most: int) -> tuple[Callable[[Any], bool], str]:
    return lambda value: type(value) is int and least <= value <= most, f"a whole number from {least} to {most}"


def _positive(most: float) -> tuple[Callable[[Any], bool], str]:
    def right(value: Any) -> bool:
        return type(value) in (int, float) and math.isfinite(value) and 0 < value <= most

    return right, f"a number above 0 and at most {most:g}"


def _optional(rule: tuple[Callable[[Any], bool], str]) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value is None or rule[0](value), f"{rule[1]}, or null"


def _is_channel_table(value: Any) -> bool:
    right = isinstance(value, Mapping) and 0 < len(value) <= 16
    numbers = [*map(str, value), *map(str, value.values())] if right else []
    return right and all(re.fullmatch(r"\d{1,5}", n, re.ASCII) and 0 < int(n) <= _MOST_CHANNELS for n in numbers)


_TRUTH = (lambda value: isinstance(value, bool), "true or false")
_TEXT = (lambda value: isinstance(value, str) and len(value) <= 60, "a short text")
#: Argument of `Generator` or `Discriminator` -> what it may be. The classes check what depends on several arguments.
_RULES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "resolution": (lambda v: type(v) is int and 4 <= v <= 8192 and v & (v - 1) == 0, "a power of two from 4 to 8192"),
    "z_dim": _whole(0, 1 << 14),
    "w_dim": _whole(1, 1 << 14),
    "mapping_layers": _whole(1, 64),
    "channels": _optional((_is_channel_table, f"a mapping of resolutions to 1 to {_MOST_CHANNELS} channels")),
    "channel_base": _whole(1, 1 << 20),
    "channel_max": _whole(1, _MOST_CHANNELS),
    "c_dim": _whole(0, 1 << 20),
    "img_channels": _whole(1, 1 << 10),
    "conv_clamp": _optional(_positive(math.inf)),
    "mapping_lr_multiplier": _positive(1e6),
    "demod_eps_scaled": _TRUTH,
    "style": _TEXT,
    "progressive": _TRUTH,
    "ops": _TEXT,
    "mbstd_group_size": _whole(1, 1 << 30),
    "mbstd_features": _whole(0, 1 << 10),
}


def check_config(config: Mapping[str, Any]) -> None:
    """Checks the arguments of a network that come from a file.

    Raises:
        UserError: An argument of another type or out of bounds. Unknown names are left to the class.
    """
    for name, value in config.items():
        right, expected = _RULES.get(name, (None, ""))
        if right is not None and not right(value):
            raise UserError(f"its config has {name}={str(value)[:60]!r}, expected {expected}")


def parse_metadata(text: str, what: str) -> dict[str, Any]:
    """Returns the JSON object in an entry of a file's metadata.

    Args:
        text: The entry.
        what: Name of the entry, for errors.

    Raises:
        UserError: No JSON object, or one that is too large or too deep.
    """
    try:
        if len(text) > _MOST_CHARACTERS:
            raise UserError(f"has more than {_MOST_CHARACTERS:,} characters")
        content = check_plain(json.loads(text))
    except UserError as error:
        raise UserError(f"its {what} metadata {error}") from error
    except (ValueError, RecursionError) as error:
        reason = "is nested too deeply" if isinstance(error, RecursionError) else f"is not JSON ({error})"
        raise UserError(f"its {what} metadata {reason}") from error
    if not isinstance(content, dict):
        raise UserError(f"its {what} metadata is a {type(content).__name__}, expected an object")
    return content
