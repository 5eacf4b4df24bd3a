"""The folder of work that is not finished: what was done, by any number of processes, so that the same command goes on.

The processes need not hear from one another: each keeps its parts here, and whoever keeps the last one puts the result
together.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stylegan_inv.errors import UserError
from stylegan_inv.utils.files import atomic_write, check_output

_FOLDER, _JOB, _LOCK = "unfinished", "job.json", ".unfinished.lock"


class Unfinished:
    """Parts and the state of batches in ``<output>/unfinished``, until the result is written.

    Args:
        output: Output folder.
        settings: What makes two commands the same; plain values.
    """

    def __init__(self, output: Path, settings: Mapping[str, Any]) -> None:
        self.output, self.folder = output, output / _FOLDER
        text = json.dumps(settings, sort_keys=True, default=str)
        self.key = hashlib.sha256(text.encode()).hexdigest()
        self._seen = False

    def exists(self) -> bool:
        """Whether the folder holds the beginning of this command."""
        return self._key() == self.key

    def check(self, overwrite: bool) -> None:
        """Check that the output can be written to, without writing.

        Raises:
            UserError: see `check_output`; or the folder holds the beginning of another command.
        """
        self._seen = self.exists()
        if overwrite or self._key() is None:
            # Another process of this command may be about to make the folder.
            content = {path.name for path in self.output.iterdir()} if self.output.is_dir() else set()
            return check_output(self.output, overwrite or content <= {_FOLDER, _LOCK})
        if not self.exists():
            raise UserError(
                f"output={self.output}: holds the beginning of another command or of other images; "
                "give overwrite=true to drop it, or another folder"
            )

    def begin(self, clear: Callable[[Path], None], done: Callable[[], bool]) -> bool:
        """Make the folder, or go on in it.

        Args:
            clear: Removes the earlier result from the output folder; called by the first process alone.
            done: Whether the result of this command lies there.

        Returns:
            False if other processes have done everything since `check`.
        """
        self.output.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if self.exists():
                return True
            if self._seen or done():
                (self.output / _LOCK).unlink(missing_ok=True)
                return False
            shutil.rmtree(self.folder, ignore_errors=True)
            clear(self.output)
            self.folder.mkdir(parents=True)
            with atomic_write(self.folder / _JOB) as temporary:
                temporary.write_text(json.dumps({"key": self.key}))
            return True

    def file(self, batch: int) -> Path:
        """Where the state of a batch belongs."""
        return self.folder / f"batch_{batch:05d}.safetensors"

    def part(self, number: int) -> Path:
        """Where a part belongs."""
        return self.folder / f"part_{number:05d}.safetensors"

    def missing(self, numbers: Iterable[int]) -> list[int]:
        """Of some parts those that were not kept by this command."""
        begun = self.exists()
        return [number for number in numbers if not (begun and self.part(number).is_file())]

    def finish(self, parts: Sequence[Path], put_together: Callable[[], None]) -> bool:
        """Put the result together if all parts are there, in one process alone, and drop the folder.

        Returns:
            False if some parts are not there yet; another process puts the result together then.
        """
        if self.folder.is_dir() and not all(part.is_file() for part in parts):
            return False
        with self._locked():
            if self.exists():
                put_together()
                self.end()
            # Who still waits for this lock finds nothing left to do.
            (self.output / _LOCK).unlink(missing_ok=True)
        return True

    def end(self) -> None:
        """Drop the folder, if there is one."""
        # First the record: of a removal that is cut short nothing is to be taken for work that is left.
        (self.folder / _JOB).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock

        with FileLock(self.output / _LOCK):  # the system takes it back when its owner dies
            yield

    def _key(self) -> str | None:
        """Of the command whose beginning the folder holds."""
        try:
            return json.loads((self.folder / _JOB).read_text()).get("key")
        except (OSError, ValueError):
            return None


def describe_files(files: Sequence[Path] | None) -> list[tuple[str, int, int]]:
    """What tells whether files are still the same: path, size, time of change."""
    return [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files or []]
