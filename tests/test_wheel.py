"""The wheel is complete: config tree and assets inside, and it trains far from the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

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
    result = subprocess.run(
        [sys.executable, "-m", "stylegan_inv.train", *QUICK, "trainer.max_steps=1", "hydra.run.dir=run"],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(site)),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "metrics.json").is_file()
