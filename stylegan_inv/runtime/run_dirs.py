"""Which folder a run writes to, and what it continues from."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from stylegan_inv.errors import UserError
from stylegan_inv.runtime.checkpoint_io import LAST, newest_readable, read_checkpoint
from stylegan_inv.runtime.run_folder import RunFolder

_log = logging.getLogger(__name__)
#: What may differ between two runs of "the same command": it does not change what is computed.
_NO_MATTER = ("resume", "ckpt_path", "paths", "logger", "tags", "callbacks", "tune_allocator") + (
    "optimized_metric",
    "optimized_goal",
)


@dataclass
class Place:
    """Where a run goes.

    Attributes:
        run_dir: Its folder.
        ckpt_path: What it continues from; None starts anew.
        command: Hash of what is computed, see `command_hash`.
        finished: The same command has finished there already.
        fixed: The folder was given, or is that of the run to continue; otherwise a new one must be made.
    """

    run_dir: Path
    ckpt_path: Path | None
    command: str
    finished: bool = False
    fixed: bool = True

    def claim(self) -> None:
        """Make the folder; runs that start in the same second get different ones.

        Raises:
            UserError: It cannot be made or written to.
        """
        if process_rank() > 0:
            if not self.fixed:  # each rank saw its own clock; only the first one writes
                self.run_dir = Path(tempfile.mkdtemp(prefix="stylegan_inv_rank"))
            return
        try:
            self.run_dir.parent.mkdir(parents=True, exist_ok=True)
            wanted, number = self.run_dir, 1
            while True:
                try:
                    self.run_dir.mkdir()
                    break
                except FileExistsError:
                    if self.fixed and self.run_dir.is_dir():
                        break
                    number += 1
                    self.run_dir = wanted.with_name(f"{wanted.name}_{number}")
            with tempfile.TemporaryFile(dir=self.run_dir):
                pass
        except OSError as error:
            raise UserError(
                f"{self.run_dir}: cannot be written to ({error.strerror}); give another hydra.run.dir or "
                "paths.output_root"
            ) from error


def choose(cfg: DictConfig, wanted: Path, given: bool) -> Place:
    """Decide where to run and from what to go on; writes nothing.

    ``ckpt_path`` goes on from that file. ``resume=auto`` goes on with the newest unfinished run of the same command,
    in its folder. A folder that was given and holds a run of the same command is gone on with too.

    Args:
        cfg: Of the run.
        wanted: The folder by Hydra.
        given: Whether the user named it.

    Raises:
        UserError: A checkpoint that is missing or unreadable, a folder that holds another run, or a ``resume`` that is
            neither null nor ``auto``.
    """
    if cfg.resume not in (None, "auto"):
        raise UserError(f"resume={cfg.resume}: expected auto, or ckpt_path=<file> for a certain checkpoint")
    # A job that SLURM has put into the queue again is meant to go on.
    resume = cfg.resume == "auto" or int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0
    command = command_hash(cfg)
    if cfg.ckpt_path is not None:
        read_checkpoint(Path(cfg.ckpt_path))
        return Place(wanted, Path(cfg.ckpt_path), command, fixed=given)
    if given:
        return _continue_in(wanted, cfg, command, resume)
    if resume:
        runs = Path(cfg.paths.output_root, cfg.method_name).glob(f"*/checkpoints/{LAST}")
        for last in sorted(runs, key=_modified, reverse=True):
            run_dir = last.parent.parent
            record = RunFolder(run_dir).record()
            if record.get("command") == command and not _finished(record, cfg):
                _say_continuing(run_dir)
                return Place(run_dir, newest_readable(last.parent), command)
        _log.warning("resume=auto: no unfinished run of this command in %s; starting anew", cfg.paths.output_root)
    return Place(wanted, None, command, fixed=False)


def _continue_in(run_dir: Path, cfg: DictConfig, command: str, resume: bool) -> Place:
    record = RunFolder(run_dir).record()
    checkpoint = newest_readable(run_dir / "checkpoints")
    if checkpoint is None:
        return Place(run_dir, None, command)
    if record.get("command") != command and not resume:
        raise UserError(
            f"{run_dir}: holds another run; give another hydra.run.dir, or resume=auto to go on from its checkpoint "
            "with the new settings"
        )
    finished = record.get("command") == command and _finished(record, cfg)
    if not finished:
        _say_continuing(run_dir)
    return Place(run_dir, checkpoint, command, finished=finished)


def command_hash(cfg: DictConfig) -> str:
    """What is computed, as a hash: the resolved config without what only decides where, for how long and who is told.

    Runs of different ``trainer.max_steps`` are the same command: one can be the other's continuation.
    """
    cfg = deepcopy(cfg)
    for key, value in (("trainer.max_steps", 0), ("paths.run_dir", ""), ("dataset.num_workers", 0)):
        OmegaConf.update(cfg, key, value, force_add=True)
    for key in _NO_MATTER:
        if key != "paths":  # others refer to it
            OmegaConf.update(cfg, key, None, merge=False, force_add=True)
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    plain.pop("paths", None)
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()


def _finished(record: dict[str, Any], cfg: DictConfig) -> bool:
    steps = record.get("finished_steps")
    return isinstance(steps, int) and steps >= (OmegaConf.select(cfg, "trainer.max_steps") or 0)


def _say_continuing(run_dir: Path) -> None:
    if process_rank() == 0:
        print(f"continuing {run_dir}", flush=True)


def _modified(path: Path) -> float:
    return path.stat().st_mtime


def process_rank() -> int:
    """This process's rank before any process group exists: torchrun's, SLURM's or Lightning's."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0
