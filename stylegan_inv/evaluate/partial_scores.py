"""An evaluation by several processes: each keeps the scores of its share, and whoever ends last merges them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from stylegan_inv.data.images.image_files import natural_key
from stylegan_inv.evaluate.scoring import Scores
from stylegan_inv.utils.files import atomic_write


def part_file(folder: Path, rank: int, count: int) -> Path:
    """Where the scores of a rank belong. Another number of ranks makes other shares."""
    return folder / f"part_{rank:05d}_of_{count:05d}.pt"


def save_part(file: Path, scores: Scores, left_out: Sequence[str]) -> None:
    """Keep scores and the names of the files that could not be read."""
    with atomic_write(file) as temporary:
        torch.save({"scores": scores.state(), "left_out": list(left_out)}, temporary)


def merge_parts(files: Sequence[Path], scores: Scores) -> list[str]:
    """Put the scores of all ranks into fresh ones; the names of the files that were left out."""
    left_out: set[str] = set()
    for file in files:
        part: dict[str, Any] = torch.load(file, weights_only=True, map_location="cpu")
        scores.merge(part["scores"])
        left_out |= set(part["left_out"])
    return sorted(left_out, key=lambda name: natural_key(Path(name)))
