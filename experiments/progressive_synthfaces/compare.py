"""Compares progressive growing with a fixed resolution: figures of this page and of adain_synthfaces.

    python experiments/progressive_synthfaces/compare.py outputs/stylegan2/<fixed> outputs/stylegan2/<grown>

Seconds are CPU seconds of one thread, which do not depend on other processes.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.utils import make_grid, save_image

from stylegan_inv import config
from stylegan_inv.data.synthfaces.dataset import SynthFaces
from stylegan_inv.generators import load_generator
from stylegan_inv.generators.progressive import Growth, Stage

HERE = Path(__file__).parent
SAMPLES = {"fixed": HERE.parent / "adain_synthfaces" / "samples.png", "grown": HERE / "samples.png"}
STEPS = 12


def seconds_per_image(run: Path, images: int) -> float:
    """Returns the CPU seconds per training image in the stage that follows a number of images."""
    cfg = OmegaConf.load(run / "config.yaml")
    size, batch = cfg.dataset.resolution, cfg.dataset.batch_size
    method = config.instantiate(cfg.method, metrics={}, total_images=None, export=None)
    method.images_seen.fill_(images)
    data: Any = [{"image": torch.rand(3, size, size) * 2 - 1} for _ in range(batch)]
    trainer = pl.Trainer(
        max_steps=STEPS, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    start = time.process_time()
    trainer.fit(method, DataLoader(data, batch_size=batch))
    return (time.process_time() - start) / (STEPS * batch)


def costs(run: Path) -> list[tuple[int, float, str]]:
    """Returns (first image, seconds per image, name) for each stage of a run."""
    cfg = OmegaConf.load(run / "config.yaml")
    if not cfg.generator.progressive:
        return [(0, seconds_per_image(run, 0), f"{cfg.dataset.resolution} px")]
    growth = Growth(cfg.dataset.resolution, cfg.method.grow_from, cfg.method.grow_images, cfg.method.fade_images)
    starts, found = [0], [growth.stage(0)]
    for images in range(1, growth.images + 1):
        stage = growth.stage(images)
        kind = Stage(stage.resolution, 0.5 if stage.alpha < 1 else 1.0)
        if kind != found[-1]:
            starts.append(images)
            found.append(kind)
    names = [f"{s.resolution} px" + (" fading in" if s.alpha < 1 else "") for s in found]
    return [(n, seconds_per_image(run, n), name) for n, name in zip(starts, names, strict=True)]


def seconds_until(images: int, stages: list[tuple[int, float, str]]) -> float:
    """Returns the CPU seconds of training on a number of images."""
    ends = [start for start, _, _ in stages[1:]] + [images]
    return sum(max(min(end, images) - start, 0) * cost for (start, cost, _), end in zip(stages, ends, strict=True))


def curve(run: Path) -> list[tuple[int, float]]:
    """Returns (images, Fréchet distance) of each validation."""
    batch = OmegaConf.load(run / "config.yaml").dataset.batch_size
    with open(run / "metrics.csv", newline="") as f:
        rows = [row for row in csv.DictReader(f) if row["val/frechet_embedded"]]
    return sorted({(int(row["step"]) + 1) * batch: float(row["val/frechet_embedded"]) for row in rows}.items())


def save_faces(images: Tensor, path: Path) -> None:
    """Writes images in rows of eight, enlarged by 3."""
    grid = make_grid(images.clamp(-1, 1), nrow=8, padding=1, normalize=True, value_range=(-1, 1))
    save_image(grid.repeat_interleave(3, 1).repeat_interleave(3, 2), path)


@torch.no_grad()
def main() -> None:
    """Writes ``results.json``, ``compare.png`` and the samples."""
    torch.set_num_threads(1)
    runs = dict(zip(("fixed", "grown"), map(Path, sys.argv[1:3]), strict=True))
    results: dict[str, Any] = {}
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    for name, run in runs.items():
        with torch.enable_grad():
            stages = costs(run)
        points = [(seconds_until(n, stages), value) for n, value in curve(run)]
        results[name] = {
            "images_per_second": {what: round(1 / cost, 1) for _, cost, what in stages},
            "seconds": round(points[-1][0], 1),
            "frechet_embedded": [
                {"images": n, "seconds": round(s, 1), "value": round(v, 3)}
                for (n, v), (s, _) in zip(curve(run), points, strict=True)
            ],
        }
        label = {"fixed": "all layers from the start", "grown": "grown"}[name]
        left.bar([f"{what}\n({name})" for _, _, what in stages], [1 / cost for _, cost, _ in stages], label=label)
        right.plot(*zip(*points, strict=True), marker="o", label=label)
        generator = load_generator(run / "generator.safetensors")
        z = torch.randn(32, generator.z_dim, generator=torch.Generator().manual_seed(0))
        save_faces(generator(z), SAMPLES[name])
    left.set_ylabel("images a second (one core)")
    left.tick_params(axis="x", labelsize=7)
    right.set(xlabel="seconds of one core", ylabel="Frechet distance (embedded network)", yscale="log")
    right.legend()
    figure.tight_layout()
    figure.savefig(HERE / "compare.png", dpi=110)
    faces = SynthFaces(32, seed=2, size=32)
    save_faces(torch.stack([item["image"] for item in faces.__getitems__(range(32))]), HERE / "synthfaces.png")
    (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
