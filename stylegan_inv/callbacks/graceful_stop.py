"""Stops a training on a signal: the step is completed, a checkpoint is written, and all ranks leave together."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from stylegan_inv.callbacks.checkpoints import Checkpoints
from stylegan_inv.utils.command_line import print_line
from stylegan_inv.utils.compat import is_launched_by_lightning

_log = logging.getLogger(__name__)
#: As a shell reports processes that a signal has ended; schedulers take these for "stopped", not for "completed".
_EXIT_CODES = {signal.SIGINT: 130}
_EXIT_STOPPED = 143


class Stopped(SystemExit):
    """Ends the process after a graceful stop; the checkpoint is written."""


class GracefulStop(Checkpoint):
    """Ends the training after the current step, with a checkpoint, on SIGTERM, SIGUSR1 and the first Ctrl-C.

    Handlers only set a flag. The ranks exchange it after each step, so all leave at the same step, whichever of them
    received the signal; stock Lightning communicates in the handler and hangs (#20806). On SLURM, SIGUSR1
    (``#SBATCH --signal=USR1@120``) also requeues the job. A second Ctrl-C ends the process at once. A signal during
    validation ends the validation too; with several ranks it takes effect after the validation, because their numbers
    of batches may differ.

    The class is a `Checkpoint` so that Lightning calls it after the callbacks that change what is saved.
    """

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._agreed: signal.Signals | None = None
        self._step = 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Replaces Lightning's signal handlers, which Lightning resets at the end of the training."""
        self._step = trainer.global_step
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGUSR1", signal.SIGTERM)):
                signal.signal(signum, self._receive)

    def _receive(self, signum: int, frame: Any) -> None:
        if signum == signal.SIGINT and self._received == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        if self._received is None:
            self._received = signal.Signals(signum)
            # Not through logging: the code that the signal interrupted may hold its locks.
            again = "; again to end at once" if signum == signal.SIGINT else ""
            os.write(2, f"{self._received.name}: stopping after this step, with a checkpoint{again}\n".encode())

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any) -> None:  # noqa: D102
        if trainer.global_step == self._step:
            return  # within an accumulated step: gradients are not saved
        self._step = trainer.global_step
        self._agreed = self._agree(trainer)
        if self._agreed is not None:
            _save(trainer)

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any) -> None:
        """Leaves, now that the metrics of the last step are logged."""
        self._leave(trainer)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Leaves; the checkpoint records that the validation is due."""
        self._leave(trainer)

    def on_validation_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:  # noqa: D102
        if trainer.world_size == 1 and self._received is not None and trainer.state.fn == "fit":
            _save(trainer)
            self._agreed = self._received
            self._leave(trainer)

    def _agree(self, trainer: pl.Trainer) -> signal.Signals | None:
        """Returns the signal that any rank has received."""
        code = int(self._received or 0)
        if trainer.world_size > 1:
            flag = torch.tensor(code, device=trainer.strategy.root_device)
            torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
            code = int(flag)
        return signal.Signals(code) if code else None

    def _leave(self, trainer: pl.Trainer) -> None:
        if self._agreed is None:
            return
        if trainer.is_global_zero:
            print_line(f"stopped by {self._agreed.name} after step {trainer.global_step}")
            if self._agreed == getattr(signal, "SIGUSR1", None):
                requeue()
        if is_launched_by_lightning(trainer) and trainer.local_rank > 0:
            # The first rank started this one and watches it: any other exit code would make it kill itself.
            raise Stopped(0)
        raise Stopped(_EXIT_CODES.get(self._agreed, _EXIT_STOPPED))


def requeue() -> None:
    """Requeues the SLURM job of this process; does nothing outside of SLURM."""
    array, job = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_JOB_ID")
    if array is not None:
        job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}"
    if job is None:
        return
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        _log.error("the job could not be requeued (scontrol requeue %s: %s); submit it again", job, error)
    else:
        print_line(f"requeued SLURM job {job}")


def _save(trainer: pl.Trainer) -> None:
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, Checkpoints):
            callback.save(trainer)
