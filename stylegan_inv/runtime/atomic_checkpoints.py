"""Writes checkpoint files atomically, with a backup, and without ending the training on a full disk."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins import TorchCheckpointIO

from stylegan_inv.runtime.checkpoint_io import LAST, PREVIOUS, read_checkpoint
from stylegan_inv.utils.files import atomic_write

_log = logging.getLogger(__name__)
#: Space that must remain on the disk for metrics, panels and the log.
_SPARE_BYTES = 1 << 20


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
