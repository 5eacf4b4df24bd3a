"""Checks of numbers and words that a user gives; each returns the value or raises one clear error."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

from stylegan_inv.errors import UserError

T = TypeVar("T")
#: Largest seed that PyTorch, NumPy and Python all take.
LARGEST_SEED = 2**32 - 1
#: Largest number of processes of a command.
MOST_PROCESSES = 1024
#: Largest number in any config: far above counts of images and weights of losses, and far below the range of float32,
#: so that products of a few settings are finite.
LARGEST_NUMBER = 1e12
#: Characters of a value in an error.
_MOST_SHOWN = 200


def whole_number(name: str, value: Any, least: int | None = 1, most: int | None = None, hint: str = "") -> int:
    """Returns a whole number.

    Args:
        name: What the user calls it, e.g. ``dataset.batch_size``.
        value: What was given; booleans are not numbers.
        least: Smallest allowed value; None for no bound.
        most: Largest allowed value; None for no bound.
        hint: What to do, appended to the error.

    Raises:
        UserError: Not a whole number within the bounds.
    """
    right = isinstance(value, int) and not isinstance(value, bool)
    if not right or (least is not None and value < least) or (most is not None and value > most):
        raise UserError(f"{name}={_short(value)}: expected a whole number{_bounds(least, most)}{_tail(hint)}")
    return int(value)


def real_number(
    name: str,
    value: Any,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    hint: str = "",
) -> float:
    """Returns a finite number.

    Args:
        name: What the user calls it.
        value: What was given; booleans are not numbers.
        least: Smallest allowed value; None for no bound.
        most: Largest allowed value; None for no bound.
        above: Bound that the value must exceed; None for no bound.
        hint: What to do, appended to the error.

    Raises:
        UserError: Not a finite number within the bounds.
    """
    right = _is_finite(value)
    too_small = right and ((least is not None and value < least) or (above is not None and value <= above))
    if not right or too_small or (most is not None and value > most):
        bounds = f" above {above:g}{'' if most is None else f' and at most {most:g}'}" if above is not None else ""
        raise UserError(f"{name}={_short(value)}: expected a number{bounds or _bounds(least, most)}{_tail(hint)}")
    return float(value)


def environment_number(name: str, default: float, least: float, most: float) -> float:
    """Returns the number in a variable of the environment.

    Args:
        name: The variable.
        default: Value of a variable that is not set, or empty.
        least: Smallest allowed value.
        most: Largest allowed value.

    Raises:
        UserError: The variable holds something else.
    """
    text = os.environ.get(name)
    if not text:
        return default
    try:
        value: float | str = float(text)
    except ValueError:
        value = text
    return real_number(f"the environment variable {name}", value, least, most, hint="correct it, or unset it")


def check_numbers(node: Any, key: str = "") -> None:
    """Checks the numbers in a config.

    Args:
        node: Nested dicts and lists.
        key: Dotted key of the node.

    Raises:
        UserError: A number that is NaN, infinite, or larger than `LARGEST_NUMBER`.
    """
    if isinstance(node, dict | list):
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            check_numbers(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, int | float) and not abs(node) <= LARGEST_NUMBER:
        raise UserError(f"{key}={node}: expected a finite number of at most {LARGEST_NUMBER:g}")


def real_numbers(name: str, value: Any, count: int | None = None) -> list[float]:
    """Returns a list of finite numbers; a single number is a list of one.

    Args:
        name: What the user calls it.
        value: What was given.
        count: How many are expected; None for any number of them above zero.

    Raises:
        UserError: No list of finite numbers of that length.
    """
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    right = all(map(_is_finite, values))
    if not right or (count is not None and len(values) != count) or not values:
        raise UserError(f"{name}={_short(value)}: expected {'numbers' if count is None else f'{count} numbers'}")
    return [float(v) for v in values]


def one_of(name: str, value: T, choices: Collection[T], hint: str = "") -> T:
    """Returns a value that is one of several.

    Args:
        name: What the user calls it.
        value: What was given.
        choices: What is allowed.
        hint: What to do, appended to the error.

    Raises:
        UserError: Anything else.
    """
    try:
        found = value in choices
    except TypeError:  # a list has no hash
        found = False
    if not found:
        raise UserError(f"{name}={_short(value)}: expected one of {', '.join(map(str, choices))}{_tail(hint)}")
    return value


def true_or_false(name: str, value: Any) -> bool:
    """Returns a truth value.

    Args:
        name: What the user calls it.
        value: What was given.

    Raises:
        UserError: Anything but true or false.
    """
    if not isinstance(value, bool):
        raise UserError(f"{name}={_short(value)}: expected true or false")
    return value


def _bounds(least: float | None, most: float | None) -> str:
    if least is None:
        return "" if most is None else f" of at most {most:.10g}"
    return f" of at least {least:.10g}" if most is None else f" from {least:.10g} to {most:.10g}"


def _is_finite(value: Any) -> bool:
    """Returns whether a value is a finite number that float64 can hold."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _short(value: Any) -> str:
    """Returns the beginning of a value as text of one line."""
    try:
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(value)[: _MOST_SHOWN + 1])
    except ValueError:  # Python does not write numbers of more than 4,300 digits
        text = "a number of more than 4,300 digits"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _tail(hint: str) -> str:
    return f"; {hint}" if hint else ""
