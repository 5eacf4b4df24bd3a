"""Collects the results of a training of a generator on SynthFaces: scores, curve and samples.

    python experiments/gan_results.py outputs/stylegan2/<run> experiments/stylegan2_synthfaces32

Writes into the second folder: ``results.json``, a row of scores for each validation and one for the exported
generator, each with as many held-out faces as samples; ``curve.png``; ``samples.png`` and ``truncated.png``, samples
with psi 1 and 0.7; ``synthfaces.png``, held-out faces.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torchvision.utils import save_image

from stylegan_inv.config import compose, instantiate
from stylegan_inv.generators import Generator, load_generator

COLUMNS = {"frechet": "val/frechet_embedded", "precision": "val/precision", "recall": "val/recall"}


def validations(run: Path, cfg: DictConfig) -> list[dict[str, Any]]:
    """Returns the scores during the training, with the seconds that its steps took so far."""
    rows, seconds, images = [], 0.0, 0.0
    with (run / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row.get("images") and row.get("perf/images_per_second"):
                seconds += (float(row["images"]) - images) / float(row["perf/images_per_second"])
                images = float(row["images"])
            if row.get(COLUMNS["frechet"]):
                seen = (int(row["step"]) + 1) * cfg.dataset.batch_size
                scores = {name: round(float(row[column]), 4) for name, column in COLUMNS.items()}
                rows.append({"images": seen, **scores, "seconds": round(seconds), "seed": cfg.seed})
    final = {"images": round(images), "seconds": round(seconds), "seed": cfg.seed}
    return [*rows, final]


def draw_samples(generator: Generator, z: Tensor, psi: float = 1.0) -> Tensor:
    """Returns images (B, 3, R, R) for z (B, Z), with the stored noise."""
    images: Tensor = generator.synthesis(generator.mapping(z, psi), noise="const")
    return images.clamp(-1, 1)


@torch.no_grad()
def final_scores(generator: Generator, data: Any, metrics: Any, seed: int) -> dict[str, float]:
    """Returns the scores of as many samples as there are held-out faces."""
    sampler = torch.Generator().manual_seed(seed * 1_000_003 + 1)
    for batch in data.val_dataloader():
        fake = draw_samples(generator, torch.randn(len(batch["image"]), generator.z_dim, generator=sampler))
        for metric in metrics.values():
            metric.update(batch["image"], real=True)
            metric.update(fake, real=False)
    scores = {"frechet": float(metrics["frechet_embedded"].compute())}
    scores |= {name: float(value) for name, value in metrics["precision_recall"].compute().items()}
    return {name: round(value, 4) for name, value in scores.items()}


def draw_curve(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws the scores over the images."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8))
    images = [row["images"] for row in rows]
    left.plot(images, [row["frechet"] for row in rows], "o-", ms=3)
    left.set(xlabel="images", ylabel="Fréchet distance", yscale="log")
    for name in ("precision", "recall"):
        right.plot(images, [row[name] for row in rows], "o-", ms=3, label=name)
    right.set(xlabel="images", ylim=(0, 1))
    right.legend()
    for axis in (left, right):
        axis.grid(alpha=0.3, which="both")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Scores the exported generator and writes results, curve and samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("output", type=Path, help="folder of the recipe's page")
    parser.add_argument("--faces", type=int, default=2000)
    options = parser.parse_args()
    saved = OmegaConf.load(options.run / "config.yaml")
    size = [f"dataset.val_size={options.faces}", "dataset.train_size=64"]  # the training images are not used
    recipe = [
        f"experiment={options.output.name}",
        f"seed={saved.seed}",
        f"dataset.batch_size={saved.dataset.batch_size}",
    ]
    cfg = compose("train", [*recipe, *size, "paths.run_dir=outputs"])
    data, metrics = instantiate(cfg.dataset), instantiate(cfg.metrics)
    data.setup("fit")
    generator = load_generator(options.run / cfg.method.export)
    *rows, final = validations(options.run, cfg)
    rows = [row for row in rows if row["images"] < final["images"]]
    rows.append({**final, **final_scores(generator, data, metrics, cfg.seed)})
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    draw_curve(rows, options.output / "curve.png")
    z = torch.randn(40, generator.z_dim, generator=torch.Generator().manual_seed(0))
    real = next(iter(data.val_dataloader()))["image"][: len(z)]
    with torch.no_grad():
        pictures = {"samples": draw_samples(generator, z), "truncated": draw_samples(generator, z, 0.7)}
    for name, images in {**pictures, "synthfaces": real}.items():
        save_image(images, options.output / f"{name}.png", nrow=8, padding=1, normalize=True, value_range=(-1, 1))
    print(json.dumps(rows[-1]))


if __name__ == "__main__":
    main()
