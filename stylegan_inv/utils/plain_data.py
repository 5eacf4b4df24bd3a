"""Reads YAML and JSON files of strangers as plain data, within bounds.

YAML and pickles can hold a list that refers to another one ten times, which refers to the next one ten times: a few
hundred bytes describe billions of values. Values are therefore counted as often as they occur, and YAML aliases are
refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from stylegan_inv.errors import UserError
from stylegan_inv.utils.regular_files import open_regular

#: A resolved config has about 500 values in 8 levels and 10 kB.
MOST_VALUES = 100_000
MOST_LEVELS = 64
MOST_BYTES = 1 << 20
#: YAML is slow to read: 8,000 values a second.
_MOST_YAML_VALUES, _MOST_YAML_BYTES = 20_000, 1 << 18
#: Longer texts than any path. Python converts numbers of 4,300 digits or more in quadratic time.
MOST_CHARACTERS = 4096


def read_yaml(path: Path, interpolations: bool = False) -> Any:
    """Returns the content of a YAML file as dicts, lists, texts, numbers, booleans and None.

    Args:
        path: The file.
        interpolations: Whether texts may hold ``${...}``, which OmegaConf replaces, e.g. by environment variables.

    Raises:
        UserError: The file cannot be read, has aliases or tags of Python, or is larger, deeper or longer than allowed.
    """
    try:
        text = _text(path, _MOST_YAML_BYTES)
        _check_events(text, interpolations)
        if interpolations:
            return check_plain(yaml.safe_load(text))
        # OmegaConf reads more numbers than YAML 1.1 has, such as 1e-4.
        return check_plain(OmegaConf.to_container(OmegaConf.create(text)) if text.strip() else None)
    except UserError as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    except Exception as error:  # values with a wrong tag raise errors of many types
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: cannot be read ({first[:200]})") from error


def read_json_object(path: Path, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """Returns the object in a JSON file; empty if there is no such file, or it holds something else."""
    try:
        content = json.loads(_text(path, most_bytes))
    except (OSError, ValueError, RecursionError, UserError):
        return {}
    return content if isinstance(content, dict) else {}


def check_plain(value: Any, most_values: int = MOST_VALUES, most_levels: int = MOST_LEVELS) -> Any:
    """Returns a value that consists of dicts, lists, texts, numbers, booleans and None within bounds.

    Raises:
        UserError: It has values of another type, is deeper, or has more values, counted as often as they occur.
    """
    for number, (item, level) in enumerate(_values(value)):
        if number >= most_values:
            raise UserError(f"holds more than {most_values:,} values")
        if level > most_levels:
            raise UserError(f"is nested more than {most_levels} levels deep")
        if isinstance(item, int) and item.bit_length() > 64:
            raise UserError("holds a whole number of more than 64 bits")
        if not isinstance(item, dict | list | str | int | float | None):
            raise UserError(f"holds a {type(item).__name__}, expected texts, numbers, lists and mappings")
    return value


def _values(value: Any) -> Iterator[tuple[Any, int]]:
    """Yields every value and key with its level; without recursion, as values may be nested without end."""
    rest = [iter([(value, 0)])]
    while rest:
        for item, level in rest[-1]:
            yield item, level
            if isinstance(item, dict):
                rest.append(iter([(inner, level + 1) for pair in item.items() for inner in pair]))
                break
            if isinstance(item, list):
                rest.append(iter([(inner, level + 1) for inner in item]))
                break
        else:
            rest.pop()


def _text(path: Path, most_bytes: int = MOST_BYTES) -> str:
    if path.exists() and not path.is_file():
        raise UserError("is not a file")
    with open_regular(path) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise UserError(f"has more than {most_bytes:,} bytes")
    return content.decode("utf-8")


def _check_events(text: str, interpolations: bool) -> None:
    """Checks a document before its values are made, which is when aliases expand."""
    level = number = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise UserError("has YAML aliases, expected plain values")
        number += isinstance(event, yaml.NodeEvent)
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.ScalarEvent):
            if len(event.value) > MOST_CHARACTERS:
                raise UserError(f"has a text of more than {MOST_CHARACTERS:,} characters")
            if not interpolations and "${" in event.value:
                raise UserError(f"holds the interpolation {event.value[:60]!r}, expected a resolved config")
        if level > MOST_LEVELS:
            raise UserError(f"is nested more than {MOST_LEVELS} levels deep")
        if number > _MOST_YAML_VALUES:
            raise UserError(f"holds more than {_MOST_YAML_VALUES:,} values")
