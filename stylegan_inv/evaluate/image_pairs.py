"""Reconstructions in image files, which any tool may have written, with their targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset, default_collate

from stylegan_inv.data.images.image_files import check_image, find_images, name_list, read_image
from stylegan_inv.data.sources.name_lists import stem
from stylegan_inv.errors import UserError
from stylegan_inv.evaluate.evaluation_data import batches_of
from stylegan_inv.evaluate.scoring import Comparison
from stylegan_inv.runtime.ranks import Ranks
from stylegan_inv.utils.text import readable


@dataclass
class ImagePairs(Dataset[dict[str, Any]]):
    """Reconstructions and targets in folders, matched by their paths without the suffix.

    Attributes:
        names: Paths of the reconstructions, relative to their folder.
        images: Files of the reconstructions.
        targets: File of the target of each.
        masks: File of the mask of each (white: region of interest), or None.
        resolution: Side length at which targets and masks are read; reconstructions keep their own.
        unmatched: Files of the folders without a match, which are left out.
        other_formats: Image files in formats that cannot be read, which are left out, too.
    """

    names: list[str]
    images: list[Path]
    targets: list[Path]
    masks: list[Path] | None
    resolution: int
    unmatched: list[str]
    other_formats: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item: dict[str, Any] = {
            "image": read_image(self.images[index]),
            "target": read_image(self.targets[index], self.resolution),
            "index": index,
            "name": self.names[index],
        }
        if self.masks is not None:
            item["mask"] = (read_image(self.masks[index], self.resolution).mean(dim=0, keepdim=True) + 1) / 2
        return item


def match_folders(
    images: Path, targets: Path, masks: Path | None, resolution: int | None, on_missing: str = "error"
) -> ImagePairs:
    """Matches the files of two or three folders.

    Args:
        images: Folder of reconstructions.
        targets: Folder of targets.
        masks: Folder of regions of interest, or None.
        resolution: Side length of targets; None takes that of the first reconstruction.
        on_missing: ``error``, or ``skip`` to leave out files without a match, which are counted.

    Raises:
        UserError: Folders without images, without a match, or with files that have no match; an image that cannot be
            decoded, or a reconstruction that is not square.
    """
    folders = {what: folder for what, folder in (("images", images), ("targets", targets), ("masks", masks)) if folder}
    listed = {what: find_images(folder) for what, folder in folders.items()}
    found = {what: _by_stem(folder, listed[what].images) for what, folder in folders.items()}
    others = [f"{what}: {readable(path.name)}" for what, files in listed.items() for path in files.others]
    shared = [name for name in found["images"] if all(name in files for files in found.values())]
    partners = set(shared)
    unmatched = [
        f"{what}: {readable(path.name)}"
        for what, files in found.items()
        for name, path in files.items()
        if name not in partners
    ]
    if not shared:
        raise UserError(
            f"{images} and {targets}: no two files have the same name (without the suffix), expected a file in both "
            f"for each comparison; got {name_list([*found['images']], 2)} and {name_list([*found['targets']], 2)}"
        )
    if unmatched and on_missing == "error":
        raise UserError(
            f"{len(unmatched)} files have no partner ({name_list(unmatched, 3)}); give them, or on_missing=skip"
        )
    files = {what: [by_stem[name] for name in shared] for what, by_stem in found.items()}
    # Every file is decoded once, so that a broken one is reported now and not in the middle of the evaluation.
    for path in chain(files["targets"], files.get("masks", [])):
        check_image(path)
    sizes = {path: read_image(path).shape[1:] for path in files["images"]}
    odd = next((path for path, (height, width) in sizes.items() if height != width), None)
    if odd is not None:
        raise UserError(f"{odd}: got {sizes[odd][1]} x {sizes[odd][0]} px, expected a square image")
    size = resolution or sizes[files["images"][0]][0]
    names = [readable(path.relative_to(images).as_posix()) for path in files["images"]]
    return ImagePairs(names, files["images"], files["targets"], files.get("masks"), size, unmatched, others)


def pair_batches(
    pairs: ImagePairs, batch_size: int, max_images: int | None = None, ranks: Ranks | None = None
) -> Iterator[Comparison]:
    """Yields the comparisons of this rank's shard of the pairs.

    Args:
        pairs: See `match_folders`.
        batch_size: Number of pairs in a batch.
        max_images: Number of pairs from the start; None for all.
        ranks: None for a single process.
    """
    own = (ranks or Ranks()).shard(batches_of(min(max_images or len(pairs), len(pairs)), batch_size))
    for items in DataLoader(pairs, batch_sampler=own, collate_fn=list):
        # Reconstructions of a batch may differ in size.
        for _, same in groupby(items, key=_size):
            batch = default_collate(list(same))
            yield Comparison(batch["index"], batch["name"], batch["target"], batch["image"], batch.get("mask"))


def _size(item: dict[str, Any]) -> tuple[int, ...]:
    return tuple(item["image"].shape)


def _by_stem(folder: Path, files: Sequence[Path]) -> dict[str, Path]:
    stems: dict[str, Path] = {}
    for path in files:
        name = stem(path.relative_to(folder).as_posix())
        if name in stems:
            raise UserError(f"{folder}: {path.name} and {stems[name].name} have the same name, expected one file of it")
        stems[name] = path
    return stems
