"""The README's figures are those of experiments/, written by experiments/readme.py."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.cli import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "experiments"))
import readme  # noqa: E402

README = REPOSITORY / "README.md"


def test_readme_is_current():
    text = README.read_text(encoding="utf-8")
    assert readme.renewed(text) == text, "run python experiments/readme.py"


def test_another_figure_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In the README, and in the results."""
    text = README.read_text(encoding="utf-8")
    table = readme.read_table(readme.RESULTS)
    mse = readme.cell(table["psp_synthfaces"]["clear/mse"])
    assert mse in text
    assert readme.renewed(text.replace(mse, "0.001")) == text
    results = json.loads(readme.RESULTS.read_text())
    results["table"]["psp_synthfaces"]["clear/mse"]["mean"] = 0.5
    monkeypatch.setattr(readme, "RESULTS", tmp_path / "benchmark.json")
    readme.RESULTS.write_text(json.dumps(results))
    assert readme.renewed(text) != text


def test_marks_are_needed():
    with pytest.raises(SystemExit, match="has no part between"):
        readme.renewed("# A README\n")


def test_figures_of_the_part_are_there():
    for figure in re.findall(r"!\[[^]]*\]\(([^)]+)\)", readme.part()):
        assert (REPOSITORY / figure).is_file(), figure
