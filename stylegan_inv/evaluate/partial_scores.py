"""An evaluation by several processes: each writes the scores of its shard, and the last one merges them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from stylegan_inv.data.images.image_files import natural_key
from stylegan_inv.evaluate.scoring import Scores
from stylegan_inv.runtime.ranks import Ranks
from stylegan_inv.utils.files import atomic_write
from stylegan_inv.utils.regular_files import check_regular


def part_files(folder: Path, ranks: Ranks) -> list[Path]:
    """Returns the file of the scores of each rank; other world sizes have other files, as their shards differ."""
    return [folder / f"part_{rank:05d}_of_{ranks.world_size:05d}.pt" for rank in range(ranks.world_size)]


def save_part(file: Path, scores: Scores, left_out: Sequence[str]) -> None:
    """Writes scores and the names of the files that could not be decoded."""
    with atomic_write(file) as temporary:
        torch.save({"scores": scores.state(), "left_out": list(left_out)}, temporary)


def merge_parts(files: Sequence[Path], scores: Scores) -> list[str]:
    """Merges the scores of all ranks and returns the names of the files that were left out.

    Args:
        files: See `part_files`.
        scores: Scores without images, to merge into.
    """
    left_out: set[str] = set()
    for file in files:
        check_regular(file, "the scores of a rank")
        part: dict[str, Any] = torch.load(file, weights_only=True, map_location="cpu")
        scores.merge(part["scores"])
        left_out |= set(part["left_out"])
    return sorted(left_out, key=lambda name: natural_key(Path(name)))
