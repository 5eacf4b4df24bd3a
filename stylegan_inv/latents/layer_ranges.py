"""Named ranges of layers of a w+ code."""

from __future__ import annotations

from collections.abc import Sequence

from stylegan_inv.errors import UserError

NAMES = ("coarse", "middle", "fine", "all", "none")
#: More digits than the number of any layer has; a range of more would fill the memory.
_MOST_DIGITS = 4


def layer_range(layers: str | int | Sequence[int] | None, num_ws: int) -> list[int]:
    """Returns the indices of layers.

    Coarse layers are those of 4 and 8 px (pose, shape of the head), middle ones those of 16 and 32 px, fine ones all
    others (colours): Karras et al. 2019, section 3.1. (pSp uses the same names for 0-2, 3-6 and the rest, which belong
    to its three feature maps.)

    Args:
        layers: ``coarse``, ``middle``, ``fine``, ``all``, ``none``, a range such as ``0-3``, one index or a list of
            indices; None for all.
        num_ws: Number of layers L of the codes.

    Raises:
        UserError: The name is unknown, or a layer does not exist.
    """
    if layers is None:
        return list(range(num_ws))
    if isinstance(layers, str):
        indices = _named(layers.strip(), num_ws)
    else:
        indices = [layers] if isinstance(layers, int) else list(layers)
    wrong = [k for k in indices if isinstance(k, bool) or not isinstance(k, int) or not 0 <= k < num_ws]
    if wrong:
        raise UserError(f"layers={layers}: got layer {wrong[0]!r}, expected whole numbers from 0 to {num_ws - 1}")
    return indices


def appearance_layers(num_ws: int) -> list[int]:
    """Returns the layers of colour and texture, which pSp's multi-modal synthesis mixes: 8 to 17 of 18 in its script.

    Args:
        num_ws: Number of layers of the generator.
    """
    return list(range(round(num_ws * 8 / 18), num_ws))


def _named(text: str, num_ws: int) -> list[int]:
    named = {
        "coarse": range(min(4, num_ws)),
        "middle": range(4, min(8, num_ws)),
        "fine": range(8, num_ws),
        "all": range(num_ws),
        "none": range(0),
    }
    if text in named:
        return list(named[text])
    first, dash, last = text.partition("-")
    numbers = [int(part) for part in (first, last) if part.isdecimal() and len(part) <= _MOST_DIGITS]
    if dash and len(numbers) == 2 and numbers[0] <= numbers[1]:
        return list(range(numbers[0], numbers[1] + 1))
    raise UserError(f"layers={text}: expected {', '.join(NAMES)}, a range such as 0-3, or a list of numbers")
