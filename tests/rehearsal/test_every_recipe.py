"""Every recipe of the papers at its real size: trains, validates, continues, inverts, evaluates and edits.

The weights are random. `make rehearsal` writes what was measured to experiments/dress_rehearsal/.
"""

from __future__ import annotations

import json
import math
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file

from tests.cli import REPOSITORY
from tests.rehearsal.measured import Measured, machine, run_measured, write_row
from tests.rehearsal.recipes import RECIPES, REHEARSALS, SHORT, Rehearsal, filled
from tests.rehearsal.stand_ins import PHOTOS

#: Bytes that every command of every recipe may take.
MOST_MEMORY = 16e9
#: Recipes that have no row in the page yet: `make rehearsal` has not been run since they were added.
NOT_MEASURED = {"fse_ffhq", "hfgi_ffhq", "hyperinverter_ffhq", "hyperstyle_ffhq", "sfe_ffhq"}
STRENGTHS, PSI = (-2, 2), (1, 0.5)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of weights, data sets and photographs."""
    folder = tmp_path_factory.mktemp("world")
    environment = dict(os.environ, PYTHONPATH=str(REPOSITORY), STYLEGAN_INV_CACHE=str(folder / "cache"))
    subprocess.run([sys.executable, "-m", "tests.rehearsal.stand_ins", str(folder)], env=environment, check=True)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The folder in which the user works. The checkpoints of all recipes would fill a disk."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def test_every_recipe_of_the_papers_is_rehearsed() -> None:
    assert set(RECIPES) == set(REHEARSALS)


def test_page_shows_the_stored_results() -> None:
    page = REPOSITORY / "experiments" / "dress_rehearsal"
    results = json.loads((page / "results.json").read_text())
    assert results.keys() == set(RECIPES) - NOT_MEASURED
    table = runpy.run_path(str(page / "table.py"))
    assert "\n".join(table["lines"](results)) in (page / "README.md").read_text(encoding="utf-8")


@pytest.mark.long
@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe(recipe: str, world: Path, folder: Path) -> None:
    user = User(recipe, world, folder)
    train, resume = user.trains(), user.continues()
    commands = {"train": train, "resume": resume, "invert": user.inverts(), "evaluate": user.evaluates()}
    commands |= {"edit": user.edits(), "truncate": user.truncates()}
    row = {
        "seconds": {**user.times(train), **{name: run.seconds for name, run in commands.items() if name != "train"}},
        "peak_bytes": {name: run.peak for name, run in commands.items()},
        "machine": machine(),
    }
    if target := os.environ.get("STYLEGAN_INV_REHEARSAL"):
        write_row(Path(target), recipe, row)
    assert max(row["peak_bytes"].values()) < MOST_MEMORY, row["peak_bytes"]


class User:
    """What a user does with a recipe, in this order; every method runs a command and checks its result."""

    def __init__(self, recipe: str, world: Path, folder: Path) -> None:
        self.recipe, self.world, self.folder = recipe, world, folder
        self.rehearsal: Rehearsal = REHEARSALS[recipe]
        self.photos = world / "photos"
        self.run = Path()

    def trains(self) -> Measured:
        """Two steps, a validation and a checkpoint."""
        done = self._train("first")
        (self.run,) = (path.parent for path in self.folder.glob("outputs/*/*/checkpoints"))
        self.first = self._record("first")
        assert (self.first["first_step"], self.first["last_step"]) == (0, 2)
        assert len(self.first["steps"]) == 2 and len(self.first["validations"]) == 1
        assert self.first["optimizer_at_start"]["parameters"] == 0 < self.first["optimizer_at_end"]["parameters"]
        self._check_learning(self.first)
        metrics = json.loads((self.run / "metrics.json").read_text())
        assert {"val/mse", "val/psnr", "val/ssim", "val/lpips"} <= metrics.keys()
        assert ("val/id" in metrics) == ("id" in self.rehearsal.metrics)
        assert all(math.isfinite(value) for value in metrics.values())
        return done

    def continues(self) -> Measured:
        """A third step, with the state of the optimiser after the second one."""
        done = self._train("second", "trainer.max_steps=3", "resume=auto")
        assert f"continuing {self.run.relative_to(self.folder)}" in done.output
        second = self._record("second")
        assert (second["first_step"], second["last_step"]) == (2, 3) and len(second["steps"]) == 1
        assert second["optimizer_at_start"] == self.first["optimizer_at_end"] != second["optimizer_at_end"]
        assert second["generator_at_start"] == self.first["generator_at_start"]
        self._check_learning(second)
        state = torch.load(self.run / "checkpoints" / "last.ckpt", weights_only=True, mmap=True)
        assert state["global_step"] == 3
        return done

    def inverts(self) -> Measured:
        """Photographs, to the generator's size."""
        done = self._command("invert", f"run={self.run}", f"input={self.photos}", "device=cpu")
        self.inverted = self.run / "inversions" / "photos"
        codes = load_file(self.inverted / "latents.safetensors")["w"]
        assert codes.shape == (PHOTOS, self.rehearsal.num_ws, 512) and bool(codes.isfinite().all())
        images = sorted((self.inverted / "reconstructions").glob("*.png"))
        assert len(images) == PHOTOS
        self._check_images(images)
        return done

    def evaluates(self) -> Measured:
        """Two images, with the metrics of the domain."""
        small = ("max_images=2", "speed.seconds=0", "bootstrap.resamples=100", "output=evaluation", "device=cpu")
        done = self._command("evaluate", f"run={self.run}", *filled(self.rehearsal.evaluate, self.world), *small)
        result = json.loads((self.folder / "evaluation" / "metrics.json").read_text())
        assert result["counts"]["images"] == 2 and result["counts"]["not_finite"] == 0
        assert result["metrics"].keys() >= self.rehearsal.metrics
        values = {name: result["metrics"][name]["mean"] for name in self.rehearsal.metrics}
        assert all(math.isfinite(value) for value in values.values()), values
        return done

    def edits(self) -> Measured:
        """Photographs, along a direction in the layout of e4e's."""
        direction = self.folder / "mine.pt"
        generator = torch.Generator().manual_seed(0)
        torch.save(torch.randn(1, self.rehearsal.num_ws, 512, generator=generator), direction)
        strengths = f"edit.strength=[{','.join(map(str, STRENGTHS))}]"
        edit = ("edit=direction", f"edit.direction={direction}", strengths)
        done = self._command("edit", f"run={self.run}", f"input={self.photos}", *edit, "output=edited", "device=cpu")
        self._check_edits(self.folder / "edited", len(STRENGTHS))
        return done

    def truncates(self) -> Measured:
        """The codes that `invert` wrote."""
        source = OmegaConf.load(self.run / "config.yaml").generator.source
        edit = (
            "edit=truncate",
            f"edit.psi=[{','.join(map(str, PSI))}]",
            "generator=file",
            f"generator.source={source}",
        )
        done = self._command("edit", f"input={self.inverted}", *edit, "output=truncated", "device=cpu")
        self._check_edits(self.folder / "truncated", len(PSI))
        return done

    def times(self, train: Measured) -> dict[str, float]:
        """Returns the seconds of the parts of the first training."""
        first = self.first
        (validation,) = first["validations"]
        return {
            "loading": first["training_starts"] - train.started,
            "step": first["steps"][-1][1] - first["steps"][-1][0],
            "validation": validation[1] - validation[0],
        }

    def _train(self, name: str, *more: str) -> Measured:
        watch = f"+callbacks.watch={{_target_: tests.rehearsal.part_times.PartTimes, path: {name}.json}}"
        return self._command(
            "train", f"experiment={self.recipe}", *filled(self.rehearsal.train, self.world), *SHORT, watch, *more
        )

    def _command(self, module: str, *arguments: str) -> Measured:
        return run_measured(module, *arguments, cwd=self.folder, cache=self.world / "cache")

    def _record(self, name: str) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.folder / f"{name}.json").read_text())
        return record

    def _check_learning(self, record: dict[str, Any]) -> None:
        """The losses are finite, the encoder has changed and the generator has not."""
        assert record["finite"] and all(record["losses"]), record["losses"]
        # A first step of Ranger is the gradient times 1e-4, less than the precision of some weights.
        assert record["backbone_tensors_changed"] > 0.5 * record["backbone_tensors"] > 0
        assert record["generator_at_start"] == record["generator_at_end"]

    def _check_images(self, files: list[Path]) -> None:
        size = self.rehearsal.resolution
        for file in files:
            with Image.open(file) as image:
                assert image.size == (size, size), file
                assert max(high - low for low, high in image.getextrema()) > 0, f"{file} is of one colour"

    def _check_edits(self, folder: Path, columns: int) -> None:
        edited = [path for path in (folder / "images").glob("*.png") if not path.stem.endswith("_input")]
        assert len(edited) >= columns * PHOTOS
        self._check_images(edited)
        assert len({path.read_bytes() for path in edited}) > PHOTOS, "the edit changes nothing"
