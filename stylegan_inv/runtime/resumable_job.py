"""Parts of a job on disk, kept until the job is complete: an interrupted command continues from them.

The processes of a job do not communicate. Each writes its parts; the one that writes the last part assembles the
result. So a job can be continued by another number of processes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stylegan_inv.errors import UserError
from stylegan_inv.utils.files import atomic_write, check_links, check_output, file_identity, is_partial
from stylegan_inv.utils.plain_data import read_json_object

_FOLDER, _JOB, _LOCK = "unfinished", "job.json", ".unfinished.lock"
_KEY = re.compile("[0-9a-f]{64}")
#: Files that a job writes into its folder; no other file is ever removed.
_OWN_FILE = re.compile(r"part_\d{5,}\.safetensors|part_\d{5,}_of_\d{5,}\.pt|batch_\d{5,}\.[a-z]+")


class ResumableJob:
    """The folder ``<output>/unfinished``, which holds parts and the state of batches until the result is written.

    Args:
        output: Output folder.
        settings: Values that identify the command; plain containers.
    """

    def __init__(self, output: Path, settings: Mapping[str, Any]) -> None:
        self.output, self.folder = output, output / _FOLDER
        self.key = settings_hash(settings)
        self._had_begun = False

    def has_begun(self) -> bool:
        """Returns whether the folder holds parts of this command."""
        return self._stored_key() == self.key

    def has_owner(self) -> bool:
        """Returns whether the folder holds parts of any command."""
        return self._stored_key() is not None

    def check(self, overwrite: bool) -> None:
        """Checks that the output can be written to, without writing.

        Args:
            overwrite: Whether earlier content of the output folder is replaced.

        Raises:
            UserError: See `check_output`; the folder holds parts of another command, and ``overwrite`` is false; or it
                holds files that no job has written.
        """
        check_links(self.output)
        self._had_begun = self.has_begun()
        self._check_owner()
        if overwrite or self._stored_key() is None:
            # Another process of this command may be about to make the folder.
            content = {path.name for path in self.output.iterdir()} if self.output.is_dir() else set()
            return check_output(self.output, overwrite or content <= {_FOLDER, _LOCK})
        if not self.has_begun():
            raise UserError(
                f"output={self.output}: holds the beginning of another command or of other images; "
                "give overwrite=true to drop it, or another folder"
            )

    def begin(self, clear: Callable[[Path], None], is_complete: Callable[[], bool]) -> bool:
        """Makes the folder, or continues in the existing one.

        Args:
            clear: Removes an earlier result from the output folder; called by the first process only.
            is_complete: Returns whether the output folder holds the result of this command.

        Returns:
            False if other processes have completed the job since `check`.
        """
        self.output.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if self.has_begun():
                return True
            if self._had_begun or is_complete():
                (self.output / _LOCK).unlink(missing_ok=True)
                return False
            self._check_owner()
            clear(self.output)
            self.remove()
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.folder / _JOB) as temporary:
                temporary.write_text(json.dumps({"key": self.key}))
            return True

    def check_begun(self) -> None:
        """Checks that the folder still is that of this command, before a part is written into it.

        Raises:
            UserError: It was removed, or another command has dropped it by ``overwrite=true``.
        """
        if not self.has_begun():
            raise UserError(
                f"output={self.output}: was removed, or taken over by another command, while this one worked; "
                "repeat it with another output"
            )

    def batch_file(self, batch: int) -> Path:
        """Returns the file for the state of a batch.

        A method that runs another one first keeps the state of that one beside it, with another suffix of letters.
        """
        return self.folder / f"batch_{batch:05d}.safetensors"

    def remove_batch(self, batch: int) -> None:
        """Removes all files for the state of a batch."""
        for file in self.folder.glob(f"batch_{batch:05d}.*"):
            if _OWN_FILE.fullmatch(file.name):
                file.unlink(missing_ok=True)

    def part_file(self, number: int) -> Path:
        """Returns the file of a part."""
        return self.folder / f"part_{number:05d}.safetensors"

    def missing_parts(self, numbers: Iterable[int]) -> list[int]:
        """Returns those of the given parts that this command has not written yet."""
        begun = self.has_begun()
        return [number for number in numbers if not (begun and self.part_file(number).is_file())]

    def finish(self, parts: Sequence[Path], assemble: Callable[[], None]) -> bool:
        """Assembles the result if all parts exist, in one process only, and removes the folder.

        Args:
            parts: Files of all parts.
            assemble: Writes the result.

        Returns:
            False if parts are missing; the process that writes the last one assembles the result.
        """
        if self.folder.is_dir() and not all(part.is_file() for part in parts):
            return False
        with self._locked():
            if self.has_begun():
                assemble()
                self.remove()
            # A process that still waits for this lock finds nothing left to do.
            (self.output / _LOCK).unlink(missing_ok=True)
        return True

    def remove(self) -> None:
        """Removes the folder, if it is that of a job; files that no job has written stay in it."""
        if self._stored_key() is None:
            return self._remove_empty()
        for file in sorted(self.folder.iterdir()):
            if _OWN_FILE.fullmatch(file.name) or is_partial(file):
                file.unlink(missing_ok=True)
        # The key last: it says whose files an interrupted removal leaves behind.
        (self.folder / _JOB).unlink(missing_ok=True)
        self._remove_empty()

    def _remove_empty(self) -> None:
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _check_owner(self) -> None:
        """Raises a UserError if the folder is not that of a job."""
        if self._stored_key() is not None or not os.path.lexists(self.folder):
            return
        # A job that has just been started has made the folder, and perhaps begun to write its key.
        if self.folder.is_dir() and not self.folder.is_symlink() and all(map(is_partial, self.folder.iterdir())):
            return
        raise UserError(
            f"output={self.output}: {self.folder} was not made by this program, which keeps unfinished work there; "
            "move it, or give another output"
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock

        with FileLock(self.output / _LOCK):  # the system releases it when its owner dies
            yield

    def _stored_key(self) -> str | None:
        """Returns the key of the command whose parts the folder holds; None if it is not the folder of a job."""
        if self.folder.is_symlink():
            return None
        key = read_json_object(self.folder / _JOB).get("key")
        return key if isinstance(key, str) and _KEY.fullmatch(key) else None


def is_unfinished(output: Path) -> bool:
    """Returns whether a folder holds the beginning of a result: the files of some images, and not of the others."""
    return ResumableJob(output, {}).has_owner()


def settings_hash(settings: Any) -> str:
    """Returns a hash of plain containers, whose keys may be texts and numbers."""
    try:
        text = json.dumps(settings, sort_keys=True, default=str)
    except TypeError:  # Python does not compare numbers with texts
        text = json.dumps(_with_text_keys(settings), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _with_text_keys(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else json.dumps(key): _with_text_keys(one) for key, one in value.items()}
    return [_with_text_keys(one) for one in value] if isinstance(value, list | tuple) else value


def file_identities(files: Sequence[Path] | None) -> list[tuple[str, int, int]]:
    """Returns path, size and modification time of each file, which tell whether it has changed; -1 for one without."""
    return [file_identity(file) for file in files or []]
