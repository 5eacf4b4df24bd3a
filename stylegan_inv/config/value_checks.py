"""Checks every value of a composed config before anything is built: numbers and their ranges, paths and names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from stylegan_inv.config.number_ranges import range_of
from stylegan_inv.config.typed_names import check_names_are_text
from stylegan_inv.utils.checks import check_numbers


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
    for key, value in _leaves(plain):
        check_names_are_text(key, value)
    check_numbers(plain)
    for key, value in _leaves(plain):
        found = range_of(key)
        if found is not None and value is not None and not _is_given_elsewhere(value):
            found.check(key, value)


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted key and the value of everything that is no container."""
    if isinstance(node, dict | list):
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, node


def _is_given_elsewhere(value: Any) -> bool:
    return isinstance(value, str) and (value == "???" or "${" in value)
