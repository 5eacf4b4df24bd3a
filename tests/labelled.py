"""Labelled images of 16 px, conditional and grey generators, and the smallest trainings with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image

from stylegan_inv.config import CONF_DIR
from stylegan_inv.generators import Generator, save_generator
from tests.faults import small

CLASSES = 3


def labelled_images(folder: Path, count: int = 9, mode: str = "RGB") -> Path:
    """A folder of images whose classes take turns; the brightness of an image grows with its class."""
    for index in range(count):
        noise = np.random.default_rng(index).integers(0, 60, (16, 16, 3), dtype=np.uint8)
        path = folder / str(index // 4) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise + np.uint8(90 * (index % CLASSES))).convert(mode).save(path)
    labels = [[f"{index // 4}/{index}.png", index % CLASSES] for index in range(count)]
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    return folder


def generator_file(path: Path, c_dim: int = CLASSES, img_channels: int = 3) -> Path:
    """A random generator of 16 px with a latent average that is far from those of its classes."""
    torch.manual_seed(0)
    generator = Generator(
        16, z_dim=8, w_dim=8, mapping_layers=1, channel_base=64, channel_max=8, c_dim=c_dim, img_channels=img_channels,
        mapping_lr_multiplier=1.0,
    )  # fmt: skip
    generator.w_avg.normal_()
    generator.domain = "synthfaces"
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith(("torgb.bias", "embed.bias")):
                parameter.normal_()
    save_generator(generator, path)
    return path


def training(method: str, folder: Path, images: Path, *more: str) -> DictConfig:
    """The config of a small training on these images."""
    own = [o for o in small.overrides(method, folder) if not o.startswith(("generator", "dataset"))]
    data = (
        "dataset=folder",
        "domain=synthfaces",
        f"dataset.root='{images}'",
        "dataset.resolution=16",
        "dataset.batch_size=2",
    )
    sizes = ("dataset.val_size=3", "dataset.val_batch_size=2", "dataset.num_workers=0", "dataset.horizontal_flip=0")
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        steps = ("trainer.max_steps=2", "trainer.val_check_interval=2")
        return compose("train", overrides=[*own, *data, *sizes, *steps, *more])


#: Sizes of a new generator.
NEW = (
    "generator.z_dim=8", "generator.w_dim=8", "generator.mapping_layers=1", "generator.channel_base=64",
    "generator.channel_max=8", "~metrics.precision_recall",
)  # fmt: skip
