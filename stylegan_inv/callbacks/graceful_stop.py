"""Stops a training that is asked to: the step is finished, a checkpoint written, every rank leaves together."""

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
from pytorch_lightning.plugins.environments import LightningEnvironment

from stylegan_inv.callbacks.checkpoints import Checkpoints

_log = logging.getLogger(__name__)
#: What a shell sees of a process that was ended by SIGTERM. Schedulers take it as "stopped", not as "done".
_EXIT_CODES = {signal.SIGINT: 130}
_EXIT_STOPPED = 143


class Stopped(SystemExit):
    """Ends the process after a graceful stop; the checkpoint is written."""


class GracefulStop(Checkpoint):
    """SIGTERM, SIGUSR1 and the first Ctrl-C end the training after the present step, with a checkpoint.

    Handlers only set a flag. Once a step the ranks agree on it, so all leave at the same step, whichever of them was
    asked; stock Lightning communicates in the handler and hangs (#20806). On SLURM, SIGUSR1
    (``#SBATCH --signal=USR1@120``) also requeues the job. A second Ctrl-C ends the process at once. A signal in a
    validation ends it too (with several ranks after it, as their numbers of batches may differ).

    It is a `Checkpoint` so that Lightning runs it after the callbacks that change what is saved.
    """

    def __init__(self) -> None:
        self._asked: signal.Signals | None = None
        self._leaving: signal.Signals | None = None
        self._step = 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Take the place of Lightning's handlers, which it restores to the former ones itself."""
        self._step = trainer.global_step
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGUSR1", signal.SIGTERM)):
                signal.signal(signum, self._ask)

    def _ask(self, signum: int, frame: Any) -> None:
        if signum == signal.SIGINT and self._asked == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        if self._asked is None:
            self._asked = signal.Signals(signum)
            # Not through logging: its locks may be held by what the signal interrupted.
            again = "; again to end at once" if signum == signal.SIGINT else ""
            os.write(2, f"{self._asked.name}: stopping after this step, with a checkpoint{again}\n".encode())

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any) -> None:  # noqa: D102
        if trainer.global_step == self._step:
            return  # in the middle of an accumulated step: gradients are not saved
        self._step = trainer.global_step
        self._leaving = self._agreed(trainer)
        if self._leaving is not None:
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, Checkpoints):
                    callback.save(trainer)

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any) -> None:
        """Leave: now the figures of the last step are logged."""
        self._leave(trainer)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Leave: the checkpoint says that the validation is due."""
        self._leave(trainer)

    def on_validation_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:  # noqa: D102
        if trainer.world_size == 1 and self._asked is not None and trainer.state.fn == "fit":
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, Checkpoints):
                    callback.save(trainer)
            self._leaving = self._asked
            self._leave(trainer)

    def _agreed(self, trainer: pl.Trainer) -> signal.Signals | None:
        code = int(self._asked or 0)
        if trainer.world_size > 1:
            flag = torch.tensor(code, device=trainer.strategy.root_device)
            torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
            code = int(flag)
        return signal.Signals(code) if code else None

    def _leave(self, trainer: pl.Trainer) -> None:
        if self._leaving is None:
            return
        if trainer.is_global_zero:
            print(f"stopped by {self._leaving.name} after step {trainer.global_step}", flush=True)
            if self._leaving == getattr(signal, "SIGUSR1", None):
                requeue()
        environment: Any = getattr(trainer.strategy, "cluster_environment", None)
        if isinstance(environment, LightningEnvironment) and trainer.local_rank > 0:
            # The first rank started this one and watches it: anything but 0 would make it kill itself.
            raise Stopped(0)
        raise Stopped(_EXIT_CODES.get(self._leaving, _EXIT_STOPPED))


def requeue() -> None:
    """Put the SLURM job that this process belongs to into the queue again; nothing outside SLURM."""
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
        print(f"requeued SLURM job {job}", flush=True)
