"""Where in W+ the codes of held-out images lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor

from stylegan_inv.callbacks.gather import from_all_ranks, inversion_of
from stylegan_inv.generators import Generator
from stylegan_inv.methods.common.base import Inversion
from stylegan_inv.utils.files import atomic_write
from stylegan_inv.visualization.code_figures import draw_codes

_BINS = 64
#: Codes of W to compare with.
_OF_W = 2048


class Codes(pl.Callback):
    """After each validation writes ``codes/step_<n>.png`` and ``codes/last.png``, ``last.json``; histograms for wandb.

    In units of the codes, all root mean squares over their D numbers:

    * ``w``: a histogram of all numbers of the codes, and of codes of W, drawn as the generator's mapping draws them;
    * ``delta``: of each layer, its distance from the first layer's code, e4e's offsets; not for methods in W, where all
      layers have the same code;
    * ``moved``: of each refinement step and layer, how far it moves the code, the first one from the average code.

    Args:
        run_dir: The run's folder.
        images: The first so many codes of each rank are looked at.
    """

    def __init__(self, run_dir: str, images: int = 256) -> None:
        self._folder, self._images = Path(run_dir) / "codes", images
        self._w: list[Tensor] = []
        self._moved: list[Tensor] = []
        self._of_w: np.ndarray | None = None

    def on_validation_start(self, *args: Any) -> None:  # noqa: D102
        self._w, self._moved = [], []

    @torch.no_grad()
    def on_validation_batch_end(  # noqa: D102
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        inversion = inversion_of(outputs)
        if inversion is None or trainer.sanity_checking or sum(map(len, self._w)) >= self._images:
            return
        self._w.append(inversion.w.detach().float().cpu())
        if inversion.steps and len(inversion.steps) > 1:
            self._moved.append(_moved(inversion, module.average_codes(len(inversion.w))))

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:  # noqa: D102
        if trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        everyones = from_all_ranks(trainer, (self._w, self._moved))
        self._w, self._moved = [], []
        w = [codes for own, _ in everyones for codes in own]
        if not w or not trainer.is_global_zero:
            return
        if self._of_w is None:
            self._of_w = _codes_of_w(module.generator)
        figures = _figures(torch.cat(w), [moved for _, own in everyones for moved in own], self._of_w)
        self._folder.mkdir(parents=True, exist_ok=True)
        for name in (f"step_{trainer.global_step:07d}.png", "last.png"):
            draw_codes(figures, self._folder / name)
        with atomic_write(self._folder / "last.json") as temporary:
            temporary.write_text(json.dumps({"step": trainer.global_step, **figures}, indent=2) + "\n")
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_metrics(_for_wandb(figures), trainer.global_step)


def _moved(inversion: Inversion, start: Tensor) -> Tensor:
    """How far each step moves the code of each layer, (B, T, L)."""
    codes = [start, *(step.w for step in inversion.steps or [])]
    return torch.stack([_distance(a, b) for a, b in zip(codes[1:], codes, strict=False)], dim=1).float().cpu()


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).float().square().mean(-1).sqrt()


@torch.no_grad()
def _codes_of_w(generator: Generator) -> np.ndarray:
    z = torch.randn(_OF_W, generator.z_dim, generator=torch.Generator().manual_seed(0))
    return generator.mapping(z.to(generator.w_avg.device))[:, 0].float().cpu().numpy()


def _figures(w: Tensor, moved: list[Tensor], of_w: np.ndarray) -> dict[str, Any]:
    """Plain numbers of codes ``w`` (N, L, D), movements (B, T, L) and codes of W (M, D)."""
    numbers = w[w.isfinite()].numpy()
    edges = np.histogram_bin_edges(np.concatenate([numbers, of_w.ravel()]), _BINS)
    delta = _distance(w, w[:, :1])
    figures: dict[str, Any] = {
        "images": len(w),
        "w": {
            "edges": edges.tolist(),
            "counts": np.histogram(numbers, edges)[0].tolist(),
            "counts_of_w": np.histogram(of_w, edges)[0].tolist(),
        },
    }
    if w.shape[1] > 1 and float(delta.max()) > 0:
        figures["delta"] = {"mean": delta.mean(0).tolist(), "std": delta.std(0, correction=0).tolist()}
    if moved:
        figures["moved"] = torch.cat(moved).mean(0).tolist()
    return figures


def _for_wandb(figures: dict[str, Any]) -> dict[str, Any]:
    """Histograms; those over layers have a layer a bin."""
    import wandb

    def histogram(counts: list[float], edges: list[float]) -> Any:
        return wandb.Histogram(np_histogram=(np.array(counts), np.array(edges)))

    def over_layers(values: list[float]) -> Any:
        return histogram(values, [float(layer) for layer in range(len(values) + 1)])

    made = {"codes/w": histogram(figures["w"]["counts"], figures["w"]["edges"])}
    if "delta" in figures:
        made["codes/delta"] = over_layers(figures["delta"]["mean"])
    for number, values in enumerate(figures.get("moved", []), start=1):
        made[f"codes/moved_step{number}"] = over_layers(values)
    return made
