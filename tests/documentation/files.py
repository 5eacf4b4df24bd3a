"""Small stand-ins for the files that a reader brings: photographs, data sets, weights and trained runs."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

from stylegan_inv.data.images.image_files import save_image
from stylegan_inv.data.synthfaces.dataset import SynthFaces
from stylegan_inv.generators import Discriminator, load_generator, save_generator
from stylegan_inv.generators.io.network_export import exported
from stylegan_inv.generators.io.nvidia_snapshot import Snapshot, save_snapshot
from stylegan_inv.latents.directions import Direction, save_direction
from tests.cli import REPOSITORY
from tests.documentation.pages import TRAIN
from tests.encoders.official import W_DIM, psp_file
from tests.forks import run_fork

RUN = "2026-11-21_10-30-00"
IMAGES = 4
#: Codes in ``inverted/``, enough to separate two groups of them.
CODES = 80


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


def face_landmarks() -> list[list[float]]:
    """Returns 68 landmarks of a SynthFace at 64 px, of which the alignment reads eyes and mouth."""
    points = [[32.0, 36.0]] * 68
    points[36:42], points[42:48] = [[24.0, 28.0]] * 6, [[40.0, 28.0]] * 6
    points[48:60] = [[26.0, 46.0]] * 6 + [[38.0, 46.0]] * 6
    return points


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
    snapshot = Snapshot(generator, Discriminator(64, channel_base=256, channel_max=8), generator)
    save_snapshot(snapshot, folder / "network-snapshot-025000.pkl")
    save_direction(
        Direction(torch.nn.functional.normalize(torch.randn(W_DIM), dim=0), "smile"), folder / "smile.safetensors"
    )
    (folder / "ages.csv").write_text("name,age\n" + "".join(f"{k}.png,{20 + k}\n" for k in range(CODES)))
    names = json.dumps([f"{k}.png" for k in range(CODES)])
    (folder / "inverted").mkdir()
    save_file(
        {"w": generator.mapping(torch.randn(CODES, generator.z_dim)).contiguous()},
        folder / "inverted" / "latents.safetensors",
        {"names": names, "reconstructions": names, "generator_hash": str(generator.source_hash)},
    )
    landmarks = {f"{k}.png": face_landmarks() for k in range(IMAGES)}
    (folder / "landmarks.json").write_text(json.dumps(landmarks))
    toon = folder / "outputs" / "toon_generator" / "generator.safetensors"
    toon.parent.mkdir(parents=True)
    save_generator(generator, toon)


def write_examples(folder: Path) -> None:
    """Writes the examples of the README and the contributing guide; the first line of each is the name of its file."""
    for page in (REPOSITORY / "README.md", REPOSITORY / ".github" / "CONTRIBUTING.md"):
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"^ *```(?:python|yaml)\n(.*?)```", text, re.S | re.M):
            first, _, content = textwrap.dedent(block).partition("\n")
            if re.fullmatch(r"# \S+\.(py|yaml)", first):
                path = folder / first.removeprefix("# ")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content)


def write_run(folder: Path, run: str, *overrides: str) -> None:
    """Trains a run for two steps in ``<folder>/<run>``."""
    words = [*overrides, *TRAIN, "dataset.val_size=4", f"hydra.run.dir={run}"]
    done = run_fork("stylegan_inv.train", *words, cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
