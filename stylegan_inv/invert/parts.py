"""The parts of an inversion: images that one process inverts before it saves their results.

The batches and the parts follow from the number of images alone, and do not depend on the number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from stylegan_inv.data.images.image_files import save_image, to_uint8
from stylegan_inv.errors import UserError
from stylegan_inv.invert.input_warnings import Finding
from stylegan_inv.invert.output_folder import VARIANTS
from stylegan_inv.latents.saved_codes import FEATURES, GENERATORS, KEPT, NOISE, RECONSTRUCTIONS, write_features
from stylegan_inv.methods.common.reached_distances import relative_distances
from stylegan_inv.utils.safetensors_files import load_dataclass, save_dataclass, write_safetensors
from stylegan_inv.visualization.contact_sheet import difference_image

if TYPE_CHECKING:
    from stylegan_inv.methods.common.base import Inversion

#: Number of images that have a row in a contact sheet; later images have none.
SHEET_IMAGES = 1024
#: Side length of the images in a contact sheet, in pixels.
CELL = 160
_MAX_STEPS_SHOWN = 6
_MAX_PARTS = 1000


def split_into_parts(count: int, batch_size: int) -> list[list[range]]:
    """Returns the batches of each part: consecutive images, in at most 1,000 parts of equally many batches."""
    batches = [range(first, min(first + batch_size, count)) for first in range(0, count, batch_size)]
    size = -(-len(batches) // _MAX_PARTS)
    return [batches[first : first + size] for first in range(0, len(batches), size)]


@dataclass
class PartResult:
    """The results of a part, except for the files of its images.

    Attributes:
        indices: Indices of the images, ascending.
        w: Latent codes (B, L, D) of each batch.
        squared_errors: Mean squared error of each image, (B,) per batch.
        relative_errors: The same relative to the variance of each image, see `relative_distances`, (B,) per batch.
        finite: Whether codes and reconstruction of each image are finite, (B,) per batch.
        thumbnails: Caption -> (B, 3, h, w) uint8 of each batch, for the contact sheet.
        curves: Stage -> losses (steps, B) of each batch.
        errors: Errors of images that could not be read.
        findings: What is wrong with the image files.
    """

    indices: list[int] = field(default_factory=list)
    w: list[Tensor] = field(default_factory=list)
    squared_errors: list[Tensor] = field(default_factory=list)
    relative_errors: list[Tensor] = field(default_factory=list)
    finite: list[Tensor] = field(default_factory=list)
    thumbnails: dict[str, list[Tensor]] = field(default_factory=dict)
    curves: dict[str, list[Tensor]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @classmethod
    def load(cls, file: Path, key: str) -> PartResult:
        """Returns the results in a file.

        Raises:
            UserError: The file is damaged, or was written by another version.
        """
        part = load_dataclass(cls, file, key, torch.device("cpu"))
        if part is None:
            raise UserError(f"{file}: was written by another version; give overwrite=true to start again")
        return part


class PartWriter:
    """Collects the results of a part; writes the files of the images at once and the rest in `save`.

    Args:
        folder: Output folder.
        images: Reconstruction file of every image of the inversion, relative to the folder.
        metadata: Metadata of the files of noise maps and tuned generators.
        compare: Whether the reconstructions are compared with the inputs. False for sketches, label maps and holes.
    """

    def __init__(self, folder: Path, images: Sequence[str], metadata: Mapping[str, str], compare: bool) -> None:
        self.folder, self.images, self.metadata, self.compare = folder, images, dict(metadata), compare
        self.result = PartResult()

    def add(
        self,
        indices: Sequence[int],
        images: Tensor,
        inversion: Inversion,
        variants: Sequence[Tensor] = (),
        others: Mapping[str, Tensor] | None = None,
        curves: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Adds the next images.

        Args:
            indices: Indices of the images, ascending.
            images: Inputs (B, 3, S, S).
            inversion: Their inversion.
            variants: Other outputs for the same inputs, (B, 3, R, R) each.
            others: Caption -> other inputs (B, 3, S, S), or masks (B, 1, S, S) in [0, 1].
            curves: Stage -> losses (steps, B).
        """
        size = images.shape[-1]
        final = inversion.image.detach().float()
        resized = final if final.shape[-1] == size else F.adaptive_avg_pool2d(final, (size, size))
        w = inversion.w.detach().float().cpu()
        self.result.indices += indices
        self.result.w.append(w)
        squared_errors = (resized - images).square().flatten(1).mean(1)
        self.result.squared_errors.append(squared_errors.double().cpu())
        self.result.relative_errors.append(relative_distances(squared_errors, images).double().cpu())
        self.result.finite.append(final.isfinite().flatten(1).all(1).cpu() & w.isfinite().flatten(1).all(1))
        for stage, curve in (curves or {}).items():
            self.result.curves.setdefault(stage, []).append(curve.cpu())
        columns = {"input": images}
        columns.update({name: 2 * t - 1 if t.shape[1] == 1 else t for name, t in (others or {}).items()})
        columns.update(shown_steps(inversion))
        columns.update({f"variant {number}": variant for number, variant in enumerate(variants, start=1)})
        if self.compare:
            columns["difference"] = difference_image(resized, images)
        if rows := sum(index < SHEET_IMAGES for index in indices):
            for name, column in columns.items():
                self.result.thumbnails.setdefault(name, []).append(_thumbnails(column[:rows]))
        for row, index in enumerate(indices):
            self._save_image(index, final[row], [variant[row] for variant in variants], inversion, row)

    def save(self, file: Path, key: str) -> None:
        """Writes the results for `inversion_result`."""
        save_dataclass(self.result, file, key)

    def _save_image(
        self, index: int, image: Tensor, variants: Sequence[Tensor], inversion: Inversion, row: int
    ) -> None:
        relative = PurePosixPath(self.images[index]).relative_to(RECONSTRUCTIONS)
        save_image(image, self.folder / self.images[index])
        for number, variant in enumerate(variants, start=1):
            save_image(variant, self.folder / VARIANTS / str(number) / relative)
        one = inversion.select(slice(row, row + 1))
        kinds = {
            NOISE: _noise(inversion, row),
            GENERATORS: _difference(inversion, row),
            FEATURES: write_features(one.features or {}),
            KEPT: {name: t.detach().float().cpu().contiguous() for name, t in (one.kept or {}).items()},
        }
        for kind, tensors in kinds.items():
            if tensors:
                file = (self.folder / kind / relative).with_suffix(".safetensors")
                write_safetensors(file, tensors, self.metadata)


def shown_steps(inversion: Inversion) -> dict[str, Tensor]:
    """Returns caption -> images of at most six steps of a refinement, or of the reconstruction alone."""
    steps = inversion.steps or []
    if len(steps) < 2:
        return {"reconstruction": inversion.image}
    count = min(len(steps), _MAX_STEPS_SHOWN)
    chosen = [round(i * (len(steps) - 1) / (count - 1)) for i in range(count)]
    return {steps[i].name or f"step {i + 1}": steps[i].image for i in chosen}


def _noise(inversion: Inversion, row: int) -> dict[str, Tensor]:
    """Returns layer -> noise map of one image."""
    return {f"{k:02d}": m[row].detach().float().cpu().contiguous() for k, m in enumerate(inversion.noise or [])}


def _difference(inversion: Inversion, row: int) -> dict[str, Tensor]:
    """Returns the compressed difference of the generator that was tuned for one image, in half precision."""
    # Changes of weights of about 1, of which float16 keeps 3 digits: far below what an 8-bit image shows.
    return {name: t[row].detach().half().cpu().contiguous() for name, t in (inversion.weights or {}).items()}


def _thumbnails(images: Tensor) -> Tensor:
    # In 8 bits and at the size of a cell: 64 rows of 1024-px images in float32 would take gigabytes.
    images = images.detach().float()
    if images.shape[-1] > CELL:
        images = F.interpolate(images, size=(CELL, CELL), mode="bilinear", antialias=True)
    return to_uint8(images).cpu()
