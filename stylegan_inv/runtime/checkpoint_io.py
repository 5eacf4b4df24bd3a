"""Reads and checks checkpoint files. It imports no Lightning, which takes seconds; `atomic_checkpoints` writes them."""

from __future__ import annotations

import contextlib
import logging
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from stylegan_inv.errors import UserError
from stylegan_inv.generators.io.layouts import shown
from stylegan_inv.generators.io.torch_pickle import load_checked
from stylegan_inv.generators.io.weight_files import unusable_values
from stylegan_inv.utils.regular_files import open_regular

_log = logging.getLogger(__name__)
LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
#: End of the names of states that are no tensors.
_EXTRA_STATE = "_extra_state"
#: The third entry of Lightning's checkpoints, and where it is.
_MARK, _HEAD_BYTES = b"pytorch-lightning_version", 4096


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Returns the content of a Lightning checkpoint, without executing code in it.

    Raises:
        UserError: The file does not exist, is no checkpoint or is truncated.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; give a file such as <run>/checkpoints/last.ckpt")
    try:
        checkpoint = load_checked(path)
    except Exception as error:  # torch raises various types for broken files
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: cannot be read as a checkpoint ({first[:120]}); give another one") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise UserError(f"{path}: holds no state_dict; expected a checkpoint written by stylegan_inv.train")
    for key, value in checkpoint["state_dict"].items():
        # Modules may have states of their own; `check_state` compares the others with the tensors of the method.
        if not isinstance(key, str) or (isinstance(value, str | int | float | None) and not key.endswith(_EXTRA_STATE)):
            raise UserError(
                f"{path}: state_dict has {shown(str(key))}: a {type(value).__name__}, expected tensors by name; give "
                "another checkpoint"
            )
    return checkpoint


@contextlib.contextmanager
def restoring(path: Path, module: torch.nn.Module) -> Iterator[None]:
    """Names the file in errors while a module takes what it needs; of entries of other types, too."""
    try:
        yield
    except UserError as error:
        raise error if str(path) in str(error) else UserError(f"{path}: {error}") from error
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: does not fit {type(module).__name__} ({reason}); give another checkpoint") from error


def is_training_checkpoint(path: Path) -> bool:
    """Returns whether Lightning wrote a file, of which only the beginning is read."""
    try:
        with open_regular(path, "a checkpoint") as file, zipfile.ZipFile(file) as archive:
            entry = next(info for info in archive.infolist() if info.filename.endswith("/data.pkl"))
            if entry.compress_type != zipfile.ZIP_STORED:
                return False
            with archive.open(entry) as stream:
                return _MARK in stream.read(_HEAD_BYTES)
    except (OSError, ValueError, StopIteration, NotImplementedError, RuntimeError, zipfile.BadZipFile):
        return False


def newest_readable(folder: Path) -> Path | None:
    """Returns ``last.ckpt`` of a folder, or ``previous.ckpt`` if the last one is damaged; None without either.

    Raises:
        UserError: There are checkpoints, but none can be read.
    """
    problem: UserError | None = None
    for path in (folder / LAST, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            read_checkpoint(path)
        except UserError as error:
            _log.warning("%s", error)
            problem = problem or error
        else:
            return path
    if problem is not None:
        raise problem
    return None


def load_state(module: torch.nn.Module, state: dict[str, Any], source: Path) -> None:
    """Loads a state dict strictly, with an error of one line.

    Args:
        module: Module to load into.
        state: State dict.
        source: File that the state comes from, for the error.

    Raises:
        UserError: Missing or unexpected keys, or other shapes.
    """
    check_state(module, state, source)
    module.load_state_dict(state)


def check_state(module: torch.nn.Module, state: dict[str, Any], source: Path) -> None:
    """Checks that a state dict fits a module; see `load_state`.

    Raises:
        UserError: Missing or unexpected keys, or other shapes.
    """
    own = module.state_dict()
    if not all(isinstance(key, str) for key in state):
        raise UserError(f"{source}: does not fit {type(module).__name__}: holds keys that are not text")
    missing, surplus = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [
        f"{key} {_shape(state[key])} instead of {tuple(own[key].shape)}"
        for key in own.keys() & state.keys()
        if isinstance(own[key], torch.Tensor) and _shape(state[key]) != tuple(own[key].shape)  # else extra state
    ]
    problems = [
        f"{what}: {', '.join(map(shown, keys[:3]))}{' ...' if len(keys) > 3 else ''} ({len(keys)})"
        for what, keys in (("missing", missing), ("surplus", surplus), ("shape", sorted(shapes)))
        if keys
    ]
    problems = problems or unusable_values(own, state)[:2]
    if problems:
        raise UserError(f"{source}: does not fit {type(module).__name__}: {'; '.join(problems)}")


def _shape(value: Any) -> tuple[int, ...] | str:
    """Returns the shape of a tensor, and the type of anything else that a file may hold instead."""
    return tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
