"""Recipes and their pages are one to one, and every recipe composes."""

from __future__ import annotations

import re

import pytest
from hydra import compose, initialize_config_dir

from stylegan_inv.config import CONF_DIR
from tests.cli import REPOSITORY

RECIPES = sorted(path.stem for path in (REPOSITORY / "conf" / "experiment").glob("*.yaml"))


def test_recipes_and_pages_are_one_to_one() -> None:
    pages = sorted(path.parent.name for path in (REPOSITORY / "experiments").glob("*/README.md"))
    assert RECIPES == pages and RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_composes_and_its_page_gives_the_command(name: str) -> None:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        cfg = compose("train", overrides=[f"experiment={name}"])
    assert cfg.method._target_.startswith("stylegan_inv.methods.")
    page = (REPOSITORY / "experiments" / name / "README.md").read_text()
    assert f"python -m stylegan_inv.train experiment={name}" in page
    for figure in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page):
        assert (REPOSITORY / "experiments" / name / figure).is_file(), figure
