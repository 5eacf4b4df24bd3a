"""Every command the README shows is accepted: it composes, and its keys exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from stylegan_inv.config import CONF_DIR
from tests.cli import REPOSITORY

COMMANDS = re.findall(
    r"^\s*(?:\$ )?python -m stylegan_inv\.([\w.]+) ?([^#\n]*)", (REPOSITORY / "README.md").read_text(), re.M
)


@pytest.mark.parametrize(("module", "line"), COMMANDS, ids=[f"{m} {a}".strip() for m, a in COMMANDS])
def test_command_composes(module: str, line: str) -> None:
    path = REPOSITORY / "stylegan_inv" / module.replace(".", "/")
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
    arguments = shlex.split(line)
    if "--config-dir" in arguments or not (Path(CONF_DIR) / f"{module}.yaml").is_file():
        return  # composed with the reader's own files; see tests/test_own_method.py
    flags_with_value = {"--cfg", "-c", "--package", "-p"}
    values = {k + 1 for k, a in enumerate(arguments) if a in flags_with_value}
    overrides = [a for k, a in enumerate(arguments) if not a.startswith("-") and k not in values]
    # Of a sweep `key=a,b` check every value.
    jobs: list[list[str]] = [[]]
    for override in overrides:
        key, _, value = override.partition("=")
        values = value.split(",") if "," in value and "[" not in value else [value]
        jobs = [[*job, f"{key}={v}"] if "=" in override else [*job, override] for job in jobs for v in values]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        for job in jobs:
            compose(module, overrides=job)
