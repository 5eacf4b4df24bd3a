"""Remembers which runs were trained on this machine, and the modules that their configs name.

A method of one's own is a module outside of the package, which the config of a run may not name. The user who trained
the run has chosen that module. It is noted outside of the run folder, under a random id that the run folder holds,
together with the place of the folder and the hash of its config: neither a copy nor a changed config matches.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stylegan_inv.errors import UserError
from stylegan_inv.trust.config_check import check_values, foreign_modules
from stylegan_inv.utils.files import atomic_write
from stylegan_inv.utils.plain_data import read_json_object
from stylegan_inv.weights.download import file_hash

_log = logging.getLogger(__name__)
_OWN_PACKAGE = __name__.partition(".")[0]
#: The oldest notes are removed.
_MOST_NOTES = 5000


def remember_run(folder: Path, config_file: Path, config: Mapping[str, Any]) -> str | None:
    """Notes a run that is trained here, if its config names more than the config of a stranger's run may name.

    Args:
        folder: The run folder.
        config_file: Its config, which is written.
        config: The content of that file, as plain containers.

    Returns:
        The id of the note, for the run folder; None if no note is needed, or none can be written.
    """
    modules = foreign_modules(config)
    if not modules and _stays_inside(config, folder):
        return None
    identity, notes = secrets.token_hex(16), notes_folder()
    try:
        notes.mkdir(mode=0o700, parents=True, exist_ok=True)
        with atomic_write(notes / f"{identity}.json") as temporary:
            temporary.write_text(json.dumps(_note(folder, config_file, modules), indent=2) + "\n")
        for old in sorted(notes.glob("*.json"), key=lambda path: path.stat().st_mtime)[:-_MOST_NOTES]:
            old.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("%s: cannot be written to (%s); commands that load this run need trust=…", notes, error.strerror)
        return None
    return identity


def remembered_modules(folder: Path, config_file: Path, identity: Any) -> tuple[str, ...] | None:
    """Returns the modules that a run may name because it was trained here; None for any other run.

    Args:
        folder: The run folder.
        config_file: Its config.
        identity: The id in the run folder, which may be anything.
    """
    if not isinstance(identity, str) or not re.fullmatch("[0-9a-f]{32}", identity):
        return None
    file = notes_folder() / f"{identity}.json"
    if not _is_own(file) or not _is_own(file.parent):
        return None
    note = read_json_object(file)
    modules = note.get("modules")
    if not isinstance(modules, dict) or note != _note(folder, config_file, modules):
        return None
    return tuple(modules)


def notes_folder() -> Path:
    """Returns the folder of the notes: in ``$XDG_STATE_HOME``, by default ``~/.local/state``."""
    root = os.environ.get("XDG_STATE_HOME")
    return (Path(root).expanduser() if root else Path.home() / ".local" / "state") / "stylegan_inv" / "runs"


def _note(folder: Path, config_file: Path, modules: Iterable[str]) -> dict[str, Any]:
    origins = {module: _origin(module) for module in modules}
    return {"folder": str(folder.resolve()), "config": file_hash(config_file), "modules": origins}


def _origin(module: str) -> str | None:
    """Returns the file of the topmost package of a module, without importing it."""
    package = module.partition(".")[0]
    try:
        spec = None if package == _OWN_PACKAGE else find_spec(package)
    except (ImportError, ValueError):
        return None
    return None if spec is None or spec.origin is None else os.path.realpath(spec.origin)


def _stays_inside(config: Mapping[str, Any], folder: Path) -> bool:
    try:
        for part in ("method", "dataset"):
            check_values(config.get(part), part, folder)
    except UserError:
        return False
    return True


def _is_own(path: Path) -> bool:
    """Returns whether only this user can have written a file or folder."""
    try:
        found = path.stat()
    except OSError:
        return False
    return os.name == "nt" or (found.st_uid == os.getuid() and not found.st_mode & 0o022)
