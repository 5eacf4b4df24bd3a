"""Reads each file of conf/ and of Hydra once for all tests of a process.

A composition asks a hundred times whether a file exists and opens fifty of them, which Hydra forgets afterwards; that
takes a third of its time. Folders that tests write are read as ever.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource
from hydra.plugins.config_source import ConfigSource

CONF = str(Path(__file__).resolve().parents[1] / "conf")


def keep_config_files() -> None:
    """Has Hydra keep what it finds in the folders that no test changes."""
    for source in (FileConfigSource, ImportlibResourcesConfigSource):
        for name in ("is_config", "is_group", "load_config"):
            setattr(source, name, _kept(getattr(source, name)))


def _kept(read: Callable[[ConfigSource, str], Any]) -> Callable[[ConfigSource, str], Any]:
    found: dict[tuple[str, str, str], Any] = {}

    @functools.wraps(read)
    def kept(source: ConfigSource, config_path: str) -> Any:
        if source.path != CONF and source.path.split(".")[0] != "hydra":
            return read(source, config_path)
        key = (source.provider, source.path, config_path)
        if key not in found:
            found[key] = read(source, config_path)
        return copy.deepcopy(found[key])

    return kept
