"""Keeps the text of paths and names on a command line, which Hydra and YAML would read as numbers.

``output=20240115_120000`` is a whole number to Hydra, ``input=1e5`` a decimal number and ``run=true`` a truth value. A
key that holds a path or a name takes what was typed; only ``null`` stays what it is, no value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from stylegan_inv.config.composition import CONF_DIR
from stylegan_inv.errors import UserError
from stylegan_inv.trust.allowed_names import DATA_FILES, PLACES

#: Keys of the top level that hold a path or a name.
_TOP = (
    *("run", "default_run", "input", "output", "images", "targets", "masks", "mask", "reference", "start", "title"),
    *("ckpt_path", "resume", "trust", "tags", "per_image", "method_name"),
)
#: Other keys whose last part says that they do; ``start`` is a number of steps in schedules.
_ANYWHERE = frozenset(
    [
        *(name for name in (*DATA_FILES, *PLACES) if name != "start"),
        *("direction", "directions", "dir", "subdir", "output_root", "output_subdir", "default_root_dir", "filename"),
        *("name", "project", "group", "entity", "job_type", "notes", "tags", "save_dir", "category", "lsun"),
    ]
)
_START = "method.start"
#: Keys that hold one name, or a list of numbers.
_NUMBERS_IN_LISTS = ("weights",)
#: Letters that separate the elements of a value.
_ENDS = ",]}"


def is_name(key: str) -> bool:
    """Returns whether a key of a config holds a path or a name, or a list of them.

    Args:
        key: Dotted key; an element of a list has its number as the last part.
    """
    parts = key.split(".")
    while len(parts) > 1 and parts[-1].isdecimal():
        parts.pop()
    whole = ".".join(parts)
    if whole != key and parts[-1] in _NUMBERS_IN_LISTS:
        return False
    return whole in _TOP or whole == _START or whole.endswith(f".{_START}") or parts[-1] in _ANYWHERE


def as_typed(overrides: Sequence[str]) -> list[str]:
    """Returns overrides in which paths, names and options of groups are in quotes where Hydra would read a number.

    Args:
        overrides: As on the command line. What is no override, or has an error, is returned as it is.
    """
    return [_as_typed(override) for override in overrides]


def check_names_are_text(key: str, value: Any) -> None:
    """Checks that a path or a name from a config file is text; YAML reads ``007`` and ``1e5`` as numbers.

    Args:
        key: Dotted key; an element of a list has its number as the last part. Other keys may have any value.
        value: Its value.

    Raises:
        UserError: A number or a truth value.
    """
    if isinstance(value, int | float) and is_name(key):
        raise UserError(f"{key}={value}: is a path or a name, but YAML reads a number or a truth value; quote it")


def interpolated_names_as_text(config: DictConfig) -> None:
    """Turns paths and names that an interpolation makes a number, such as ``output=${seed}``, into text, in place.

    Args:
        config: Composed config without its ``hydra`` node.
    """
    for key in _interpolated(OmegaConf.to_container(config)):
        if not is_name(key):
            continue
        try:
            value = OmegaConf.select(config, key)
        except OmegaConfBaseException:  # of a missing key; whoever reads it says so
            continue
        if isinstance(value, int | float):
            OmegaConf.update(config, key, str(value))


def _interpolated(node: Any, key: str = "") -> Iterator[str]:
    """Yields the keys of values that are interpolations."""
    if isinstance(node, dict | list):
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _interpolated(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, str) and "${" in node:
        yield key


def _as_typed(override: str) -> str:
    left, equal, value = override.partition("=")
    key = left.lstrip("+~").partition("@")[0]
    if not equal or left.startswith("-") or not value:
        return override
    try:
        return f"{left}={_Reader(value).read(key)}"
    except _Malformed:
        return override


class _Malformed(Exception):
    """The text of a value is not as Hydra expects it; Hydra's own error says why."""


class _Reader:
    """Reads the text of a value: elements, lists and mappings.

    Args:
        text: What stands behind the equal sign.
    """

    def __init__(self, text: str) -> None:
        self.text, self.position = text, 0

    def read(self, key: str) -> str:
        """Returns the text with quotes where they are needed."""
        found = self._element(key)
        while self._next() == ",":  # a sweep
            self.position += 1
            found += f",{self._element(key)}"
        if self.position < len(self.text):
            raise _Malformed
        return found

    def _next(self) -> str:
        return self.text[self.position : self.position + 1]

    def _element(self, key: str) -> str:
        stripped = self.text[self.position :].lstrip()
        opening = stripped[:1]
        if opening not in ("[", "{"):
            return _quoted(key, "".join(self._letters(_ENDS)))
        self.position = len(self.text) - len(stripped) + 1
        found, closing = opening, "]" if opening == "[" else "}"
        while True:
            inner = f"{key}.0"
            if opening == "{" and self.text[self.position :].lstrip()[:1] != "}":
                name = "".join(self._letters(f":{_ENDS}"))
                if self._next() != ":":
                    raise _Malformed
                self.position += 1
                inner, found = f"{key}.{name.strip()}", f"{found}{name}:"
            found += self._element(inner)
            separator = self._next()
            if separator not in (",", closing) or not separator:
                raise _Malformed
            self.position += 1
            found += separator
            if separator == closing:
                rest = self.text[self.position :]
                self.position += len(rest) - len(rest.lstrip())
                return found

    def _letters(self, ends: str) -> Iterator[str]:
        """Yields what stands before the next of some letters, outside of quotes, calls and interpolations."""
        depth, quote = 0, ""
        while letter := self._next():
            if letter == "\\":
                letter = self.text[self.position : self.position + 2]
            elif quote:
                quote = "" if letter == quote else quote
            elif letter in "'\"":
                quote = letter
            elif letter == "(" or self.text.startswith("${", self.position):
                letter = "${" if letter == "$" else letter
                depth += 1
            elif depth and letter in ")}":
                depth -= 1
            elif not depth and letter in ends:
                return
            self.position += len(letter)
            yield letter


def _quoted(key: str, element: str) -> str:
    text = element.strip()
    if not text or text == "null" or not (is_name(key) or _is_group(key)):
        return element
    try:
        value = OverridesParser.create().parse_override(f"x={text}").value()
    except HydraException:
        return element
    return f"'{text}'" if value is None or isinstance(value, int | float) else element


def _is_group(key: str) -> bool:
    return "." not in key and Path(CONF_DIR, key).is_dir()
