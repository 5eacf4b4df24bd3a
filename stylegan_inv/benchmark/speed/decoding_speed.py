"""``python -m stylegan_inv.benchmark data``: speed of reading and decoding images, compared with torchvision."""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from stylegan_inv.data.datamodules.image_dataset import ImageDataset
from stylegan_inv.data.images.decoding import EXACT, FAST
from stylegan_inv.data.images.resizing import Geometry
from stylegan_inv.data.sources.opening import open_source
from stylegan_inv.data.sources.packing import open_packer
from stylegan_inv.utils import timing
from stylegan_inv.utils.command_line import whole

REFERENCE = "torchvision"
_FILES = 16


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this subcommand."""
    parser.add_argument("--resolution", **whole(1, 8192), default=256)
    parser.add_argument(
        "--file-resolution", **whole(1, 8192), default=1024, help="side of the JPEGs that are generated"
    )
    parser.add_argument("--folder", type=Path, help="read these images instead; as for torchvision's ImageFolder")
    parser.add_argument("--batch", **whole(1, 4096), default=8, help="images of a measurement")


def run(options: argparse.Namespace, limits: timing.Roofline) -> list[dict[str, Any]]:
    """Measures batches of images in this process, without workers.

    The bound is the time to copy the decoded pixels.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or _generate_images(Path(scratch) / "images", options.file_resolution)
        source, geometry = open_source(folder), Geometry(options.resolution)
        packer = open_packer("zip", Path(scratch) / "images.zip", [], 0, 0)
        for index in range(min(len(source), 1000)):
            packer.add(source.names[index], source.read(index))
        packer.finish({})
        packed = open_source(Path(scratch) / "images.zip")
        sets: dict[str, Dataset[Any]] = {
            REFERENCE: _torchvision(folder, options.resolution),
            "folder, exact": ImageDataset(source, geometry, horizontal_flip=0.5, margin=EXACT),
            "folder, fast decoding": ImageDataset(source, geometry, horizontal_flip=0.5, margin=FAST),
            "zip, fast decoding": ImageDataset(packed, geometry, horizontal_flip=0.5, margin=FAST),
        }
        calls = {name: _reader(data, options.batch) for name, data in sets.items()}
        samples = timing.interleave(calls, options.repeats, "cpu")
        pixels = 3 * options.batch * (options.file_resolution**2 + 4 * options.resolution**2)
        rows = []
        for name, sample in samples.items():
            peak = timing.peak_memory(calls[name], "cpu")
            row = timing.row(name, "batch", sample, samples[REFERENCE], limits.bound(0, pixels), peak)
            rows.append({**row, "images_per_second": options.batch / sample.seconds})
    return rows


def _torchvision(folder: Path, resolution: int) -> Dataset[Any]:
    """Returns the usual pipeline of torchvision."""
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    steps = [
        transforms.Resize(resolution),
        transforms.CenterCrop(resolution),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize([0.5] * 3, [0.5] * 3),
    ]
    return ImageFolder(str(folder), transforms.Compose(steps))


def _reader(data: Dataset[Any], batch: int) -> Callable[[], object]:
    order = itertools.cycle(range(len(data)))  # type: ignore[arg-type]

    def read() -> object:
        items = [data[next(order)] for _ in range(batch)]
        return torch.stack([item["image"] if isinstance(item, dict) else item[0] for item in items])

    return read


def _generate_images(folder: Path, side: int) -> Path:
    """Writes JPEGs with details at all scales, like photographs."""
    (folder / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(_FILES):
        pixels = np.full((side, side, 3), 128.0)
        for step in (2, 8, 32, 128):
            cells = random.normal(0, 8 * np.log2(step), (max(2, side // step), max(2, side // step), 3))
            layer = [Image.fromarray(cells[..., c].astype(np.float32)).resize((side, side)) for c in range(3)]
            pixels += np.stack([np.asarray(channel) for channel in layer], -1)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{number}.jpg", quality=95)
    return folder
