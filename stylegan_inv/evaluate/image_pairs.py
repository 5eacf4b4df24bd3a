"""Pictures that another tool has written, beside their originals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset, default_collate

from stylegan_inv.data.images.image_files import check_image, list_images, name_list, read_image
from stylegan_inv.errors import UserError
from stylegan_inv.evaluate.evaluation_data import batches_of
from stylegan_inv.evaluate.scoring import Comparison
from stylegan_inv.runtime.shares import Ranks


@dataclass
class PictureFolders(Dataset[dict[str, Any]]):
    """Reconstructions beside their originals, matched by their paths without the suffix.

    Attributes:
        names: Of the reconstructions, below their folder.
        images: Their files.
        targets: The file of the original of each.
        masks: The file of the mask of each (white: of interest), or None.
        resolution: Side at which originals and masks are read; reconstructions keep theirs.
        unmatched: Files of either folder that have no partner and are left out.
    """

    names: list[str]
    images: list[Path]
    targets: list[Path]
    masks: list[Path] | None
    resolution: int
    unmatched: list[str]

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


def picture_folders(
    images: Path, targets: Path, masks: Path | None, resolution: int | None, on_missing: str = "error"
) -> PictureFolders:
    """Match two folders, or three.

    Args:
        images: Reconstructions.
        targets: Originals.
        masks: Regions of interest; None for none.
        resolution: None takes the side of the first reconstruction.
        on_missing: ``error``, or ``skip`` what has no partner, which is counted.

    Raises:
        UserError: Folders without images, without a pair, or with files that have no partner.
    """
    found = {what: _by_stem(folder) for what, folder in (("images", images), ("targets", targets), ("masks", masks))}
    shared = [stem for stem in found["images"] if all(stem in files for files in found.values() if files)]
    alone = [
        f"{what}: {path.name}"
        for what, files in found.items()
        for stem, path in files.items()
        if stem not in set(shared)
    ]
    if not shared:
        raise UserError(
            f"{images} and {targets}: no two files have the same name (without the suffix), expected a picture in "
            f"both for each comparison; got {name_list([*found['images']], 2)} and {name_list([*found['targets']], 2)}"
        )
    if alone and on_missing == "error":
        raise UserError(f"{len(alone)} files have no partner ({name_list(alone, 3)}); give them, or on_missing=skip")
    files = {what: [by_stem[stem] for stem in shared] for what, by_stem in found.items() if by_stem}
    # Every file is decoded once: better to hear of a broken one now than in the middle.
    for path in chain(files["targets"], files.get("masks", [])):
        check_image(path)
    sizes = {path: read_image(path).shape[1:] for path in files["images"]}
    odd = next((path for path, (height, width) in sizes.items() if height != width), None)
    if odd is not None:
        raise UserError(f"{odd}: got {sizes[odd][1]} x {sizes[odd][0]} px, expected a square picture")
    size = resolution or sizes[files["images"][0]][0]
    names = [path.relative_to(images).as_posix() for path in files["images"]]
    return PictureFolders(names, files["images"], files["targets"], files.get("masks"), size, alone)


def picture_batches(
    pictures: PictureFolders, batch_size: int, max_images: int | None = None, ranks: Ranks | None = None
) -> Iterator[Comparison]:
    """The comparisons of two folders; of ``ranks`` the share of this one."""
    own = (ranks or Ranks()).share(batches_of(min(max_images or len(pictures), len(pictures)), batch_size))
    for items in DataLoader(pictures, batch_sampler=own, collate_fn=list):
        # One reconstruction may be larger than the next.
        for _, same in groupby(items, key=_size):
            batch = default_collate(list(same))
            yield Comparison(batch["index"], batch["name"], batch["target"], batch["image"], batch.get("mask"))


def _size(item: dict[str, Any]) -> tuple[int, ...]:
    return tuple(item["image"].shape)


def _by_stem(folder: Path | None) -> dict[str, Path]:
    if folder is None:
        return {}
    stems: dict[str, Path] = {}
    for path in list_images(folder):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in stems:
            raise UserError(f"{folder}: {path.name} and {stems[stem].name} have one name, expected it once")
        stems[stem] = path
    return stems
