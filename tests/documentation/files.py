"""Small stand-ins for the files that a reader brings: photographs, data sets, weights and trained runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
import yaml
from PIL import Image

from stylegan_inv.data.images.image_files import save_image
from stylegan_inv.data.synthfaces.dataset import SynthFaces
from stylegan_inv.generators import load_generator, save_generator
from stylegan_inv.generators.io.network_export import exported
from stylegan_inv.latents.directions import Direction, save_direction
from tests.documentation.pages import TRAIN
from tests.encoders.official import W_DIM, psp_file
from tests.faults.small import join, launch

RUN = "2026-11-21_10-30-00"
IMAGES = 4


def write_images(folder: Path, count: int = IMAGES, noise: float = 0.0) -> None:
    """Writes SynthFaces as ``<folder>/<number>.png``."""
    for number, item in enumerate(SynthFaces(64, seed=3, size=count)):
        image = item["image"] + noise * torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(number))
        save_image(image.clamp(-1, 1), folder / f"{number}.png")


def write_labels(folder: Path) -> None:
    """Writes their label maps as grey images whose levels are classes."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, item in enumerate(SynthFaces(64, seed=3, size=IMAGES)):
        Image.fromarray(item["label"].numpy().astype("uint8")).save(folder / f"{number}.png")


def write_reader_files(folder: Path) -> None:
    """Writes what the commands of all pages name, except trained runs."""
    for name in (
        "photos",
        "faces",
        "images",
        "drawings",
        "data/ffhq",
        "data/celeba_hq/test",
        "data/train",
        "data/test",
    ):
        write_images(folder / name)
    for split in ("cars_train", "cars_test"):
        write_images(folder / "data" / "stanford_cars" / split)
    write_images(folder / "data" / "ffhq_masks")
    write_images(folder / "reconstructions", noise=0.1)
    write_labels(folder / "labels")
    for name in ("photo.png", "scribbled.png"):
        shutil.copy(folder / "photos" / ("0.png" if name == "photo.png" else "1.png"), folder / name)
    generator = load_generator("synthfaces64")
    torch.save(exported(generator, "rosinality"), folder / "ffhq.pt")
    torch.save(exported(generator, "nvidia"), folder / "ffhq.pkl")
    torch.save(psp_file("Encoder4Editing"), folder / "e4e_ffhq_encode.pt")
    save_direction(
        Direction(torch.nn.functional.normalize(torch.randn(W_DIM), dim=0), "smile"), folder / "smile.safetensors"
    )
    (folder / "ages.csv").write_text("name,age\n" + "".join(f"{k}.png,{20 + k}\n" for k in range(IMAGES)))
    toon = folder / "outputs" / "toon_generator" / "generator.safetensors"
    toon.parent.mkdir(parents=True)
    save_generator(generator, toon)


def write_own_method(folder: Path, readme: str) -> None:
    """Writes the README's example of a method of one's own, as it is shown."""
    python, config = (readme.split(f"```{kind}\n# {name}\n")[1].split("```")[0] for kind, name in _EXAMPLES.items())
    (folder / "one_shot.py").write_text(python)
    (folder / "mine" / "method").mkdir(parents=True)
    (folder / "mine" / "method" / "one_shot.yaml").write_text(config)
    assert yaml.safe_load(config)["method_name"] == "one_shot"


_EXAMPLES = {"python": "one_shot.py", "yaml": "mine/method/one_shot.yaml"}


def write_run(folder: Path, run: str, *overrides: str) -> None:
    """Trains a run for two steps in ``<folder>/<run>``."""
    from tests.documentation.test_commands import execute

    words = ["stylegan_inv.train", *overrides, *TRAIN, "dataset.val_size=2", f"hydra.run.dir={run}"]
    log = folder / "run.log"
    assert join([launch(execute, words, str(folder), log=log)], 300) == [0], log.read_text()[-2000:]
