"""Every recipe has a page with its command, the commands of all pages compose, and their figures exist."""

from __future__ import annotations

import re
import shlex

import pytest
from hydra import compose, initialize_config_dir

from stylegan_inv.config import CONF_DIR
from tests.cli import REPOSITORY

RECIPES = sorted(path.stem for path in (REPOSITORY / "conf" / "experiment").glob("*.yaml"))

PAGES = sorted(path.parent.name for path in (REPOSITORY / "experiments").glob("*/README.md"))
#: Pages without a recipe: edits, per-image optimisation, comparisons.
OTHERS = sorted(set(PAGES) - set(RECIPES))
COMMAND = re.compile(r"^ *python (-m stylegan_inv\.|experiments/)([\w./]+)((?:.*\\\n)*.*)$", re.M)


def test_every_recipe_has_its_page() -> None:
    assert RECIPES and set(RECIPES) <= set(PAGES)


@pytest.mark.parametrize("name", OTHERS)
def test_commands_of_other_pages_compose(name: str) -> None:
    folder = REPOSITORY / "experiments" / name
    page = (folder / "README.md").read_text()
    commands = COMMAND.findall(page)
    assert commands, "a page lists the commands that produced its figures"
    for kind, what, line in commands:
        if kind == "experiments/":
            assert (REPOSITORY / "experiments" / what).is_file()
        elif (CONF_DIR / f"{what}.yaml").is_file():
            arguments = shlex.split(line.replace("\\\n", " "), comments=True)
            with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
                compose(what, overrides=arguments)
        else:
            path = REPOSITORY / "stylegan_inv" / what.replace(".", "/")
            assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
    for figure in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page):
        assert (folder / figure).is_file(), figure


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_composes_and_its_page_gives_the_command(name: str) -> None:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        cfg = compose("train", overrides=[f"experiment={name}"])
    assert cfg.method._target_.startswith("stylegan_inv.methods.")
    page = (REPOSITORY / "experiments" / name / "README.md").read_text()
    assert f"python -m stylegan_inv.train experiment={name}" in page
    for figure in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page):
        assert (REPOSITORY / "experiments" / name / figure).is_file(), figure
