"""Measures PSNR of per-image optimisation against steps and seconds, on held-out SynthFaces (seed 2).

python experiments/measure_optimisation.py --images 100 --json experiments/image2stylegan_pp_synthfaces/psnr.json
python experiments/measure_optimisation.py --only pti --set method.start=outputs/e4e/<run>     # pivots of e4e
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from stylegan_inv.config import CONF_DIR, instantiate_method
from stylegan_inv.data.synthfaces.dataset import SynthFaces
from stylegan_inv.methods.common.base import pool
from stylegan_inv.metrics.image import psnr
from stylegan_inv.runtime.allocator import tune_allocator

METHODS = ("projector", "image2stylegan_pp", "pti")


def measure(name: str, images: int, batch: int, settings: list[str]) -> dict[str, Any]:
    """Returns the mean PSNR in dB after each snapshot, and the seconds per image."""
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        cfg = compose("invert", overrides=["input=none", f"method={name}", *settings])
    method = instantiate_method(cfg.method)
    size = method.generator.resolution
    values: dict[str, list[torch.Tensor]] = {}
    seconds = processor = 0.0
    for first in range(0, images, batch):
        items = SynthFaces(size, 2, images).__getitems__(list(range(first, min(first + batch, images))))
        target = torch.stack([item["image"] for item in items])
        started, busy = time.perf_counter(), time.process_time()
        found = method.invert(target)
        seconds, processor = seconds + time.perf_counter() - started, processor + time.process_time() - busy
        for step in found.steps:
            values.setdefault(step.name, []).append(psnr(pool(step.image, size).clamp(-1, 1), target))
        print(f"{name}: {first + len(items)}/{images} images, {seconds:.0f} s", flush=True)
    rows = {step: float(torch.cat(v).mean()) for step, v in values.items()}
    return {
        "images": images,
        "seconds_per_image": seconds / images,
        "processor_seconds_per_image": processor / images,  # excludes the time of other programs
        "seconds_per_step_and_image": seconds / images / max(1, sum(len(c) for c in found.curves.values())),
        "psnr": rows,
        "settings": settings,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Measures the methods and prints the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--only", choices=METHODS, nargs="*", default=METHODS)
    parser.add_argument(
        "--set", nargs="*", action="extend", default=[], help="settings of the config, e.g. method.steps=500"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    tune_allocator()
    results = {}
    for name in options.only:
        snapshots = [] if name == "pti" else ["method.snapshots=5"]
        results[name] = measure(name, options.images, options.batch, [*snapshots, *options.set])
        print(json.dumps(results[name], indent=2), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
