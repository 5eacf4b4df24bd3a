"""The recipes of generators at their real size: two steps, a validation, and the file for NVIDIA's code."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from stylegan_inv.generators.io.nvidia_snapshot import load_snapshot
from tests.cli import REPOSITORY
from tests.rehearsal.measured import run_measured
from tests.rehearsal.recipes import GENERATORS, SHORT, filled
from tests.rehearsal.test_every_recipe import folder, world  # noqa: F401

#: Bytes that every command may take.
MOST_MEMORY = 20e9
SMALL = (
    "dataset.expected_images=null",
    "metrics.fid50k_full.generated=2",
    "method.samples=1",
    "+augment.initial_p=0.5",
    "hydra.run.dir=run",
)
TERMS = ("generator", "discriminator", "r1", "path_length")


def test_every_recipe_for_photographs_is_rehearsed() -> None:
    recipes = {path.stem for path in (REPOSITORY / "conf" / "experiment").glob("stylegan2_*.yaml")}
    assert {name for name in recipes if "synthfaces" not in name} - {"stylegan2_comparison"} == set(GENERATORS)


@pytest.mark.long
@pytest.mark.parametrize("recipe", GENERATORS)
def test_recipe(recipe: str, world: Path, folder: Path) -> None:  # noqa: F811
    own = filled(GENERATORS[recipe], world)
    done = run_measured("train", f"experiment={recipe}", *own, *SHORT, *SMALL, cwd=folder, cache=world / "cache")
    assert done.peak < MOST_MEMORY, done.peak
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert metrics["val/fid50k_full_generated"] == 2 and metrics["val/fid50k_full_real"] == 12
    assert all(math.isfinite(metrics[f"train/loss/{term}"]) for term in TERMS)
    snapshot = folder / "network-snapshot-000000.pkl"
    written = run_measured("convert", "run", str(snapshot), "--codes", "1", cwd=folder, cache=world / "cache")
    assert "largest difference" in written.output
    resolution = {"stylegan2_ffhq256": 256, "stylegan2_ffhq1024": 1024, "stylegan2_transfer": 512}[recipe]
    assert load_snapshot(snapshot).generator.resolution == resolution
    print(f"{recipe}: {done.seconds:.0f} s, {done.peak / 1e9:.1f} GB")
