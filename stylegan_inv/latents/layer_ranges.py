"""Names for ranges of layers of a W+ code."""

from __future__ import annotations

from collections.abc import Sequence

from stylegan_inv.errors import UserError

NAMES = ("coarse", "middle", "fine", "all", "none")


def layer_range(layers: str | int | Sequence[int] | None, num_ws: int) -> list[int]:
    """Numbers of the layers that ``layers`` means.

    Coarse are the layers of 4 and 8 px (pose, shape of the head), middle those of 16 and 32 px, fine all others
    (colours): Karras et al. 2019, section 3.1. (pSp calls 0-2, 3-6 and the rest so, for its three feature maps.)

    Args:
        layers: ``coarse``, ``middle``, ``fine``, ``all``, ``none``, ``0-3``, one number or a list of numbers; None:
            all.
        num_ws: L of the codes.

    Raises:
        UserError: another word, or a layer that does not exist.
    """
    if layers is None:
        return list(range(num_ws))
    if isinstance(layers, str):
        found = _named(layers.strip(), num_ws)
    else:
        found = [layers] if isinstance(layers, int) else list(layers)
    wrong = [k for k in found if isinstance(k, bool) or not isinstance(k, int) or not 0 <= k < num_ws]
    if wrong:
        raise UserError(f"layers={layers}: got layer {wrong[0]!r}, expected whole numbers from 0 to {num_ws - 1}")
    return found


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
    if dash and first.isdigit() and last.isdigit() and int(first) <= int(last):
        return list(range(int(first), int(last) + 1))
    raise UserError(f"layers={text}: expected {', '.join(NAMES)}, a range such as 0-3, or a list of numbers")
