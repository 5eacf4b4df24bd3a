"""The wheel is complete: it trains far from the repository, and works with a run that was moved."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import torch

from tests.cli import QUICK, REPOSITORY


def test_wheel_trains_elsewhere(tmp_path: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "--outdir",
            str(tmp_path / "dist"),
            str(REPOSITORY),
        ],
        check=True,
        capture_output=True,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    site = tmp_path / "site packages"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(site)
    tracked = subprocess.run(
        ["git", "ls-files", "conf", "stylegan_inv"], cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout.split()
    expected = {f"stylegan_inv/{name}" if name.startswith("conf/") else name for name in tracked}
    assert expected <= names
    assert {"stylegan_inv/visualization/templates/page.html", "stylegan_inv/visualization/templates/page.css"} <= names
    (entry_points,) = site.glob("*.dist-info/entry_points.txt")
    assert "stylegan-inv = stylegan_inv.cli:main" in entry_points.read_text().splitlines()

    def command(module: str, *arguments: str, cwd: Path) -> None:
        result = subprocess.run(
            [sys.executable, "-m", f"stylegan_inv.{module}", *arguments],
            cwd=cwd,
            env=dict(os.environ, PYTHONPATH=str(site)),
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr

    command("train", *QUICK, "trainer.max_steps=1", "hydra.run.dir=run", cwd=tmp_path)
    assert (tmp_path / "run" / "metrics.json").is_file()
    # Moved, and used from somewhere else.
    moved, elsewhere = tmp_path / "größe ünd raum" / "run", tmp_path / "elsewhere"
    moved.parent.mkdir(), elsewhere.mkdir()
    (tmp_path / "run").rename(moved)
    command("evaluate", f"run='{moved}'", "max_images=2", "speed.seconds=0", "output=figures", cwd=elsewhere)
    assert (elsewhere / "figures" / "metrics.json").is_file()
    command("train", *QUICK, "trainer.max_steps=2", f"hydra.run.dir='{moved}'", cwd=elsewhere)
    assert torch.load(moved / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2
    command("report", f"run='{moved}'", "output=report.html", cwd=tmp_path)
    assert "<h1>restyle: run</h1>" in (tmp_path / "report.html").read_text(encoding="utf-8")
    # The shipped encoder works with nothing else said.
    (tmp_path / "empty").mkdir()
    command("invert", "input=synthfaces:0-1", cwd=tmp_path / "empty")
    sheet = (
        tmp_path / "empty" / "outputs" / "restyle_synthfaces" / "inversions" / "synthfaces_0-1" / "contact_sheet.png"
    )
    assert sheet.is_file() and os.listdir(tmp_path / "empty") == ["outputs"]
    command("edit", "input=synthfaces:2", "edit=smile", cwd=tmp_path / "empty")
    edits = tmp_path / "empty" / "outputs" / "restyle_synthfaces" / "edits" / "smile_synthfaces_2"
    assert (edits / "strip.png").is_file() and len(os.listdir(edits / "images")) == 6
    assert os.listdir(elsewhere) == ["figures"] and not (tmp_path / "run").exists()
