"""Selects the folder that a training run writes to, and the checkpoint that it continues from."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from stylegan_inv.errors import UserError
from stylegan_inv.runtime.checkpoint_io import LAST, PREVIOUS, newest_readable, read_checkpoint
from stylegan_inv.runtime.ranks import Ranks
from stylegan_inv.runtime.run_folder import RunFolder
from stylegan_inv.runtime.same_command import command_hash, is_same_command
from stylegan_inv.utils.checks import environment_number
from stylegan_inv.utils.files import check_links, leads_into
from stylegan_inv.utils.regular_files import read_text

_log = logging.getLogger(__name__)
#: What a run writes first, without checkpoints: its config, versions and the log.
_FIRST_BYTES = 1 << 16
_MOST_BYTES = 1 << 24
#: What a training writes to without replacing it; the folder may hold other things of the user.
_WRITTEN = ("checkpoints", "panels", "worst", "codes", ".hydra", "wandb", "*.log")


@dataclass
class RunLocation:
    """Where a run writes, and what it continues.

    Attributes:
        run_dir: Folder of the run.
        ckpt_path: Checkpoint to continue from; None for a new run.
        command: Hash of the command, see `command_hash`.
        finished: Whether the same command has already finished in this folder.
        fixed: Whether the user named the folder, or the run continues in it; otherwise `create` makes a new one.
        named_checkpoint: Whether the user named the checkpoint.
    """

    run_dir: Path
    ckpt_path: Path | None
    command: str
    finished: bool = False
    fixed: bool = True
    named_checkpoint: bool = False

    def create(self) -> None:
        """Makes the folder; runs that start in the same second get different ones.

        Raises:
            UserError: The folder cannot be made or written to, or a link in it leads out of it.
        """
        if not Ranks.from_environment().is_first:
            if not self.fixed:  # each rank read its own clock; only the first one writes
                self.run_dir = Path(tempfile.mkdtemp(prefix="stylegan_inv_rank"))
            return
        if self.fixed and self.run_dir.exists() and not self.run_dir.is_dir():
            raise UserError(f"{self.run_dir}: is a file, expected a folder; give another hydra.run.dir")
        check_links(self.run_dir, _WRITTEN)
        # Folders that do not exist yet, the innermost first: none of them stays behind after an error.
        absent = [folder for folder in (self.run_dir, *self.run_dir.parents) if not folder.exists()]
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
            with tempfile.TemporaryFile(dir=self.run_dir) as file:
                file.write(bytes(_FIRST_BYTES))  # a full disk still has names for empty files
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            for folder in absent:
                with contextlib.suppress(OSError):  # not made, or another process uses it
                    folder.rmdir()
            raise UserError(
                f"{self.run_dir}: cannot be written to ({error.strerror}); give another hydra.run.dir or "
                "paths.output_root"
            ) from error


def select_location(cfg: DictConfig, wanted: Path, named: bool) -> RunLocation:
    """Selects where to run and from which checkpoint to continue; writes nothing.

    ``ckpt_path`` continues from that file. ``resume=auto`` continues the newest unfinished run of the same command in
    its folder. A folder that the user named and that holds a run of the same command is continued as well.

    Args:
        cfg: Config of the run.
        wanted: Folder that Hydra selects.
        named: Whether the user named that folder.

    Raises:
        UserError: A checkpoint that is missing or cannot be read, a folder that holds another run, or a ``resume`` that
            is neither null nor ``auto``.
    """
    if cfg.resume not in (None, "auto"):
        raise UserError(f"resume={cfg.resume}: expected auto, or ckpt_path=<file> for a certain checkpoint")
    # SLURM counts how often it has put a job into the queue again; such a job continues.
    resume = cfg.resume == "auto" or environment_number("SLURM_RESTART_COUNT", 0, 0, 1e9) > 0
    command = command_hash(cfg)
    if cfg.ckpt_path is not None:
        read_checkpoint(Path(cfg.ckpt_path))
        if named:
            _check_named_folder(RunFolder(wanted), cfg, Path(cfg.ckpt_path))
        return RunLocation(wanted, Path(cfg.ckpt_path), command, fixed=named, named_checkpoint=True)
    if named:
        return _continue_in(RunFolder(wanted), cfg, command, resume)
    if resume:
        checkpoints = Path(cfg.paths.output_root, cfg.method_name).glob(f"*/checkpoints/{LAST}")
        for last in sorted(checkpoints, key=_modified, reverse=True):
            run = RunFolder(last.parent.parent)
            if not _has_finished(run, cfg) and is_same_command(run, cfg):
                _report_continued(run)
                return RunLocation(run.path, newest_readable(run.checkpoints), command)
        _log.warning("resume=auto: no unfinished run of this command in %s; starting a new one", cfg.paths.output_root)
    return RunLocation(wanted, None, command, fixed=False)


def _continue_in(run: RunFolder, cfg: DictConfig, command: str, resume: bool) -> RunLocation:
    checkpoint = newest_readable(run.checkpoints)
    if checkpoint is None:
        _check_foreign_files(run)
        _check_results(run, cfg)
        return RunLocation(run.path, None, command)
    same = is_same_command(run, cfg)
    if not same and not resume:
        raise UserError(
            f"{run.path}: holds another run; give another hydra.run.dir, or resume=auto to continue from its "
            "checkpoint with the new settings"
        )
    finished = same and _has_finished(run, cfg)
    if not finished:
        _report_continued(run)
    return RunLocation(run.path, checkpoint, command, finished=finished)


def _check_named_folder(run: RunFolder, cfg: DictConfig, checkpoint: Path) -> None:
    """Checks that a run from a checkpoint replaces nothing of the user and of other runs.

    Raises:
        UserError: The folder holds files that no training has written, or another run that has no such checkpoint.
    """
    if not any((run.checkpoints / name).exists() for name in (LAST, PREVIOUS)):
        _check_foreign_files(run)
        _check_results(run, cfg)
    elif not leads_into(checkpoint, run.path) and not is_same_command(run, cfg):
        raise UserError(f"{run.path}: holds another run than ckpt_path={checkpoint}; give another hydra.run.dir")


def _check_results(run: RunFolder, cfg: DictConfig) -> None:
    """Checks that a folder without checkpoints holds no results of another command, which a new run would drop.

    Raises:
        UserError: It does. What the same command has written, it writes again.
    """
    found = [path.name for path in _results(run)]
    if found and not is_same_command(run, cfg):
        raise UserError(
            f"{run.path}: holds {', '.join(found)} of another run, which left no checkpoint; give another "
            "hydra.run.dir, of jobs of a sweep another hydra.sweep.subdir"
        )


def _results(run: RunFolder) -> list[Path]:
    """Returns the files in a folder without checkpoints that a new run would replace, besides its config."""
    folders = [run.path / name for name in ("panels", "worst", "codes")]
    return [
        *(file for file in (run.metrics_file, run.logged_metrics_file) if file.is_file()),
        *(folder for folder in folders if folder.is_dir() and any(folder.iterdir())),
    ]


def _check_foreign_files(run: RunFolder) -> None:
    if foreign := _foreign_files(run):
        raise UserError(
            f"{run.path}: holds {', '.join(foreign)}, which no training has written; give another hydra.run.dir"
        )


def _foreign_files(run: RunFolder) -> list[str]:
    """Returns the names of files and folders that a training would replace, though none has written them."""
    if "command" in run.record():
        return []
    files = (run.config_file, run.versions_file, run.record_file, run.metrics_file, run.logged_metrics_file)
    folders = [run.path / name for name in ("checkpoints", "panels", "worst", "codes")]
    found = [path for path in folders if path.is_dir() and any(path.iterdir())]
    hydra = run.path / ".hydra"  # that the first rank may be making now
    if Ranks.from_environment().is_first and hydra.is_dir() and any(hydra.iterdir()) and not _is_of_this_package(hydra):
        found.append(hydra)
    return [path.name for path in (*(file for file in files if os.path.lexists(file)), *found)]


def _is_of_this_package(hydra: Path) -> bool:
    """Returns whether a command of this package, and not another program, has made the folder of Hydra's files."""
    file = hydra / "hydra.yaml"
    try:
        return file.is_file() and "stylegan_inv." in read_text(file, _MOST_BYTES, "a config")
    except UserError:
        return False


def _has_finished(run: RunFolder, cfg: DictConfig) -> bool:
    steps = run.record().get("finished_steps")
    return isinstance(steps, int) and steps >= (OmegaConf.select(cfg, "trainer.max_steps") or 0)


def _report_continued(run: RunFolder) -> None:
    if Ranks.from_environment().is_first:
        print(f"continuing {run.path}", flush=True)


def _modified(path: Path) -> float:
    return path.stat().st_mtime
