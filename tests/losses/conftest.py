"""The folder of the reference numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden import golden_dir


@pytest.fixture(scope="session")
def golden() -> Path:
    if not (golden_dir() / "index.json").is_file():
        pytest.skip(f"no reference numbers in {golden_dir()} (STYLEGAN_INV_GOLDEN names another folder)")
    return golden_dir()
