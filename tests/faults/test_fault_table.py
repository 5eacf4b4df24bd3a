"""The table of behaviours in README.md names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.cli import REPOSITORY

PAGE = (Path(__file__).parent / "README.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


@pytest.mark.parametrize(("file", "function"), NAMED, ids=[function for _, function in NAMED])
def test_named_test_exists(file: str, function: str) -> None:
    tree = ast.parse((REPOSITORY / file).read_text())
    assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_row_has_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if re.match(r"\| (\d+)? ?\|", line)]
    assert [int(n) for n in re.findall(r"^\| (\d+) \|", PAGE, re.M)] == list(range(1, 33))
    assert all("::" in row for row in rows) and len(rows) == 79
