"""The wheel is complete: it trains far from the repository, and works with a run that was moved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import torch

from tests.cli import QUICK, REPOSITORY

#: Runs commands one after the other, each in a process that has imported other packages and nothing of this one.
SEVERAL = """
import json, os, runpy, sys
import pytorch_lightning

for folder, module, *arguments in json.loads(sys.argv[1]):
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0, (module, arguments)
    else:
        assert not any(name.startswith("stylegan_inv") for name in sys.modules)
        os.chdir(folder)
        sys.argv = [module, *arguments]
        runpy.run_module(f"stylegan_inv.{module}", run_name="__main__", alter_sys=True)
        break
"""


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

    def python(*arguments: str, cwd: Path) -> None:
        environment = dict(os.environ, PYTHONPATH=str(site))
        result = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr

    python("-m", "stylegan_inv.train", *QUICK, "trainer.max_steps=1", "hydra.run.dir=run", cwd=tmp_path)
    assert (tmp_path / "run" / "metrics.json").is_file()
    # Moved, and used from somewhere else.
    moved, elsewhere = tmp_path / "größe ünd raum" / "run", tmp_path / "elsewhere"
    moved.parent.mkdir(), elsewhere.mkdir()
    (tmp_path / "run").rename(moved)
    (tmp_path / "empty").mkdir()
    commands = [
        (elsewhere, "evaluate", f"run='{moved}'", "max_images=2", "speed.seconds=0", "output=figures"),
        (elsewhere, "train", *QUICK, "trainer.max_steps=2", f"hydra.run.dir='{moved}'"),
        (tmp_path, "report", f"run='{moved}'", "output=report.html"),
        # The shipped encoder works with nothing else said.
        (tmp_path / "empty", "invert", "input=synthfaces:0-1"),
        (tmp_path / "empty", "edit", "input=synthfaces:2", "edit=smile"),
    ]
    python("-c", SEVERAL, json.dumps(commands, default=str), cwd=tmp_path)
    assert (elsewhere / "figures" / "metrics.json").is_file()
    assert torch.load(moved / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2
    assert "<h1>restyle: run</h1>" in (tmp_path / "report.html").read_text(encoding="utf-8")
    outputs = tmp_path / "empty" / "outputs" / "restyle_synthfaces"
    assert (outputs / "inversions" / "synthfaces_0-1" / "contact_sheet.png").is_file()
    assert os.listdir(tmp_path / "empty") == ["outputs"]
    edits = outputs / "edits" / "smile_synthfaces_2"
    assert (edits / "strip.png").is_file() and len(os.listdir(edits / "images")) == 6
    assert os.listdir(elsewhere) == ["figures"] and not (tmp_path / "run").exists()
