"""Image files with any name, and what the subcommands of prepare say about them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylegan_inv.prepare import __main__ as prepare


def photo(path: str | Path, level: int = 200) -> Path:
    """Writes an image of random pixels below a level; returns its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:  # Pillow itself cannot write such names on every system
        Image.fromarray(np.random.default_rng(level).integers(0, level, (20, 20, 3), dtype=np.uint8)).save(file, "PNG")
    return path


def prepared(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a subcommand of prepare prints, or the line that it ends with."""
    try:
        prepare.main([*map(str, arguments), "--workers", "0"])
    except SystemExit as stop:
        assert stop.code in (1, 2)
        return capsys.readouterr().err
    return capsys.readouterr().out
