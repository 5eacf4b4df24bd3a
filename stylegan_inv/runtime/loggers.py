"""The loggers of a run: a CSV file always at hand, wandb on top, offline when there is no key."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger


def make_loggers(run_dir: str, csv: bool = True, wandb: dict[str, Any] | None = None) -> list[Logger]:
    """Build the loggers that write into ``run_dir``.

    Args:
        run_dir: The run's folder; ``metrics.csv`` and ``wandb/`` appear in it.
        csv: Write ``metrics.csv``.
        wandb: Arguments for :class:`WandbLogger`, or None. Without a key the run is recorded offline
            (``wandb sync`` uploads it later); nothing is ever asked.
    """
    loggers: list[Logger] = []
    if csv:
        loggers.append(CSVLogger(run_dir, name="", version="", flush_logs_every_n_steps=50))
    if wandb is not None:
        os.environ.setdefault("WANDB_SILENT", "true")
        loggers.append(WandbLogger(save_dir=run_dir, offline=not has_wandb_key(), name=Path(run_dir).name, **wandb))
    return loggers


def has_wandb_key() -> bool:
    """Whether wandb could log in without asking: an environment variable or a netrc entry, and not switched off."""
    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        return False
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (FileNotFoundError, netrc.NetrcParseError, OSError):
        return False
