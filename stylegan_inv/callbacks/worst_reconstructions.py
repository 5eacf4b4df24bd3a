"""Shows the validation images with the largest reconstruction error."""

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
from stylegan_inv.data.datamodules.base import ImageDataModule
from stylegan_inv.data.images.image_files import to_pil
from stylegan_inv.methods.common.base import mse, pool
from stylegan_inv.metrics.base import PerImageMetric
from stylegan_inv.utils.checks import whole_number
from stylegan_inv.utils.compat import is_fast_dev_run
from stylegan_inv.utils.files import TolerantWriter, atomic_write
from stylegan_inv.utils.text import cell_text
from stylegan_inv.visualization.contact_sheet import contact_sheet, difference_image


@dataclass
class _Candidate:
    """An image with its reconstruction, (3, H, W) on the CPU, and the metrics of the pair."""

    name: str
    metrics: dict[str, float]
    source: Tensor
    target: Tensor
    reconstruction: Tensor


class WorstReconstructions(pl.Callback):
    """Writes ``worst/step_<n>.png``, ``worst/last.png`` and ``worst/last.csv`` after each validation.

    wandb gets a table with the same content.

    Args:
        run_dir: Folder of the run.
        images: Number of images, ranked by mean squared error.
    """

    def __init__(self, run_dir: str, images: int = 8) -> None:
        self._folder, self._count = Path(run_dir) / "worst", whole_number("callbacks.worst.images", images)
        self._worst: list[_Candidate] = []
        self._writer = TolerantWriter()

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
        # Only the candidates are scored by the metrics that compare single images.
        per_image = {name: metric for name, metric in module.metrics.items() if isinstance(metric, PerImageMetric)}
        columns = {name: metric.score(image[rows], target[rows]) for name, metric in per_image.items()}
        source = _shown(trainer, module.source(batch)[rows])
        for position, row in enumerate(rows):
            metrics = {"mse": float(errors[row]), **{name: float(values[position]) for name, values in columns.items()}}
            name = names[row]
            images = (one.detach().float().cpu() for one in (source[position], target[row], image[row]))
            self._worst.append(_Candidate(str(name.item() if isinstance(name, Tensor) else name), metrics, *images))
        self._worst = _worst(self._worst, self._count)

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:  # noqa: D102
        if trainer.sanity_checking or is_fast_dev_run(trainer):
            return
        worst = _worst([one for own in from_all_ranks(trainer, self._worst) for one in own], self._count)
        self._worst = []
        if not worst or not trainer.is_global_zero:
            return
        with self._writer.writing(self._folder):
            self._write(worst, trainer.global_step)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                _log_table(logger, worst, trainer.global_step)

    def _write(self, worst: list[_Candidate], step: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        sheet = _sheet(worst)
        for name in (f"step_{step:07d}.png", "last.png"):
            with atomic_write(self._folder / name) as temporary:
                sheet.save(temporary)
        with (
            atomic_write(self._folder / "last.csv") as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, ["step", "image", *worst[0].metrics])
            writer.writeheader()
            writer.writerows({"step": step, "image": cell_text(one.name), **one.metrics} for one in worst)


def _shown(trainer: pl.Trainer, source: Tensor) -> Tensor:
    """Returns inputs as RGB images: those of a translation task may be label maps."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    task = data.task if isinstance(data, ImageDataModule) else None
    return source if task is None else task.show(source)


def _worst(candidates: list[_Candidate], count: int) -> list[_Candidate]:
    """Returns the candidates with the largest errors, each image once.

    A sampler may fill up the last batch of a rank with images of another rank.
    """
    once = {one.name: one for one in candidates}
    return sorted(once.values(), key=lambda one: _sort_key(one.metrics["mse"]), reverse=True)[:count]


def _sort_key(error: float) -> float:
    return error if error == error else float("inf")  # NaN counts as the largest error


def _sheet(worst: list[_Candidate]) -> Image.Image:
    columns = {
        "target": torch.stack([one.target for one in worst]),
        "reconstruction": torch.stack([one.reconstruction for one in worst]),
    }
    if any(one.source.shape != one.target.shape or not torch.equal(one.source, one.target) for one in worst):
        columns = {"source": torch.stack([one.source for one in worst]), **columns}
    columns["difference"] = difference_image(columns["reconstruction"], columns["target"])
    captions = [f"{one.name}, mse {one.metrics['mse']:.3g}" for one in worst]
    return contact_sheet(columns, row_captions=captions)


def _log_table(logger: WandbLogger, worst: list[_Candidate], step: int) -> None:
    import wandb

    names = list(worst[0].metrics)
    data = [
        [
            one.name,
            wandb.Image(to_pil(one.target)),
            wandb.Image(to_pil(one.reconstruction)),
            *(one.metrics[name] for name in names),
        ]
        for one in worst
    ]
    logger.log_table("worst", columns=["image", "target", "reconstruction", *names], data=data, step=step)
