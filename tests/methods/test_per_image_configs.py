"""Configs of per-image methods that version 0.1 wrote are read as the configs of this version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from stylegan_inv.config import CONF_DIR
from stylegan_inv.utils.old_names import replace_old_names

STORED = yaml.safe_load(Path(__file__).with_name("per_image_methods_0_1.yaml").read_text())
OVERRIDES = {
    "projector": ["method=projector"],
    "image2stylegan": ["method=image2stylegan"],
    "inpainting": ["method=image2stylegan_pp", "application=inpainting"],
    "crossover": ["method=image2stylegan_pp", "application=crossover"],
    "feature_transfer": ["method=image2stylegan_pp", "application=feature_transfer", "method.stages.w.steps=400"],
    "pti": ["method=pti"],
}


def without_networks(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    return {key: without_networks(v) for key, v in node.items() if key not in ("generator", "features", "metrics")}


@pytest.mark.parametrize("name", OVERRIDES)
def test_stored_config_is_the_config_of_this_version(name: str) -> None:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        cfg = compose("invert", overrides=["input=none", *OVERRIDES[name]])
    assert replace_old_names(STORED[name]) == without_networks(OmegaConf.to_container(cfg.method, resolve=True))
