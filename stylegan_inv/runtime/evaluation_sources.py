"""What is evaluated: a method on a data set, or pictures that another tool has written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from stylegan_inv.data.datamodule import ImageDataModule, check_whole
from stylegan_inv.data.image_set import ImageSet
from stylegan_inv.data.images import check_image, list_images, name_list, read_image
from stylegan_inv.errors import UserError
from stylegan_inv.methods.base import InversionMethod
from stylegan_inv.runtime.evaluation import Comparison, chosen_steps
from stylegan_inv.runtime.weights import TABLE


def dataset_batches(
    data: ImageDataModule, split: str, batch_size: int | None = None, max_images: int | None = None
) -> Iterator[dict[str, Any]]:
    """The batches of a split in its order, each image once, with the task's sources; at most ``max_images`` images."""
    if batch_size is not None:
        data.val_batch_size = batch_size
    left = max_images
    for batch in getattr(data, f"{split}_dataloader")():
        if left is not None:
            batch = {key: value[:left] for key, value in batch.items()}
            left -= len(batch["image"])
        yield batch
        if left == 0:
            return


def invert_batches(
    method: InversionMethod, batches: Iterator[dict[str, Any]], steps: bool = True
) -> Iterator[Comparison]:
    """What a method makes of batches of a data set."""
    for number, batch in enumerate(batches):
        # No torch.no_grad() here: methods that optimise each image need gradients. The method's weights need none.
        inversion = method.invert(method.source(batch).to(method.device))
        index = batch.get("index", torch.arange(len(batch["image"])) + number * len(batch["image"]))
        pictures = [step.image.detach() for step in inversion.steps or []] if steps else []
        shown = chosen_steps(len(pictures)) if len(pictures) > 1 else [0]
        yield Comparison(
            index,
            batch.get("name", [str(i) for i in index.tolist()]),
            batch["image"],
            inversion.image.detach(),
            batch.get("mask"),
            inversion.w.detach(),
            {step: pictures[step - 1] for step in shown[:-1]},
            shown[-1],
        )


def unreadable(data: Dataset[Any]) -> list[str]:
    """Names of the files that a data set could not read and left out."""
    return data.bad_images if isinstance(data, ImageSet) else []


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


def picture_batches(pictures: PictureFolders, batch_size: int, max_images: int | None = None) -> Iterator[Comparison]:
    """The comparisons of two folders."""
    chosen: Dataset[Any] = pictures if max_images is None else Subset(pictures, range(min(max_images, len(pictures))))
    for items in DataLoader(chosen, batch_size, collate_fn=list):
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


def dataset_config(run: Path, given: Any, choice: str | None, resolution: int | None) -> DictConfig:
    """The data set to evaluate on: the run's own with changes, or another one with the run's task and resolution.

    Args:
        run: A run folder or a checkpoint.
        given: ``cfg.dataset``, or None.
        choice: Its name if it was chosen; without, ``given`` changes the run's own.
        resolution: Side of the images; None for that of the training.

    Raises:
        UserError: No data set was chosen and the run has none, or a change of what it does not have.
    """
    config = (run if run.is_dir() else run.parent.parent) / "config.yaml"
    own = OmegaConf.select(OmegaConf.load(config), "dataset") if config.is_file() else None
    if choice is not None:
        if OmegaConf.is_missing(given, "root") and given.get("test_root"):
            given.root = None  # there is nothing to train
        node = OmegaConf.create(OmegaConf.to_container(given, resolve=True, throw_on_missing=True))
        trained = {} if own is None else {key: own[key] for key in ("task", "resolution") if key in own}
        node = OmegaConf.merge(node, trained)
    elif own is None or "_target_" not in own:
        raise UserError(f"run={run}: has no data set of its own; give one: dataset=celeba_hq dataset.root=<folder>")
    else:
        unknown = sorted(set(given or {}) - set(own))
        if unknown:
            raise UserError(
                f"dataset.{unknown[0]}: the run's data set has {', '.join(map(str, own))}; or choose dataset="
            )
        node = OmegaConf.merge(own, given or {})
    if resolution is not None:
        node.resolution = resolution
    return node  # type: ignore[return-value]


def check_options(cfg: DictConfig) -> None:
    """Raise a UserError for values that no evaluation can have."""
    if (cfg.run is None) == (cfg.images is None):
        raise UserError("evaluate: expected either run=<run folder>, or images=<folder> targets=<folder>")
    if (cfg.images is None) != (cfg.targets is None) or (cfg.masks is not None and cfg.images is None):
        raise UserError("evaluate: images=<folder> and targets=<folder> go together, and masks=<folder> with them")
    if cfg.run is not None and not Path(cfg.run).exists() and cfg.run not in TABLE:
        raise UserError(
            f"run={cfg.run}: no such run folder, checkpoint or name of known weights; give the folder that "
            "stylegan_inv.train printed"
        )
    for key, allowed in (("split", ("test", "val")), ("on_missing", ("error", "skip"))):
        if cfg[key] not in allowed:
            raise UserError(f"{key}={cfg[key]}: expected {' or '.join(allowed)}")
    for key, least in (("resolution", 16), ("max_images", 1), ("batch_size", 1)):
        if cfg[key] is not None:
            check_whole(key, cfg[key], least)
    check_whole("seed", cfg.seed, 0)
    check_whole("bootstrap.resamples", cfg.bootstrap.resamples, 1)
    if not 0 < cfg.bootstrap.level < 1:
        raise UserError(f"bootstrap.level={cfg.bootstrap.level}: expected a number between 0 and 1, e.g. 0.95")
    sizes = list(cfg.speed.batch_sizes)
    if cfg.speed.seconds < 0 or not sizes or sizes != sorted(set(sizes)) or sizes[0] != 1:
        raise UserError(
            f"speed: got seconds={cfg.speed.seconds} and batch_sizes={sizes}; expected seconds of 0 or more and "
            "ascending whole numbers that begin with 1"
        )
