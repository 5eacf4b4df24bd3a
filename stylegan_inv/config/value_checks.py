"""Checks every value of a composed config before anything is built: numbers and their ranges, paths and names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from stylegan_inv.config.number_ranges import range_of
from stylegan_inv.config.typed_names import check_names_are_text
from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import check_numbers

#: Sections in which each entry is a part that the user names.
_NAMED_PARTS = ("callbacks", "loss", "metrics")
_LONGEST_PART_NAME = 100


def check_values(config: DictConfig) -> None:
    """Checks all values of a config.

    Args:
        config: Composed config without its ``hydra`` node. Interpolations are not resolved: what they refer to is
            checked at its own place.

    Raises:
        UserError: A number that is NaN, infinite or outside of its range, text in its place, or a path or a name that
            YAML has read as a number.
    """
    check_plain_values(OmegaConf.to_container(config))


def check_plain_values(plain: Any) -> None:
    """Checks all values of a config that is given as plain containers, see `check_values`."""
    _check_part_names(plain)
    for key, value in _leaves(plain):
        check_names_are_text(key, value)
    check_numbers(plain)
    for key, value in _leaves(plain):
        found = range_of(key)
        if found is not None and value is not None and not _is_given_elsewhere(value):
            found.check(key, value)


def _check_part_names(node: Any, key: str = "") -> None:
    """Checks the names of losses, metrics and callbacks, which become names of modules and of columns."""
    for name, value in node.items() if isinstance(node, dict) else ():
        if key.rpartition(".")[2] in _NAMED_PARTS and not _is_part_name(name):
            shown = name if str(name).isprintable() else ascii(name)[1:-1]
            raise UserError(
                f"{key}: has an entry called {str(shown)[:_LONGEST_PART_NAME]!r}; expected a printable name without "
                f"dots, of at most {_LONGEST_PART_NAME} characters"
            )
        _check_part_names(value, f"{key}.{name}" if key else str(name))


def _is_part_name(name: Any) -> bool:
    return (
        isinstance(name, str)
        and 0 < len(name) <= _LONGEST_PART_NAME
        and name.isprintable()
        and name == name.strip()
        and "." not in name
    )


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted key and the value of everything that is no container."""
    if isinstance(node, dict | list):
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, node


def _is_given_elsewhere(value: Any) -> bool:
    return isinstance(value, str) and (value == "???" or "${" in value)
