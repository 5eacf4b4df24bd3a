"""Trains the networks of one recipe by one implementation, and scores its samples along the way.

    python experiments/stylegan2_comparison/train_by.py stylegan_inv outputs/ours0 --seed 0
    python experiments/stylegan2_comparison/train_by.py ../stylegan2-ada-pytorch outputs/nvidia0 --seed 0
    python experiments/stylegan2_comparison/train_by.py ../stylegan2-pytorch outputs/rosinality0 --seed 0

All implementations get the same images in the same order, batch size, learning rates, regularisers and moving average.
The others run the networks, the losses and the order of updates of their own code (``benchmark.speed.other_trainers``)
on the CPU; their code is not changed. Writes ``scores.json`` into the output folder: a row for each 50,000 images.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.benchmark.speed.other_trainers import OtherTrainer, other_trainer
from stylegan_inv.config import compose, instantiate
from stylegan_inv.runtime.allocator import tune_allocator

RECIPE = "stylegan2_comparison"
OWN = "stylegan_inv"


def train_own(output: Path, overrides: list[str]) -> list[dict[str, Any]]:
    """Trains with this package; the same command continues an interrupted training."""
    run = output / "run"
    command = [sys.executable, "-m", "stylegan_inv.train", *overrides, f"hydra.run.dir={run}", "logger=csv"]
    subprocess.run(command, check=True)
    batch = int(compose("train", overrides).dataset.batch_size)
    with (run / "metrics.csv").open(newline="") as file:
        return [
            {
                "images": (int(row["step"]) + 1) * batch,
                "frechet": float(row["val/frechet_embedded"]),
                "precision": float(row["val/precision"]),
                "recall": float(row["val/recall"]),
            }
            for row in csv.DictReader(file)
            if row.get("val/frechet_embedded")
        ]


def train_other(checkout: Path, overrides: list[str]) -> list[dict[str, Any]]:
    """Trains with the code of a checkout; cannot be continued."""
    tune_allocator()  # as our own training does
    cfg = compose("train", [*overrides, "paths.run_dir=outputs"])
    torch.manual_seed(cfg.seed)
    data, method, metrics = (instantiate(cfg[name]) for name in ("dataset", "method", "metrics"))
    data.setup("fit")
    trainer = other_trainer(checkout, method)
    rows: list[dict[str, Any]] = []
    batches, loader = 0, data.train_dataloader()
    total, every = int(cfg.method.total_images), int(cfg.trainer.val_check_interval)
    while True:
        for batch in loader:
            trainer.step(batch["image"], batches)
            batches += 1
            images = batches * len(batch["image"])
            if batches % every == 0 or images >= total:
                rows.append({"images": images, **score(trainer, metrics, data, cfg.seed, method.generator.z_dim)})
                print(trainer.name, rows[-1], flush=True)
            if images >= total:
                return rows


@torch.no_grad()
def score(trainer: OtherTrainer, metrics: Any, data: Any, seed: int, z_dim: int) -> dict[str, float]:
    """Returns the scores of as many samples as there are held-out images, as our training validates."""
    state = torch.get_rng_state()
    sampler = torch.Generator().manual_seed(seed * 1_000_003 + 1)
    for batch in data.val_dataloader():
        fake: Tensor = trainer.sample(torch.randn(len(batch["image"]), z_dim, generator=sampler)).clamp(-1, 1)
        for metric in metrics.values():
            metric.update(batch["image"], real=True)
            metric.update(fake, real=False)
    values = {"frechet": float(metrics["frechet_embedded"].compute())}
    values |= {name: float(value) for name, value in metrics["precision_recall"].compute().items()}
    for metric in metrics.values():
        metric.reset()
    torch.set_rng_state(state)
    return values


def main() -> None:
    """Trains and writes the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("by", help=f"{OWN}, or the checkout of another implementation")
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", dest="settings", nargs="*", default=[], help="further overrides of the recipe")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    overrides = [f"experiment={RECIPE}", f"seed={options.seed}", *options.settings]
    continued = (options.output / "run").exists()
    if options.by == OWN:
        rows, who = train_own(options.output, overrides), resource.RUSAGE_CHILDREN
    else:
        rows, who = train_other(Path(options.by), overrides), resource.RUSAGE_SELF
    usage = resource.getrusage(who)
    result = {
        "by": Path(options.by).name,
        "seed": options.seed,
        "settings": options.settings,
        # Of the whole training with its validations; unknown if a part of it ran before.
        "processor_seconds": None if continued else round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mb": round(usage.ru_maxrss / 1024),
        "rows": rows,
    }
    (options.output / "scores.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
