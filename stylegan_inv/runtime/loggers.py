"""The loggers of a run: a CSV file, and wandb, which records offline without a key."""

from __future__ import annotations

import inspect
import logging
import netrc
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, WandbLogger

from stylegan_inv.errors import UserError
from stylegan_inv.runtime.metrics_csv import MetricsCSV
from stylegan_inv.runtime.ranks import Ranks
from stylegan_inv.runtime.run_folder import RunFolder
from stylegan_inv.utils.checks import environment_number, one_of, true_or_false
from stylegan_inv.utils.text import readable

_log = logging.getLogger(__name__)
_INIT_SECONDS = 30.0
_RUN_ID = re.compile("[0-9A-Za-z_-]{1,64}")
_MODES = ("online", "offline", "disabled")
#: Values of an environment variable that wandb takes for true.
_TRUE = ("true", "1", "yes", "on", "t", "y")


def make_loggers(run_dir: str, csv: bool = True, wandb: dict[str, Any] | None = None) -> list[Logger]:
    """Returns the loggers of a run.

    Args:
        run_dir: Folder of the run, in which ``metrics.csv`` and ``wandb/`` are written.
        csv: Whether to write ``metrics.csv``.
        wandb: Arguments for :class:`WandbLogger`, or None for no wandb. Without a key, or if the server cannot be
            reached, the run is recorded offline (``wandb sync`` uploads it later); the user is never prompted. A
            resumed run keeps its id. Nothing is recorded if wandb's variables ``WANDB_MODE`` or ``WANDB_DISABLED`` say
            so.
    """
    loggers: list[Logger] = []
    if csv:
        loggers.append(MetricsCSV(run_dir))
    if wandb is not None and not is_wandb_disabled(wandb):
        os.environ.setdefault("WANDB_SILENT", "true")
        loggers.append(_wandb_logger(Path(run_dir), wandb))
    return loggers


def check_logger_arguments(csv: Any = True, wandb: Any = None, run_dir: Path = Path()) -> None:
    """Checks arguments of `make_loggers` without building loggers, which connects to a server and writes files.

    Raises:
        UserError: ``csv`` is not a truth value, or wandb does not know one of its arguments, or cannot name the folder.
    """
    true_or_false("logger.csv", csv)
    if wandb is None:
        return
    if not isinstance(wandb, dict):
        raise UserError(f"logger.wandb={wandb}: expected arguments of WandbLogger, or null")
    _init_seconds()
    from wandb import init

    known = {name for function in (WandbLogger.__init__, init) for name in inspect.signature(function).parameters}
    if wandb.get("mode") is not None:
        one_of("logger.wandb.mode", wandb["mode"], _MODES)
    if (folder := str(run_dir.absolute())) != readable(folder) and not is_wandb_disabled(wandb):
        raise UserError(
            f"{readable(folder)}: wandb cannot write to a folder whose path is not UTF-8; give another one, or "
            "logger=csv"
        )
    for name in wandb:
        if name not in known - {"self", "kwargs"}:
            raise UserError(f"logger.wandb.{name}: neither WandbLogger nor wandb.init has such an argument")


def _wandb_logger(run_dir: Path, arguments: dict[str, Any]) -> WandbLogger:
    import wandb

    arguments = dict(arguments)
    offline = arguments.pop("mode", None) == "offline" or bool(arguments.pop("offline", False))
    common = {"save_dir": str(run_dir), "id": _run_id(run_dir), "name": run_dir.name, "resume": "allow", **arguments}
    if not offline and Ranks.from_environment().is_first and has_wandb_key():
        seconds = _init_seconds()
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


def _init_seconds() -> float:
    return environment_number("WANDB_INIT_TIMEOUT", _INIT_SECONDS, 0.1, 86_400)


def _run_id(run_dir: Path) -> str:
    """Returns the id in ``run.json``; the first rank makes and stores it."""
    run_id = RunFolder(run_dir).record().get("wandb_id")
    if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id):
        run_id = secrets.token_hex(4)
        if Ranks.from_environment().is_first:
            RunFolder(run_dir).update_record(wandb_id=run_id)
    return run_id


def is_wandb_disabled(arguments: Mapping[str, Any]) -> bool:
    """Returns whether wandb is not to record anything, not even offline.

    Args:
        arguments: Arguments for :class:`WandbLogger`; ``mode`` overrides the environment.
    """
    mode = arguments.get("mode") or os.environ.get("WANDB_MODE", "")
    return mode == "disabled" or os.environ.get("WANDB_DISABLED", "").lower() in _TRUE


def has_wandb_key() -> bool:
    """Returns whether wandb can log in without prompting: by an environment variable or netrc, and not offline."""
    if os.environ.get("WANDB_MODE") in ("offline", "dryrun"):
        return False
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (netrc.NetrcParseError, OSError, ValueError):  # a file that is no text, too
        return False
