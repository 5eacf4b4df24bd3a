"""Checks of the overrides of a command line: groups set to null, unknown keys, and added keys that nothing reads."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from stylegan_inv.config.composition import CONF_DIR, compose
from stylegan_inv.errors import UserError
from stylegan_inv.utils.regular_files import check_regular

#: Groups in which other names differ in nothing but their group; the first fitting key is suggested.
_LIKELY = ("optimizer", "dataset", "trainer", "method", "encoder", "edit", "generator")
#: Kinds of entries of ``hydra.searchpath``.
_SCHEMES = ("file", "pkg", "structured")
#: Error of Hydra about a key that does not exist.
_UNKNOWN_KEY = re.compile(r"Could not override '([^']+)'")


def check_groups(overrides: Sequence[str]) -> None:
    """Checks that no group is set to null, which Hydra's command line does not accept.

    Args:
        overrides: As on the command line.

    Raises:
        UserError: A group that is set to null.
    """
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        group = override.key_or_group
        if override.value() is None and not override.is_delete() and _is_group(group, [CONF_DIR]):
            options = ", ".join(sorted(file.stem for file in (CONF_DIR / group).glob("*.yaml")))
            raise UserError(f"{group}=null: expected one of {options}; leave {group} out for the default")


def searched_folders(overrides: Sequence[str]) -> list[str]:
    """Returns the folders that ``hydra.searchpath`` adds to those in which Hydra searches for configs.

    Hydra prints a warning about a folder that does not exist, and goes on without it.

    Args:
        overrides: As on the command line.

    Raises:
        UserError: An entry that is no folder and no package.
    """
    folders = []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        entries: Any = override.value() if override.key_or_group == "hydra.searchpath" else None
        for entry in entries if isinstance(entries, list) else ():  # Hydra refuses the others
            if not isinstance(entry, str) or "${" in entry:
                continue
            scheme, separator, rest = entry.partition("://")
            path = rest if separator else entry
            if separator and scheme not in _SCHEMES:
                raise UserError(f"hydra.searchpath: {entry}: expected a folder, file://<folder> or pkg://<package>")
            if separator and scheme == "pkg":
                if not _is_package(path):
                    raise UserError(f"hydra.searchpath: {entry}: no such package; install it, or give a folder")
            elif not separator or scheme == "file":
                if not os.path.isdir(path):
                    what = "is no folder" if os.path.lexists(path) else "no such folder"
                    raise UserError(f"hydra.searchpath: {entry}: {what}, expected one of configs")
                folders.append(path)
    return folders


def _is_package(name: str) -> bool:
    parts = name.replace("/", ".").split(".")
    try:
        return all(part.isidentifier() for part in parts) and importlib.util.find_spec(".".join(parts)) is not None
    except (ImportError, ValueError):
        return False


def check_added_keys(config: DictConfig) -> None:
    """Checks that something reads each key that the command line adds (``+key=value``).

    A key is read if a config file has it, a part of the config refers to it (``${key}``), or it is an argument of an
    object or an entry of a group, which are checked when they are built.

    Args:
        config: Composed config with its ``hydra`` node.

    Raises:
        UserError: An added key that nothing reads; the error names a similar one.
    """
    hydra_config = config.hydra
    name = str(hydra_config.job.config_name)
    folders = [Path(s.path) for s in hydra_config.runtime.config_sources if s.path and s.provider != "schema"]
    parsed = OverridesParser.create().parse_overrides(list(hydra_config.overrides.task))
    added = [o for o in parsed if _adds_key(o, folders)]
    if not added:
        return
    kept = [str(o.input_line) for o in parsed if o not in added]
    before = hydra.compose(name, kept)
    references = " ".join(text for text in _strings(OmegaConf.to_container(config)) if "${" in text)
    for override in added:
        key = override.key_or_group
        if not _is_read(key, before, references):
            raise UserError(f"{override.input_line}: nothing reads the key {key}; {_advice(key, override, before)}")


def explained(
    error: Exception, config_name: str, overrides: Sequence[str], folders: Sequence[str | None] = ()
) -> Exception:
    """Returns an error of Hydra with advice that helps here; other errors as they are.

    Args:
        error: Raised while a config was composed.
        config_name: Name of the top config.
        overrides: As on the command line.
        folders: Folders of configs that the command line names.
    """
    text = str(error)
    if isinstance(error, HydraException) and (hint := _quoting_hint(text, overrides)) is not None:
        return UserError(hint)
    if "hydra/sweeper/optuna" in text:
        return UserError("sweep=optuna: Optuna's sweeper is not installed; pip install 'stylegan_inv[sweep]'")
    if isinstance(error, MissingConfigException) and (found := _irregular_config(error, folders)) is not None:
        return found
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        nearest = get_close_matches(option, error.options, n=1)
        hint = f"; did you mean {group}={nearest[0]}?" if nearest else ""
        return UserError(f"{group}={option}: expected one of {', '.join(sorted(error.options))}{hint}")
    unknown = _UNKNOWN_KEY.search(text)
    if unknown is None:
        return error
    key = unknown[1]
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    wrong = next((o for o in parsed if o.key_or_group == key), None)
    if wrong is None:
        return error
    try:
        others = [str(o.input_line) for o in parsed if o.key_or_group != key and not o.is_sweep_override()]
        before = compose(config_name, others)
    except (HydraException, OmegaConfBaseException):
        return error
    return UserError(f"{wrong.input_line}: there is no key {key}; {_advice(key, wrong, before)}")


def _irregular_config(error: MissingConfigException, folders: Sequence[str | None]) -> UserError | None:
    """Returns an error about a pipe, a device or a folder with the name of a config, which Hydra does not see."""
    for folder in folders:
        file = Path(folder or CONF_DIR, f"{error.missing_cfg_file}.yaml")
        try:
            if os.path.lexists(file):
                check_regular(file, "a config")
        except UserError as problem:
            return problem
    return None


def _quoting_hint(error: str, overrides: Sequence[str]) -> str | None:
    """Returns what to type for a value with letters that have a meaning for Hydra; None if that is not the error."""
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or value.startswith(("[", "{")):
            continue
        escaped = value.strip("'\"").replace("\\", "\\\\").replace('"', '\\"')
        quoted = shlex.quote(f'{key}="{escaped}"')
        if "Ambiguous value" in error and f"'{override}'" in error:
            return (
                f"{override}: a comma separates the values of a sweep; for one value with a comma give {quoted}, for a "
                f"list {shlex.quote(f'{key}=[{value}]')}, for a sweep -m"
            )
        try:
            OverridesParser.create().parse_override(override)
        except HydraException:
            return f"{override}: has letters with a meaning for Hydra; if the value is meant as it is, give {quoted}"
    return None


def _adds_key(override: Override, folders: Sequence[Path]) -> bool:
    """Returns whether an override adds a key outside of the groups, whose entries are checked when they are built."""
    if not (override.is_add() or override.is_force_add()):
        return False
    key = override.key_or_group
    root = key.partition(".")[0]
    grouped = root != "paths" and _is_group(root, folders)
    return root != "hydra" and not _is_group(key, folders) and (root == key or not grouped)


def _is_group(name: str, folders: Sequence[Path]) -> bool:
    return any((folder / name).is_dir() for folder in folders)


def _is_read(key: str, before: DictConfig, references: str) -> bool:
    root = key.partition(".")[0]
    parts = key.split(".")
    # A reference to a whole section reads its keys; sections that exist before have readers of their own.
    names = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    added = [name for name in names if name == key or OmegaConf.select(before, name) is None]
    if any(re.search(rf"[{{:,.]\s*{re.escape(name)}\b", references) for name in added):
        return True
    if OmegaConf.select(before, key, throw_on_missing=False) is not None or (root == key and key in before):
        return True
    # Plain sections, such as `weights` and `lec`, have the keys of their file; objects check their arguments.
    parent: Any = before
    for part in parts[:-1]:
        if not OmegaConf.is_dict(parent) or part not in parent:
            return False
        parent = parent[part]
        if OmegaConf.is_dict(parent) and "_target_" in parent:
            return True
    return parent is not before and OmegaConf.is_dict(parent) and str(key.rpartition(".")[2]) in parent


def _advice(key: str, override: Override, before: DictConfig) -> str:
    similar = _similar(key, before)
    if not similar:
        return "--cfg job shows all keys"
    value = str(override.input_line).partition("=")[2]
    return f"did you mean {similar}={value}?"


def _similar(key: str, before: DictConfig) -> str | None:
    """Returns the most similar key of a config: one of the same name in a group, or one with a similar spelling."""
    names = [name for name in _keys(OmegaConf.to_container(before)) if not name.startswith(("hydra.", "callbacks."))]
    last = key.rpartition(".")[2]
    same = [name for name in names if name.rpartition(".")[2] == last and name != key]
    if same:
        return min(same, key=_likelihood)
    lasts = sorted({name.rpartition(".")[2] for name in names})
    close = get_close_matches(key, names, n=1, cutoff=0.7) or get_close_matches(last, lasts, n=1, cutoff=0.7)
    if not close:
        return None
    return close[0] if close[0] in names else min((n for n in names if n.endswith(f".{close[0]}")), key=_likelihood)


def _likelihood(name: str) -> tuple[int, int]:
    group = name.partition(".")[0]
    return name.count("."), _LIKELY.index(group) if group in _LIKELY else len(_LIKELY)


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Yields the dotted names of all values."""
    for key, value in node.items():
        name = f"{prefix}{key}"
        yield name
        if isinstance(value, dict):
            yield from _keys(value, f"{name}.")


def _strings(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for value in node.values():
            yield from _strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from _strings(value)
    elif isinstance(node, str):
        yield node
