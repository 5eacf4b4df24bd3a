"""Finds and composes the config tree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from stylegan_inv.config.resolvers import register_resolvers

_PACKAGE = Path(__file__).resolve().parents[1]
#: The config tree: in the installed wheel, or next to the package in a checkout.
CONF_DIR = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"

register_resolvers()


def compose(config_name: str, overrides: list[str]) -> DictConfig:
    """Returns the config of a command, outside of its command line; also while another command runs.

    Args:
        config_name: Name of the top config in ``conf/``, without ``.yaml``.
        overrides: As on the command line.
    """
    running = GlobalHydra.instance().hydra  # of the command line
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
            return hydra.compose(config_name, overrides)
    finally:
        GlobalHydra.instance().hydra = running


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Returns the resolved config as plain containers, which files and checkpoints can hold (``weights_only``)."""
    container = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def chosen_option(group: str) -> str | None:
    """Returns the option of a config group that was chosen; None if there is none, or outside of a command line."""
    return HydraConfig.get().runtime.choices.get(group) if HydraConfig.initialized() else None
