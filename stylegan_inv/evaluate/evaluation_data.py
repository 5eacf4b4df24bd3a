"""The data set that a method is evaluated on, and what the method makes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import Dataset

from stylegan_inv.data.datamodules.base import ImageDataModule
from stylegan_inv.data.datamodules.image_dataset import ImageDataset
from stylegan_inv.errors import UserError
from stylegan_inv.evaluate.scoring import Comparison, chosen_steps
from stylegan_inv.methods.common.base import InversionMethod
from stylegan_inv.runtime.shares import Ranks


def trained_with(run: Path) -> DictConfig | None:
    """The data set in the config of a run (or of a checkpoint inside one); None for somebody else's checkpoint."""
    config = run_folder(run) / "config.yaml"
    return OmegaConf.select(OmegaConf.load(config), "dataset") if config.is_file() else None


def run_folder(run: Path) -> Path:
    """The folder of a run or of a checkpoint in it; where results of other files go: ``outputs/<name>``."""
    folder = run if run.is_dir() else run.parent.parent
    return folder if run.is_dir() or (folder / "config.yaml").is_file() else Path("outputs") / run.stem


def dataset_config(own: DictConfig | None, given: Any, chosen: bool) -> DictConfig:
    """The data set to evaluate on: the run's own with changes, or another one, which gets the run's task.

    Args:
        own: What the run was trained with, see `trained_with`.
        given: ``cfg.dataset``, or None.
        chosen: Whether a data set was chosen; without, ``given`` changes the run's own.

    Raises:
        UserError: No data set was chosen and the run has none, or a change of what it does not have.
    """
    if chosen:
        if OmegaConf.is_missing(given, "root") and given.get("test_root"):
            given.root = None  # there is nothing to train
        node = OmegaConf.create(OmegaConf.to_container(given, resolve=True, throw_on_missing=True))
        return OmegaConf.merge(node, {"task": own.task} if own is not None and "task" in own else {})  # type: ignore[return-value]
    if own is None or "_target_" not in own:
        raise UserError("evaluate: the run has no data set of its own; give one: dataset=folder dataset.root=<folder>")
    unknown = sorted(set(given or {}) - set(own))
    if unknown:
        raise UserError(f"dataset.{unknown[0]}: the run's data set has {', '.join(map(str, own))}; or choose dataset=")
    return OmegaConf.merge(own, given or {})  # type: ignore[return-value]


def dataset_batches(
    data: ImageDataModule,
    split: str,
    batch_size: int | None = None,
    max_images: int | None = None,
    ranks: Ranks | None = None,
) -> Iterator[dict[str, Any]]:
    """The batches of a split in its order, with the task's sources; of ``ranks`` the share of this one.

    ``place`` is a batch's place in the order.
    Together the ranks have each of the first ``max_images`` images (None: all) once, in the batches of a single rank.
    """
    count = len(data.get(split))  # type: ignore[arg-type]
    own = (ranks or Ranks()).share(batches_of(min(max_images or count, count), batch_size or data.val_batch_size))
    for indices, batch in zip(own, data.loader_of(split, own), strict=True):
        if batch is not None:
            batch.setdefault("index", torch.tensor(indices))
            yield {**batch, "place": indices[0]}


def batches_of(count: int, batch_size: int) -> list[list[int]]:
    """All numbers below ``count``, some at a time."""
    return [list(range(first, min(first + batch_size, count))) for first in range(0, count, batch_size)]


def invert_batches(
    method: InversionMethod, batches: Iterator[Mapping[str, Any]], steps: bool = True, seed: int | None = None
) -> Iterator[Comparison]:
    """What a method makes of batches of a data set.

    Args:
        method: In evaluation mode.
        batches: With ``image``, perhaps ``index``, ``name``, ``mask``.
        steps: Also compare its refinement steps.
        seed: Of what it draws for a batch, together with the batch's place; None leaves the global generator.
    """
    for number, batch in enumerate(batches):
        index = batch.get("index", torch.arange(len(batch["image"])) + number * len(batch["image"]))
        if seed is not None:
            torch.manual_seed(seed + batch.get("place", 0))  # the same whichever process does it
        # No torch.no_grad() here: methods that optimise each image need gradients. The method's weights need none.
        inversion = method.invert(method.source(batch).to(method.device))
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
            batch.get("place"),
        )


def unreadable(data: Dataset[Any]) -> list[str]:
    """Names of the files that a data set could not read and left out."""
    return data.bad_images if isinstance(data, ImageDataset) else []
