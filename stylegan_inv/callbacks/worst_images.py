"""The held-out images that came out worst: where to look first."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor

from stylegan_inv.callbacks.gather import from_all_ranks, inversion_of
from stylegan_inv.data.images.image_files import to_pil
from stylegan_inv.methods.common.base import mse, pool
from stylegan_inv.metrics.base import PerImageMetric
from stylegan_inv.utils.files import atomic_write
from stylegan_inv.visualization.contact_sheet import contact_sheet, difference_image


@dataclass
class _Seen:
    name: str
    figures: dict[str, float]
    source: Tensor
    target: Tensor
    image: Tensor


class WorstImages(pl.Callback):
    """After each validation writes ``worst/step_<n>.png`` and ``worst/last.png``, ``last.csv``, and a table for wandb.

    Args:
        run_dir: The run's folder.
        images: So many, by their mean squared error.
    """

    def __init__(self, run_dir: str, images: int = 8) -> None:
        self._folder, self._count = Path(run_dir) / "worst", images
        self._worst: list[_Seen] = []

    def on_validation_start(self, *args: Any) -> None:  # noqa: D102
        self._worst = []

    @torch.no_grad()
    def on_validation_batch_end(  # noqa: D102
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        inversion = inversion_of(outputs)
        if inversion is None or trainer.sanity_checking:
            return
        target = batch["image"]
        image = pool(inversion.image, target.shape[-1]).float()
        errors = mse(image, target)
        rows = [int(row) for row in errors.nan_to_num(torch.inf).topk(min(self._count, len(errors))).indices]
        names = batch.get("name", batch.get("index", range(len(errors))))
        # The metrics that judge an image by itself, for the few that may be shown.
        judges = {name: metric for name, metric in module.metrics.items() if isinstance(metric, PerImageMetric)}
        columns = {name: metric.score(image[rows], target[rows]) for name, metric in judges.items()}
        task = getattr(getattr(trainer, "datamodule", None), "task", None)
        source = module.source(batch)[rows]
        source = source if task is None else task.show(source)  # a label map is no picture
        for place, row in enumerate(rows):
            figures = {"mse": float(errors[row]), **{name: float(values[place]) for name, values in columns.items()}}
            name = names[row]
            pictures = (picture.detach().float().cpu() for picture in (source[place], target[row], image[row]))
            self._worst.append(_Seen(str(name.item() if isinstance(name, Tensor) else name), figures, *pictures))
        self._worst = _worst_of(self._worst, self._count)

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:  # noqa: D102
        if trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        worst = _worst_of([seen for own in from_all_ranks(trainer, self._worst) for seen in own], self._count)
        self._worst = []
        if not worst or not trainer.is_global_zero:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        sheet = _sheet(worst)
        sheet.save(self._folder / f"step_{trainer.global_step:07d}.png")
        sheet.save(self._folder / "last.png")
        with atomic_write(self._folder / "last.csv") as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, ["step", "image", *worst[0].figures])
            writer.writeheader()
            writer.writerows({"step": trainer.global_step, "image": seen.name, **seen.figures} for seen in worst)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                _log_table(logger, worst, trainer.global_step)


def _worst_of(seen: list[_Seen], count: int) -> list[_Seen]:
    """By their error, each image once: a sampler fills up the last batch of a rank with images of another."""
    once = {one.name: one for one in seen}
    return sorted(once.values(), key=lambda one: _broken_last(one.figures["mse"]), reverse=True)[:count]


def _broken_last(error: float) -> float:
    return error if error == error else float("inf")  # NaN is the worst


def _sheet(worst: list[_Seen]) -> Image.Image:
    columns = {
        "target": torch.stack([one.target for one in worst]),
        "reconstruction": torch.stack([one.image for one in worst]),
    }
    if any(one.source.shape != one.target.shape or not torch.equal(one.source, one.target) for one in worst):
        columns = {"source": torch.stack([one.source for one in worst]), **columns}
    columns["difference"] = difference_image(columns["reconstruction"], columns["target"])
    captions = [f"{one.name}, mse {one.figures['mse']:.3g}" for one in worst]
    return contact_sheet(columns, row_captions=captions)


def _log_table(logger: WandbLogger, worst: list[_Seen], step: int) -> None:
    import wandb

    figures = list(worst[0].figures)
    data = [
        [one.name, wandb.Image(to_pil(one.target)), wandb.Image(to_pil(one.image)), *(one.figures[f] for f in figures)]
        for one in worst
    ]
    logger.log_table("worst", columns=["image", "target", "reconstruction", *figures], data=data, step=step)
