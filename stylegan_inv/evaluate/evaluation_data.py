"""The data set that a method is evaluated on, and the method's reconstructions of its images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import Dataset

from stylegan_inv.data.datamodules.base import ImageDataModule
from stylegan_inv.data.datamodules.image_dataset import ImageDataset
from stylegan_inv.errors import UserError
from stylegan_inv.evaluate.scoring import Comparison, chosen_steps
from stylegan_inv.methods.common.base import InversionMethod
from stylegan_inv.runtime.ranks import Ranks


def evaluation_dataset(own: DictConfig | None, given: Any, chosen: bool) -> DictConfig:
    """Returns the config of the data set: the run's own with changes, or another one with the run's task.

    Args:
        own: Data set that the run was trained with; None for an official checkpoint.
        given: ``cfg.dataset``, or None.
        chosen: Whether the user chose a data set; otherwise ``given`` changes the run's own.

    Raises:
        UserError: No data set was chosen and the run has none, or a change of an option that it does not have.
    """
    if chosen:
        if OmegaConf.is_missing(given, "root") and given.get("test_root"):
            given.root = None  # the training images are not needed
        node = OmegaConf.create(OmegaConf.to_container(given, resolve=True, throw_on_missing=True))
        return OmegaConf.merge(node, {"task": own.task} if own is not None and "task" in own else {})  # type: ignore[return-value]
    if own is None or "_target_" not in own:
        raise UserError("evaluate: the run has no data set of its own; give one: dataset=folder dataset.root=<folder>")
    unknown = sorted(set(given or {}) - set(own))
    if unknown:
        raise UserError(f"dataset.{unknown[0]}: the run's data set has {', '.join(map(str, own))}; or choose dataset=")
    return OmegaConf.merge(own, given or {})  # type: ignore[return-value]


def used_options(own: DictConfig, given: Any, chosen: bool) -> dict[str, Any]:
    """Returns what `evaluation_dataset` takes from the run's own data set, as plain containers.

    Args:
        own: See `evaluation_dataset`.
        given: See `evaluation_dataset`.
        chosen: See `evaluation_dataset`.
    """
    options: Any = OmegaConf.to_container(own)
    names = {"task"} & set(options) if chosen else set(options) - set(given or {})
    return {str(name): options[name] for name in names}


def dataset_batches(
    data: ImageDataModule,
    split: str,
    batch_size: int | None = None,
    max_images: int | None = None,
    ranks: Ranks | None = None,
) -> Iterator[dict[str, Any]]:
    """Yields the batches of a split in its order, with the sources of its task.

    The batches are those of a single process. Each rank gets its shard of them, so that together the ranks get each
    image once.

    Args:
        data: The data, set up.
        split: ``val`` or ``test``.
        batch_size: None takes that of the data.
        max_images: Number of images from the start of the split; None for all.
        ranks: None for a single process.

    Yields:
        Batches with the additional entry ``position``: the index of the first image in the split's order.
    """
    count = len(data.get(split))  # type: ignore[arg-type]
    batches = batches_of(min(max_images or count, count), batch_size or data.val_batch_size)
    own = (ranks or Ranks()).shard(batches)
    for indices, batch in zip(own, data.loader_of(split, own), strict=True):
        if batch is not None:
            batch.setdefault("index", torch.tensor(indices))
            yield {**batch, "position": indices[0]}


def batches_of(count: int, batch_size: int) -> list[list[int]]:
    """Returns the numbers below ``count`` in batches."""
    return [list(range(first, min(first + batch_size, count))) for first in range(0, count, batch_size)]


def invert_batches(
    method: InversionMethod, batches: Iterator[Mapping[str, Any]], steps: bool = True, seed: int | None = None
) -> Iterator[Comparison]:
    """Inverts batches of a data set.

    Args:
        method: In evaluation mode.
        batches: With ``image`` and, optionally, ``index``, ``name``, ``mask`` and ``position``.
        steps: Whether to compare the refinement steps as well.
        seed: Seeds the global generator before each batch, together with the batch's position; None does not seed it.
    """
    for number, batch in enumerate(batches):
        index = batch.get("index", torch.arange(len(batch["image"])) + number * len(batch["image"]))
        if seed is not None:
            torch.manual_seed(seed + batch.get("position", 0))  # the same in whichever process
        # No torch.no_grad() here: methods that optimise each image need gradients. The method's weights need none.
        # Also while the metrics are computed, some of which invert again.
        with method.with_classes(batch.get("class")):
            inversion = method.invert(method.source(batch).to(method.device))
            images = [step.image.detach() for step in inversion.steps or []] if steps else []
            shown = chosen_steps(len(images)) if len(images) > 1 else [0]
            yield Comparison(
                index=index,
                names=batch.get("name", [str(i) for i in index.tolist()]),
                target=batch["image"],
                image=inversion.image.detach(),
                mask=batch.get("mask"),
                w=inversion.w.detach(),
                steps={step: images[step - 1] for step in shown[:-1]},
                last_step=shown[-1],
                position=batch.get("position"),
            )


def unreadable_images(data: Dataset[Any]) -> list[str]:
    """Returns the names of the files that a data set could not decode and left out."""
    return data.bad_images if isinstance(data, ImageDataset) else []
