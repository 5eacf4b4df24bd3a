"""The loggers of a run: a CSV file, and wandb, which records offline without a key."""

from __future__ import annotations

import inspect
import logging
import netrc
import os
import secrets
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, WandbLogger

from stylegan_inv.errors import UserError
from stylegan_inv.runtime.metrics_csv import MetricsCSV
from stylegan_inv.runtime.ranks import Ranks
from stylegan_inv.runtime.run_folder import RunFolder
from stylegan_inv.utils.checks import true_or_false

_log = logging.getLogger(__name__)
_INIT_SECONDS = 30.0


def make_loggers(run_dir: str, csv: bool = True, wandb: dict[str, Any] | None = None) -> list[Logger]:
    """Returns the loggers of a run.

    Args:
        run_dir: Folder of the run, in which ``metrics.csv`` and ``wandb/`` are written.
        csv: Whether to write ``metrics.csv``.
        wandb: Arguments for :class:`WandbLogger`, or None for no wandb. Without a key, or if the server cannot be
            reached, the run is recorded offline (``wandb sync`` uploads it later); the user is never prompted. A
            resumed run keeps its id.
    """
    loggers: list[Logger] = []
    if csv:
        loggers.append(MetricsCSV(run_dir))
    if wandb is not None:
        os.environ.setdefault("WANDB_SILENT", "true")
        loggers.append(_wandb_logger(Path(run_dir), wandb))
    return loggers


def check_logger_arguments(csv: Any = True, wandb: Any = None) -> None:
    """Checks arguments of `make_loggers` without building loggers, which connects to a server and writes files.

    Raises:
        UserError: ``csv`` is not a truth value, or wandb does not know one of its arguments.
    """
    true_or_false("logger.csv", csv)
    if wandb is None:
        return
    if not isinstance(wandb, dict):
        raise UserError(f"logger.wandb={wandb}: expected arguments of WandbLogger, or null")
    from wandb import init

    known = {name for function in (WandbLogger.__init__, init) for name in inspect.signature(function).parameters}
    for name in wandb:
        if name not in known - {"self", "kwargs"}:
            raise UserError(f"logger.wandb.{name}: neither WandbLogger nor wandb.init has such an argument")


def _wandb_logger(run_dir: Path, arguments: dict[str, Any]) -> WandbLogger:
    import wandb

    common = {"save_dir": str(run_dir), "id": _run_id(run_dir), "name": run_dir.name, "resume": "allow", **arguments}
    if Ranks.from_environment().is_first and has_wandb_key():
        seconds = float(os.environ.get("WANDB_INIT_TIMEOUT") or _INIT_SECONDS)
        try:
            logger = WandbLogger(settings=wandb.Settings(init_timeout=seconds), **common)
            _ = logger.experiment  # connects
            return logger
        except Exception as error:  # of any kind; none of them is a reason not to train
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            wandb.teardown()  # otherwise the id stays in use
            _log.warning("wandb cannot be reached (%s); the run is recorded offline in %s", first, run_dir / "wandb")
    # Offline no server tells whether the run exists: the id alone makes `wandb sync` continue it. Lightning's `offline`
    # sets an environment variable, which wandb no longer reads after it has tried to connect; hence `mode`.
    return WandbLogger(offline=True, mode="offline", **{k: v for k, v in common.items() if k != "resume"})


def _run_id(run_dir: Path) -> str:
    """Returns the id in ``run.json``; the first rank makes and stores it."""
    run_id = RunFolder(run_dir).record().get("wandb_id")
    if not isinstance(run_id, str):
        run_id = secrets.token_hex(4)
        if Ranks.from_environment().is_first:
            RunFolder(run_dir).update_record(wandb_id=run_id)
    return run_id


def has_wandb_key() -> bool:
    """Returns whether wandb can log in without prompting: by an environment variable or netrc, and not disabled."""
    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        return False
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (FileNotFoundError, netrc.NetrcParseError, OSError):
        return False
