"""The folder of an inversion that was killed: what it had done, so that the same command goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stylegan_inv.errors import UserError
from stylegan_inv.runtime.files import atomic_write, remove_partial
from stylegan_inv.runtime.inversions import check_output

_FOLDER, _JOB = "unfinished", "job.json"


class Unfinished:
    """State files of batches in ``<output>/unfinished``, until all are written.

    Args:
        output: Output folder.
        settings: What makes two commands the same; plain values.
    """

    def __init__(self, output: Path, settings: Mapping[str, Any]) -> None:
        self.folder = output / _FOLDER
        text = json.dumps(settings, sort_keys=True, default=str)
        self.key = hashlib.sha256(text.encode()).hexdigest()

    def check(self, overwrite: bool) -> None:
        """Check that the output can be written to, without writing.

        Raises:
            UserError: see `check_output`; or the folder holds the beginning of another command.
        """
        job = self.folder / _JOB
        if overwrite or not job.is_file():
            return check_output(self.folder.parent, overwrite)
        if self._key_of(job) != self.key:
            raise UserError(
                f"output={self.folder.parent}: holds an inversion with other settings or images that was not finished; "
                "give overwrite=true to drop it, or another folder"
            )

    def begin(self) -> None:
        """Make the folder, or go on in it."""
        job = self.folder / _JOB
        if job.is_file() and self._key_of(job) == self.key:
            remove_partial(self.folder)
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        with atomic_write(job) as temporary:
            temporary.write_text(json.dumps({"key": self.key}))

    def file(self, batch: int) -> Path:
        """Where the state of a batch belongs."""
        return self.folder / f"batch_{batch:05d}.safetensors"

    def end(self) -> None:
        """Everything is written: drop the states."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def _key_of(job: Path) -> str | None:
        try:
            return json.loads(job.read_text()).get("key")
        except (OSError, ValueError):
            return None


def describe_files(files: Sequence[Path] | None) -> list[tuple[str, int, int]]:
    """What tells whether files are still the same: path, size, time of change."""
    return [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files or []]
