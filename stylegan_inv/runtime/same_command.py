"""Whether a run folder was written by the same command, so that a new process may continue it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from omegaconf import DictConfig, OmegaConf

from stylegan_inv.errors import UserError
from stylegan_inv.runtime.resumable_job import settings_hash
from stylegan_inv.runtime.run_folder import RunFolder

#: Keys that do not change what is computed.
_IRRELEVANT = ("resume", "ckpt_path", "paths", "logger", "tags", "callbacks", "tune_allocator") + (
    "any_domain",
    "optimized_metric",
    "optimized_goal",
)
#: Keys that may differ between a run and its continuation, although other keys refer to them.
_MAY_DIFFER: dict[str, Any] = {"trainer.max_steps": 0, "paths.run_dir": "", "dataset.num_workers": 0}
#: The sections of version 0.1 that determine what is computed; its other sections are copied into these.
_SECTIONS_0_1 = ("seed", "dataset", "method", "trainer")


def command_hash(cfg: DictConfig) -> str:
    """Returns a hash of what a training computes.

    The hash does not depend on the run folder, on what is logged and on ``trainer.max_steps``: a run of more steps may
    continue one of fewer.

    Args:
        cfg: Config of the run, unresolved.
    """
    plain = _resolved_with(cfg, _MAY_DIFFER)
    for key in ("paths", "trust"):  # the hash of a run of before `trust` existed has neither
        plain.pop(key, None)
    return settings_hash(plain)


def is_same_command(run: RunFolder, cfg: DictConfig) -> bool:
    """Returns whether a run folder was written by the command with a config.

    Args:
        run: Folder of the earlier run, perhaps of version 0.1, whose hash is made of names that are different now.
        cfg: Config of the new run, unresolved.
    """
    record = run.record()
    if record.get("command") == command_hash(cfg):
        return True
    if "command" not in record or not run.config_file.is_file() or not run.has_old_names():
        return False
    try:
        before = run.stored_config()
        current = _resolved_with(cfg, {key: _selected(before, key) for key in _MAY_DIFFER})
    except UserError:
        return False
    return all(_agrees(before.get(section), current.get(section)) for section in _SECTIONS_0_1)


def _resolved_with(cfg: DictConfig, values: dict[str, Any]) -> dict[str, Any]:
    """Returns the config as plain containers, resolved after some values have been set."""
    cfg = deepcopy(cfg)
    for key, value in values.items():
        OmegaConf.update(cfg, key, value, force_add=True)
    for key in _IRRELEVANT:
        if key != "paths":  # other keys refer to it
            OmegaConf.update(cfg, key, None, merge=False, force_add=True)
    resolved: Any = OmegaConf.to_container(cfg, resolve=True)
    return resolved


def _selected(config: Any, key: str) -> Any:
    """Returns the value of a dotted key; None without one."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def _agrees(stored: Any, current: Any) -> bool:
    """Returns whether a config has every value of a stored one; objects may have gained arguments since."""
    if isinstance(stored, dict) and isinstance(current, dict):
        gained = current.keys() - stored.keys()
        if gained and "_target_" not in stored:
            return False
        return all(key in current and _agrees(value, current[key]) for key, value in stored.items())
    if isinstance(stored, list) and isinstance(current, list):
        return len(stored) == len(current) and all(map(_agrees, stored, current))
    return stored == current
