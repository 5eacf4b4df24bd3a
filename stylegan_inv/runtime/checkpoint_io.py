"""Reads and writes checkpoint files: atomically, with a backup, and without ending the training on a full disk."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins import TorchCheckpointIO

from stylegan_inv.errors import UserError
from stylegan_inv.generators.io.layouts import shown
from stylegan_inv.generators.io.torch_pickle import load_checked
from stylegan_inv.generators.io.weight_files import unusable_values
from stylegan_inv.utils.files import atomic_write
from stylegan_inv.utils.regular_files import open_regular

_log = logging.getLogger(__name__)
LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
#: Space that must remain on the disk for metrics, panels and the log.
_SPARE_BYTES = 1 << 20
#: End of the names of states that are no tensors.
_EXTRA_STATE = "_extra_state"
#: The third entry of Lightning's checkpoints, and where it is.
_MARK, _HEAD_BYTES = b"pytorch-lightning_version", 4096


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint writer with atomic writes and a backup, ``previous.ckpt``.

    Stock Lightning writes to ``$TMPDIR`` and copies from there: if the process is killed during the copy, ``last.ckpt``
    is empty (Lightning #21253). Here the file is always either the old checkpoint or the new one.

    A checkpoint that cannot be written causes a warning; :attr:`failure` gives the reason. Training continues, the
    existing files stay, and the next save tries again.

    Args:
        recreate: Called if the folder has been deleted; writes the other files of the run folder.
    """

    def __init__(self, recreate: Callable[[], None] | None = None) -> None:
        self._recreate = recreate
        #: Reason why the last save failed; None if it succeeded.
        self.failure: str | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes a checkpoint; on failure logs a warning and changes nothing."""
        path = Path(path)
        try:
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True)
                if self._recreate is not None:
                    self._recreate()
            _check_room(checkpoint, path.parent)
            with atomic_write(path) as temporary:
                torch.save(checkpoint, temporary)
                _check_complete(temporary)
                if path.name == LAST and path.exists():
                    _keep_as_previous(path)
        except OSError as error:
            self.failure = f"{path}: cannot be written ({error.strerror or error})"
            _log.warning(
                "%s; training continues, the last good checkpoint stays, the next save tries again", self.failure
            )
        else:
            self.failure = None

    def remove_checkpoint(self, path: Any) -> None:
        """Removes a checkpoint file; never a folder, which the state of a stranger's checkpoint could name."""
        if Path(path).is_file():
            Path(path).unlink(missing_ok=True)

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Loads a checkpoint without executing code in it; see `read_checkpoint`."""
        return read_checkpoint(Path(path))


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
    """Turns errors about entries of other types, while a module takes what it needs, into one line."""
    try:
        yield
    except UserError:
        raise
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


def tensors(tree: Any) -> Iterable[torch.Tensor]:
    """Yields all tensors in nested dicts, lists and tuples."""
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from tensors(value)
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from tensors(value)


def _check_room(checkpoint: dict[str, Any], folder: Path) -> None:
    needed = sum(t.numel() * t.element_size() for t in tensors(checkpoint)) + _SPARE_BYTES
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {needed / 1e6:.0f} MB needed")


def _check_complete(path: Path) -> None:
    """Reads the archive's directory back: it is written last, so a truncated file has none."""
    try:
        with zipfile.ZipFile(path) as archive:
            archive.infolist()
    except zipfile.BadZipFile as error:
        raise OSError(errno.EIO, "the written file cannot be read back") from error


def _keep_as_previous(path: Path) -> None:
    """Gives the file a second name, so that ``last.ckpt`` exists at any moment."""
    previous, link = path.with_name(PREVIOUS), path.with_name(f".{Path(PREVIOUS).stem}.00000000.partial.ckpt")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, link)
    os.replace(link, previous)


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
