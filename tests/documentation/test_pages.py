"""Pages of the project: links, notices, citation, API pages, and the README's length."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import stylegan_inv
from stylegan_inv.weights.notices import notices
from stylegan_inv.weights.table import TABLE
from tests.cli import REPOSITORY

PAGES = sorted(
    path
    for pattern in ("*.md", ".github/*.md", "stylegan_inv/**/*.md", "experiments/**/*.md", "tests/**/*.md")
    for path in REPOSITORY.glob(pattern)
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target) and not target.startswith("#"):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_every_weights_file_has_a_notice() -> None:
    page = (REPOSITORY / "stylegan_inv" / "weights" / "THIRD_PARTY.md").read_text(encoding="utf-8")
    assert page == notices(), "run python -m stylegan_inv.weights.notices > stylegan_inv/weights/THIRD_PARTY.md"
    assert all(f"`{name}`" in page and entry.licence in page for name, entry in TABLE.items())


def test_citation_and_changes_name_this_version() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == stylegan_inv.__version__
    assert f"## {stylegan_inv.__version__} (" in (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.long
def test_api_pages_build_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", ".github/build_docs.py", str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=500)
    for module, name in (
        ("methods", "ReStyle"),
        ("losses", "LPIPS"),
        ("generators", "Generator"),
        ("data", "FFHQCelebAHQDataModule"),
    ):
        page = (tmp_path / "stylegan_inv" / f"{module}.html").read_text(encoding="utf-8")
        assert f'id="{name}"' in page, f"{module}.{name} has no entry"
