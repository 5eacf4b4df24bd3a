"""What a run leaves on disk.

A run folder holds ``config.yaml`` (resolved), ``versions.json``, ``run.json``, ``metrics.csv``, ``metrics.json``,
``panels/`` and ``checkpoints/``.
"""

from __future__ import annotations

import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from stylegan_inv.runtime.run_dirs import write_record

_PACKAGES = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "omegaconf", "torchmetrics", "numpy", "Pillow")


def describe(run_dir: Path, config: dict[str, Any], command: str) -> None:
    """Write the resolved config, its hash, the git revision and the versions of what computed the run."""
    write_record(run_dir, command=command)
    OmegaConf.save(OmegaConf.create(config), run_dir / "config.yaml")
    versions = {"python": platform.python_version(), "platform": platform.platform(), "git": git_revision()}
    versions.update({name: metadata.version(name) for name in _PACKAGES})
    (run_dir / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")


def git_revision() -> str | None:
    """The revision of the checkout this package runs from, with ``+`` when files differ; None outside git."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
