"""The distance to all training images: every image counts once, whatever the batches and ranks."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor

from stylegan_inv.data import FolderDataModule
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Discriminator, Generator
from stylegan_inv.methods import StyleGAN2Training
from stylegan_inv.metrics import FullFrechetDistance
from tests.metrics.test_distributions import Pixels

SIZE = 8


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """The definition, with the root of the product of the covariances by its eigenvalues, in double precision."""
    x, y = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.sqrt(np.linalg.eigvals(x @ y).astype(complex)).sum().real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(x) + np.trace(y) - 2 * root)


def features(images: Tensor) -> np.ndarray:
    return Pixels().pooled(images).double().numpy()


class Noise:
    """Generated images that are remembered."""

    def __init__(self, seed: int) -> None:
        self.random, self.made = torch.Generator().manual_seed(seed), []  # type: ignore[var-annotated]

    def __call__(self, count: int) -> Tensor:
        self.made.append(torch.rand(count, 3, 4, 4, generator=self.random) * 0.7)
        return self.made[-1]


@pytest.mark.parametrize("mirrored", [False, True])
def test_distance_is_the_definition(mirrored: bool) -> None:
    real = torch.rand(50, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    metric = FullFrechetDistance(Pixels(), generated=30, mirrored=mirrored, features=6)
    passes = 0

    def loader() -> Iterator[Tensor]:
        nonlocal passes
        passes += 1
        yield from real.split(9)

    for seed in (1, 2):  # two validations; the real images are read in the first one
        sample = Noise(seed)
        metric.fill(loader, sample, 7)
        got = metric.compute()
        images = torch.cat([real, real.flip(-1)]) if mirrored else real
        want = frechet(features(images), features(torch.cat(sample.made)))
        assert float(got["frechet_full"]) == pytest.approx(want, rel=1e-9)
        assert (int(got["frechet_full_generated"]), int(got["frechet_full_real"])) == (30, 100 if mirrored else 50)
        metric.reset()
    assert passes == 1
    text = metric.describe()
    assert "30 generated images against all training images" in text and ("mirror" in text) == mirrored


def test_ranks_share_the_images() -> None:
    real = torch.rand(20, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    parts = [FullFrechetDistance(Pixels(), generated=17, features=6) for _ in range(3)]
    made = []
    for rank, metric in enumerate(parts):
        sample = Noise(rank)
        metric.fill(lambda rank=rank: [real[rank::3]], sample, 4, rank, 3)  # type: ignore[misc]
        made += sample.made
    assert [len(images) for images in made] == [4, 2, 4, 2, 4, 1]
    whole = parts[0]
    for name in ("count", "sum", "outer"):
        for kind in ("real", "fake"):
            setattr(whole, f"{kind}_{name}", sum(getattr(part, f"{kind}_{name}") for part in parts))
    assert float(whole.compute()["frechet_full"]) == pytest.approx(
        frechet(features(real), features(torch.cat(made))), rel=1e-9
    )


def test_too_few_images() -> None:
    with pytest.raises(UserError, match="metrics.frechet_full.generated=1"):
        FullFrechetDistance(Pixels(), generated=1, features=6)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (7, SIZE, SIZE, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def training(metric: Any, **options: Any) -> StyleGAN2Training:
    torch.manual_seed(0)
    channels = {4: 4, 8: 4}
    generator = Generator(SIZE, z_dim=4, w_dim=4, mapping_layers=1, channels=channels)
    return StyleGAN2Training(
        generator, Discriminator(SIZE, channels=channels), metrics={"full": metric}, samples=1, **options
    )


def fitted(method: StyleGAN2Training, data: Any, folder: Path) -> pl.Trainer:
    trainer = pl.Trainer(
        max_steps=1, max_epochs=-1, val_check_interval=1, check_val_every_n_epoch=None, accelerator="cpu",
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, default_root_dir=folder, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(method, data)
    return trainer


def test_training_compares_with_all_training_images(photos: Path, tmp_path: Path) -> None:
    """Images are not mirrored, although the training mirrors them, and none is left out."""
    metric = FullFrechetDistance(Pixels(), generated=9, features=6)
    data = FolderDataModule(
        root=photos, val_root=photos, val_size=1, resolution=SIZE, batch_size=2, val_batch_size=4, horizontal_flip=1.0
    )
    method = training(metric)
    logged = fitted(method, data, tmp_path).callback_metrics
    assert (logged["val/frechet_full_generated"], logged["val/frechet_full_real"]) == (9, 7)
    levels = torch.stack(
        [torch.from_numpy(np.array(Image.open(photos / f"{n}.png"))).permute(2, 0, 1) / 127.5 - 1 for n in range(7)]
    )
    torch.testing.assert_close(metric._real["sum"], Pixels().pooled(levels).double().sum(0))
    # Noise and codes are drawn from the seed alone.
    again = training(FullFrechetDistance(Pixels(), generated=9, features=6))
    other = fitted(again, copy.deepcopy(data), tmp_path).callback_metrics
    assert logged["val/frechet_full"] == other["val/frechet_full"] > 0


def test_data_without_training_images_are_refused() -> None:
    method = training(FullFrechetDistance(Pixels(), features=6))
    method._trainer = type("T", (), {"datamodule": None})()  # type: ignore[assignment]
    with pytest.raises(UserError, match="all training images"):
        method._fill(method.metrics["full"])
