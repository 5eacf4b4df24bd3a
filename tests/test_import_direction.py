"""The rules of who may import whom, and that importing costs little and does nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "stylegan_inv"
FILES = sorted(PACKAGE.rglob("*.py"))
ENTRY_POINTS = {"train", "evaluate", "invert", "edit", "benchmark", "convert", "prepare"}

# Which rooms of the package a room may use besides itself, `errors` and `runtime`'s plain helpers.
ALLOWED = {
    "generators": set(),
    "encoders": {"generators"},
    "losses": {"encoders", "generators"},
    "metrics": {"encoders", "losses"},
    "data": set(),
    "methods": {"encoders", "generators", "losses", "metrics", "latents", "data"},
}
PLAIN_RUNTIME = {"stylegan_inv.runtime.files", "stylegan_inv.runtime.weights"}


def imports(path: Path) -> set[str]:
    """All modules a file imports, at any depth, as absolute names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rooms_import_only_what_lies_below_them(path: Path) -> None:
    here = room(path)
    if here not in ALLOWED:
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "stylegan_inv" or len(parts) == 1:
            continue
        if parts[1] in {here, "errors"} or name in PLAIN_RUNTIME:
            continue
        assert parts[1] in ALLOWED[here], f"{here} must not import {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_lightning_and_hydra_stay_in_their_rooms(path: Path) -> None:
    here, names = room(path), imports(path)
    used = {name.split(".")[0] for name in names}
    if "hydra" in used:
        assert here in ENTRY_POINTS | {"config", "sweeps"}, f"{path} imports Hydra"
    if {"pytorch_lightning", "lightning"} & used:
        allowed = here in {"methods", "callbacks", "runtime"} | ENTRY_POINTS or path.name == "datamodule.py"
        assert allowed, f"{path} imports Lightning"


def test_import_is_light_and_touches_nothing() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import stylegan_inv; seconds = time.perf_counter() - start;"
        "heavy = {'torch', 'pytorch_lightning', 'hydra', 'wandb', 'matplotlib'} & set(sys.modules);"
        "print(seconds); print(sorted(heavy))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")
    assert float(out[0]) < 0.3
    assert out[1] == "[]"
