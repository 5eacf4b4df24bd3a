"""The nearest neighbours of each image in a folder of inversions."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.latents.edits.base import EditInputs, ImageTable
from stylegan_inv.latents.nearest import nearest_codes
from stylegan_inv.latents.saved_codes import LATENTS, holds_latents, read_latents
from stylegan_inv.utils.checks import whole_number


class Neighbours:
    """A table with a row for each image: its neighbours, from the nearest on.

    Args:
        folder: Folder with ``latents.safetensors``, itself or in its subfolders.
        count: Number of neighbours.
    """

    name = "neighbours"
    ping_pong = False
    has_animation = False

    def __init__(self, folder: str, count: int = 5) -> None:
        found = Path(folder).rglob("latents*.safetensors") if Path(folder).is_dir() else ()
        files = sorted(file for file in found if holds_latents(file))
        if not files:
            raise UserError(f"edit.folder={folder}: no {LATENTS} in it; expected outputs of stylegan_inv.invert")
        read = [read_latents(file) for file in files]
        if len({latents.w.shape[1:] for latents in read}) > 1:
            raise UserError(f"edit.folder={folder}: holds codes of several shapes, expected those of one generator")
        self.codes, self.count = torch.cat([latents.w for latents in read]), whole_number("edit.count", count)
        self.hashes = {latents.metadata.get("generator_hash") for latents in read}

    def check(self, generator: Generator, count: int, random: bool) -> None:
        """Checks the generator of the codes and their number."""
        if self.codes.shape[1:] != (generator.num_ws, generator.w_dim) or self.hashes - {generator.source_hash, None}:
            raise UserError("edit.folder: holds codes of another generator, expected those of the same")
        if self.count > len(self.codes):
            raise UserError(f"edit.count={self.count}: there are {len(self.codes)} codes in the folder")

    def tables(self, inputs: EditInputs) -> list[ImageTable]:
        """Returns one table, whose row captions give the distances of the nearest and of the last neighbour."""
        distances, found = nearest_codes(inputs.w.cpu(), self.codes, self.count)
        columns = {"image": inputs.render(inputs.w)}
        for k in range(self.count):
            codes = self.codes[found[:, k]].to(inputs.w)
            columns[f"neighbour {k + 1}"] = EditInputs(inputs.generator, codes, inputs.names).render(codes)
        rows = [f"{name} ({d[0]:.2f}-{d[-1]:.2f})" for name, d in zip(inputs.names, distances, strict=True)]
        return [ImageTable(columns, rows)]

    def frames(self, inputs: EditInputs, count: int) -> Tensor:
        """Raises a UserError: there is no animation."""
        raise UserError("edit=neighbours: has no animation; leave animation out")
