"""Checks the config of a run folder before anything that it names is imported."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from stylegan_inv.errors import UserError
from stylegan_inv.trust.allowed_names import (
    DATA_FILES,
    LARGEST,
    LOOKED_UP,
    PLACES,
    TRAINING_SECTIONS,
    buildable_names,
    training_names,
)
from stylegan_inv.utils.checks import check_numbers

#: Folders of the operating system whose files are devices or never end.
_SYSTEM_FOLDERS = ("/dev", "/proc", "/sys")
_DEVICE = re.compile(r"cpu|cuda(:[0-9]{1,2})?|mps")
_LONGEST_NAME = 200
#: The methods of this package have up to 20. Each may load a network, so that a short file could keep one waiting.
_MOST_OBJECTS, _MOST_ENTRIES = 64, 1000
_CONVERSIONS = ("none", "partial", "object", "all")
#: Keys and indices that lead to a value.
KeyPath: TypeAlias = tuple[Any, ...]


def checked_trust(value: Any) -> tuple[str, ...]:
    """Returns the modules that a user trusts.

    Args:
        value: ``trust`` of a command line: the dotted name of a module, a list of them, or None.

    Raises:
        UserError: Anything else.
    """
    modules = [value] if isinstance(value, str) else [] if value is None else value
    names = isinstance(modules, Sequence) and all(isinstance(m, str) and _is_dotted(m) for m in modules)
    if not names:
        raise UserError(
            f"trust={value}: expected the name of a module, such as trust=one_shot or trust=[one_shot,more]"
        )
    return tuple(modules)


def foreign_modules(config: Any) -> tuple[str, ...]:
    """Returns the modules that a config names and that need ``trust``."""
    return tuple(dict.fromkeys(_module(name) for _, name in _foreign_names(config) if _is_dotted(name)))


def check_names(config: Any, trust: Collection[str] = ()) -> None:
    """Checks every name and every special key of a config.

    Args:
        config: Plain containers, with the present names.
        trust: Modules whose names are allowed, too.

    Raises:
        UserError: A ``_target_`` that is no public name of this package, an optimiser or a schedule of PyTorch, nor in
            a trusted module; or a special key of Hydra with a value that it does not take.
    """
    for path, name in _foreign_names(config):
        if not _is_dotted(name):
            raise UserError(f"{_key(path)}={_short(name)}: expected the name of a public class of stylegan_inv")
        if not any(name == module or name.startswith(f"{module}.") for module in trust):
            raise UserError(
                f"{_key(path)}: names {_short(name)}, which is not one of the classes of stylegan_inv that a run may "
                f"use, and whose code would be executed; if you trust the author of this run, add trust={_module(name)}"
            )
    for path, value in _items(config):
        _check_special(path, value)
        if isinstance(value, dict) and "_target_" in value:
            _check_arguments(path, value)


def check_values(config: Any, where: str, folder: Path) -> None:
    """Checks the paths and sizes in a part of a config that is going to be built.

    A path names a file of weights or another run, which are read as data, or something inside the run folder.

    Args:
        config: Plain containers.
        where: Key of this part in the config.
        folder: The run folder.

    Raises:
        UserError: A path that leads out of the run folder, or a number that is not finite or too large.
    """
    check_numbers(config, where)
    objects = sum(path[-1] == "_target_" for path, _ in _items(config, (where,)))
    if objects > _MOST_OBJECTS:
        raise UserError(f"{where}: describes {objects} objects, expected at most {_MOST_OBJECTS}")
    for path, value in _items(config, (where,)):
        name = next(str(part) for part in reversed(path) if isinstance(part, str) and not part.isdigit())
        if isinstance(value, list) and len(value) > _MOST_ENTRIES:
            raise UserError(f"{_key(path)}: has {len(value)} entries, expected at most {_MOST_ENTRIES}")
        if isinstance(value, str):
            _check_path(_key(path), name, value, folder)
        if name == "device" and value is not None and not _DEVICE.fullmatch(str(value)):
            raise UserError(f"{_key(path)}={_short(value)}: expected cpu or cuda")
        most = LARGEST.get(name)
        if most is not None and isinstance(value, int | float) and not value <= most:
            raise UserError(f"{_key(path)}={value}: expected at most {most}")


def _check_path(key: str, name: str, value: str, folder: Path) -> None:
    leads_elsewhere = value.startswith(("/", "~", "\\")) or "://" in value or ".." in Path(value).parts
    if name in DATA_FILES:
        place = _resolved(value)
        if "://" in value or place is None or any(place.is_relative_to(system) for system in _SYSTEM_FOLDERS):
            raise UserError(f"{key}={_short(value)}: expected the name of known weights, or a file")
    elif name in PLACES or leads_elsewhere:
        if name == "export" and Path(value).name == value:  # a file in the run folder
            return
        place = _resolved(value)
        if place is None or not place.is_relative_to(folder.resolve()):
            advice = f"; to use it, give it yourself: +{key}=…" if key.startswith("dataset.") else ""
            raise UserError(
                f"{key}={_short(value)}: is not inside the run folder, where all paths of a run are{advice}"
            )


def _check_arguments(path: KeyPath, node: dict[Any, Any]) -> None:
    if wrong := [name for name in node if not isinstance(name, str)]:
        raise UserError(f"{_key(path)}: has an argument {_short(wrong[0])}, expected names")
    target = node["_target_"]
    if target not in LOOKED_UP:
        return
    if set(node) != {"_target_", "path"} or node["path"] not in LOOKED_UP[target]:
        raise UserError(
            f"{_key(path)}: {target} may only look up {', '.join(LOOKED_UP[target])} in the config of a run"
        )


def _check_special(path: KeyPath, value: Any) -> None:
    name = path[-1]
    if not isinstance(name, str) or not (name.startswith("_") and name.endswith("_")) or name == "_target_":
        return
    right = isinstance(value, bool) if name in ("_partial_", "_recursive_") else False
    if not right and not (name == "_convert_" and value in _CONVERSIONS):
        raise UserError(f"{_key(path)}={_short(value)}: is not allowed in the config of a run")


def _foreign_names(config: Any) -> Iterator[tuple[KeyPath, Any]]:
    """Yields the path and the value of each name that is not allowed."""
    for path, value in _items(config):
        if path[-1] != "_target_":
            continue
        known = isinstance(value, str) and value in buildable_names()
        mentioned = path[0] in TRAINING_SECTIONS and isinstance(value, str) and value in training_names()
        if not known and not mentioned:
            yield path, value


def _items(node: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yields the path and the value of each entry of nested dicts and lists, containers first."""
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in entries:
        yield (*path, key), value
        yield from _items(value, (*path, key))


def _resolved(value: str) -> Path | None:
    try:
        place = Path(value).expanduser().resolve()
        place.exists()
    except (OSError, RuntimeError, ValueError):  # a loop of links, an unknown home, a NUL, a name that is too long
        return None
    return place


def _key(path: KeyPath) -> str:
    return ".".join(map(str, path))


def _short(value: Any) -> str:
    text = repr(value) if not isinstance(value, str) or not value.isprintable() else value
    return text if len(text) <= 100 else f"{text[:100]}…"


def _module(name: str) -> str:
    return name.rpartition(".")[0] or name


def _is_dotted(name: Any) -> bool:
    return (
        isinstance(name, str)
        and len(name) <= _LONGEST_NAME
        and name.isascii()
        and all(part.isidentifier() for part in name.split("."))
    )
