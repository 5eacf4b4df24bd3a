"""The loggers of a run: a CSV file always at hand, wandb on top, offline when there is no key."""

from __future__ import annotations

import logging
import netrc
import os
import secrets
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, WandbLogger

from stylegan_inv.runtime.metrics_csv import MetricsCSV
from stylegan_inv.runtime.run_dirs import process_rank
from stylegan_inv.runtime.run_folder import RunFolder

_log = logging.getLogger(__name__)
_INIT_SECONDS = 30.0


def make_loggers(run_dir: str, csv: bool = True, wandb: dict[str, Any] | None = None) -> list[Logger]:
    """Build the loggers that write into ``run_dir``.

    Args:
        run_dir: The run's folder; ``metrics.csv`` and ``wandb/`` appear in it.
        csv: Write ``metrics.csv``.
        wandb: Arguments for :class:`WandbLogger`, or None. Without a key the run is recorded offline
            (``wandb sync`` uploads it later), and also when the server cannot be reached; nothing is ever asked. A
            continued run goes on under the id that its folder keeps.
    """
    loggers: list[Logger] = []
    if csv:
        loggers.append(MetricsCSV(run_dir))
    if wandb is not None:
        os.environ.setdefault("WANDB_SILENT", "true")
        loggers.append(_wandb_logger(Path(run_dir), wandb))
    return loggers


def _wandb_logger(run_dir: Path, arguments: dict[str, Any]) -> WandbLogger:
    import wandb

    common = {"save_dir": str(run_dir), "id": _run_id(run_dir), "name": run_dir.name, "resume": "allow", **arguments}
    if process_rank() == 0 and has_wandb_key():
        seconds = float(os.environ.get("WANDB_INIT_TIMEOUT") or _INIT_SECONDS)
        try:
            logger = WandbLogger(settings=wandb.Settings(init_timeout=seconds), **common)
            _ = logger.experiment  # connects
            return logger
        except Exception as error:  # of many kinds, and none of them is a reason not to train
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            wandb.teardown()  # else the id stays in use
            _log.warning("wandb cannot be reached (%s); the run is recorded offline in %s", first, run_dir / "wandb")
    # Offline there is nothing to ask whether the run exists: the id alone makes `wandb sync` continue it. Lightning's
    # `offline` sets an environment variable, which wandb no longer reads once it has tried to connect.
    return WandbLogger(offline=True, mode="offline", **{k: v for k, v in common.items() if k != "resume"})


def _run_id(run_dir: Path) -> str:
    """The id in ``run.json``; made and kept there by the first rank."""
    run_id = RunFolder(run_dir).record().get("wandb_id")
    if not isinstance(run_id, str):
        run_id = secrets.token_hex(4)
        if process_rank() == 0:
            RunFolder(run_dir).update_record(wandb_id=run_id)
    return run_id


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
