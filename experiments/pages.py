"""Functions that the scripts of this folder share: running commands, and writing results into pages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def command(module: str, *arguments: str) -> None:
    """Runs ``python -m stylegan_inv.<module>``; raises CalledProcessError if it fails."""
    print(f"python -m stylegan_inv.{module} {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", f"stylegan_inv.{module}", *arguments], check=True)


def write_below(heading: str, text: str, page: Path, origin: Path) -> None:
    """Writes the text of ``origin`` up to a heading, the heading and ``text`` to ``page``."""
    before, _, _ = origin.read_text(encoding="utf-8").partition(f"{heading}\n")
    page.write_text(f"{before.rstrip()}\n\n{heading}\n\n{text.strip()}\n", encoding="utf-8")


def hardware() -> str:
    """Returns the name of the GPU, or the number of CPU cores."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} CPU core{'s' if cores != 1 else ''}"
