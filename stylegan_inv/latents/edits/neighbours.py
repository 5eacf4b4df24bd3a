"""The nearest neighbours of pictures in a folder of inversions."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.latents.edits.subjects import Sheet, Subjects, whole
from stylegan_inv.latents.nearest import nearest_codes
from stylegan_inv.latents.saved_codes import LATENTS, holds_latents, read_latents


class Neighbours:
    """A row for each picture, its neighbours from the nearest on.

    Args:
        folder: with ``latents.safetensors`` in it or in folders below.
        count: neighbours.
    """

    name = "neighbours"
    there_and_back = False
    films = False

    def __init__(self, folder: str, count: int = 5) -> None:
        found = Path(folder).rglob("latents*.safetensors") if Path(folder).is_dir() else ()
        files = sorted(file for file in found if holds_latents(file))
        if not files:
            raise UserError(
                f"edit.folder={folder}: no {LATENTS} in it or below; expected outputs of stylegan_inv.invert"
            )
        read = [read_latents(file) for file in files]
        if len({latents.w.shape[1:] for latents in read}) > 1:
            raise UserError(f"edit.folder={folder}: holds codes of several shapes, expected those of one generator")
        self.codes, self.count = torch.cat([latents.w for latents in read]), whole(count, "edit.count", 1)
        self.hashes = {latents.metadata.get("generator_hash") for latents in read}

    def check(self, generator: Generator, count: int, random: bool) -> None:
        """See `Edit`."""
        if self.codes.shape[1:] != (generator.num_ws, generator.w_dim) or self.hashes - {generator.source_hash, None}:
            raise UserError("edit.folder: holds codes of another generator, expected those of the same")
        if self.count > len(self.codes):
            raise UserError(f"edit.count={self.count}: there are {len(self.codes)} codes in the folder")

    def sheets(self, subjects: Subjects) -> list[Sheet]:
        """One table; the row says how far the nearest and the last neighbour are."""
        distances, found = nearest_codes(subjects.w.cpu(), self.codes, self.count)
        columns = {"picture": subjects.render(subjects.w)}
        for k in range(self.count):
            codes = self.codes[found[:, k]].to(subjects.w)
            columns[f"neighbour {k + 1}"] = Subjects(subjects.generator, codes, subjects.names).render(codes)
        rows = [f"{name} ({d[0]:.2f}-{d[-1]:.2f})" for name, d in zip(subjects.names, distances, strict=True)]
        return [Sheet(columns, rows)]

    def frames(self, subjects: Subjects, count: int) -> Tensor:
        """There is none."""
        raise UserError("edit=neighbours: has no film; leave animation out")
