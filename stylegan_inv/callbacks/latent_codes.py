"""Statistics of the latent codes of validation images."""

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
from stylegan_inv.utils.checks import whole_number
from stylegan_inv.utils.compat import is_fast_dev_run
from stylegan_inv.utils.files import TolerantWriter, atomic_write
from stylegan_inv.visualization.code_figures import draw_codes

_BINS = 64
#: Number of samples of W that codes are compared with.
_SAMPLES = 2048


class LatentCodes(pl.Callback):
    """Writes ``codes/step_<n>.png``, ``codes/last.png`` and ``codes/last.json`` after each validation.

    wandb gets histograms. Distances are root mean squares over the D entries of a code:

    * ``w``: a histogram of all entries of the codes, and of samples of W, which the mapping network draws;
    * ``delta``: the distance of each layer's code from that of the first layer, the offsets of e4e; absent for methods
      in W, where all layers have the same code;
    * ``moved``: the distance by which each refinement step moves the code of each layer; the first step starts from the
      latent average.

    Args:
        run_dir: Folder of the run.
        images: Number of codes of each rank that are used.
    """

    def __init__(self, run_dir: str, images: int = 256) -> None:
        self._folder, self._images = Path(run_dir) / "codes", whole_number("callbacks.codes.images", images)
        self._w: list[Tensor] = []
        self._moved: list[Tensor] = []
        self._samples: np.ndarray | None = None
        self._writer = TolerantWriter()

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
        if trainer.sanity_checking or is_fast_dev_run(trainer):
            return
        gathered = from_all_ranks(trainer, (self._w, self._moved))
        self._w, self._moved = [], []
        w = [codes for own, _ in gathered for codes in own]
        if not w or not trainer.is_global_zero:
            return
        if self._samples is None:
            self._samples = _sample_w(module.generator)
        statistics = _statistics(torch.cat(w), [moved for _, own in gathered for moved in own], self._samples)
        with self._writer.writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            for name in (f"step_{trainer.global_step:07d}.png", "last.png"):
                draw_codes(statistics, self._folder / name)
            with atomic_write(self._folder / "last.json") as temporary:
                temporary.write_text(json.dumps({"step": trainer.global_step, **statistics}, indent=2) + "\n")
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_metrics(_wandb_histograms(statistics), trainer.global_step)


def _moved(inversion: Inversion, start: Tensor) -> Tensor:
    """Returns the distance by which each step moves the code of each layer, (B, T, L)."""
    codes = [start, *(step.w for step in inversion.steps or [])]
    return torch.stack([_distance(a, b) for a, b in zip(codes[1:], codes, strict=False)], dim=1).float().cpu()


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).float().square().mean(-1).sqrt()


@torch.no_grad()
def _sample_w(generator: Generator) -> np.ndarray:
    """Returns samples of W, (M, D), the same in each run."""
    z = torch.randn(_SAMPLES, generator.z_dim, generator=torch.Generator().manual_seed(0))
    return generator.mapping(z.to(generator.w_avg.device))[:, 0].float().cpu().numpy()


def _statistics(w: Tensor, moved: list[Tensor], samples: np.ndarray) -> dict[str, Any]:
    """Returns the statistics as plain numbers.

    Args:
        w: Codes (N, L, D).
        moved: Distances (B, T, L) of each batch.
        samples: Samples of W, (M, D).
    """
    entries = w[w.isfinite()].numpy()
    edges = np.histogram_bin_edges(np.concatenate([entries, samples.ravel()]), _BINS)
    delta = _distance(w, w[:, :1])
    statistics: dict[str, Any] = {
        "images": len(w),
        "w": {
            "edges": edges.tolist(),
            "counts": np.histogram(entries, edges)[0].tolist(),
            "counts_of_w": np.histogram(samples, edges)[0].tolist(),
        },
    }
    if w.shape[1] > 1 and float(delta.max()) > 0:
        statistics["delta"] = {"mean": delta.mean(0).tolist(), "std": delta.std(0, correction=0).tolist()}
    if moved:
        statistics["moved"] = torch.cat(moved).mean(0).tolist()
    return statistics


def _wandb_histograms(statistics: dict[str, Any]) -> dict[str, Any]:
    """Returns histograms for wandb; those over layers have one bin per layer."""
    import wandb

    def histogram(counts: list[float], edges: list[float]) -> Any:
        return wandb.Histogram(np_histogram=(np.array(counts), np.array(edges)))

    def over_layers(values: list[float]) -> Any:
        return histogram(values, [float(layer) for layer in range(len(values) + 1)])

    histograms = {"codes/w": histogram(statistics["w"]["counts"], statistics["w"]["edges"])}
    if "delta" in statistics:
        histograms["codes/delta"] = over_layers(statistics["delta"]["mean"])
    for number, values in enumerate(statistics.get("moved", []), start=1):
        histograms[f"codes/moved_step{number}"] = over_layers(values)
    return histograms
