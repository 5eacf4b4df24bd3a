"""Fine-tuning of a generator to a style: the error decreases, and the mapping network stays the same."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Discriminator, Generator, load_generator, save_generator
from stylegan_inv.generators.variants.finetune import finetuned
from stylegan_inv.methods.generator.stylized_stylegan2 import StylizedStyleGAN2

SIZE = 16


def negative(batch: dict[str, Any]) -> dict[str, Any]:
    return {"image": -batch["image"]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    made = Generator(SIZE, z_dim=8, w_dim=8, mapping_layers=1, channels={4: 8, 8: 8, 16: 8})
    made.mapping.w_avg.normal_()
    save_generator(made, tmp_path / "g.safetensors")
    return tmp_path / "g.safetensors"


def method(file: Path, **kwargs: Any) -> StylizedStyleGAN2:
    discriminator = Discriminator(SIZE, channels={4: 8, 8: 8, 16: 8})
    arguments: dict[str, Any] = {
        "original": load_generator(file), "style": negative, "lr_g": 0.02, "betas": (0.9, 0.99),
        "total_images": 240, "ema_images": 16, "export": "out.safetensors", "samples": 2,
    }  # fmt: skip
    return StylizedStyleGAN2(finetuned(file, 8), discriminator, **{**arguments, **kwargs})


def fit(made: StylizedStyleGAN2, folder: Path) -> None:
    trainer = pl.Trainer(
        max_steps=100, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(made, DataLoader([{"image": torch.zeros(3, SIZE, SIZE)}] * 64, batch_size=8))


def test_it_learns_the_style_and_keeps_the_mapping(file: Path, tmp_path: Path) -> None:
    made, original = method(file), load_generator(file)
    idle = copy.deepcopy(made.discriminator.state_dict())
    fit(made, tmp_path)
    assert int(made.images_seen) == 240 and made.global_step == 30
    assert made.optimizers()[0].param_groups[0]["lr"] == pytest.approx(0.002, rel=0.1)
    learnt = load_generator(tmp_path / "out.safetensors")
    w = original.mapping(torch.randn(16, 8, generator=torch.Generator().manual_seed(5)))
    want = -original.synthesis(w).clamp(-1, 1)
    before, after = ((g.synthesis(w) - want).abs().mean() for g in (original, learnt))
    assert after < 0.75 * before
    torch.testing.assert_close(learnt.w_avg, original.w_avg, rtol=0, atol=0)
    for name, value in original.state_dict().items():
        rests = not name.startswith(("synthesis.b8", "synthesis.b16")) or "noise_const" in name
        assert torch.allclose(learnt.state_dict()[name], value, atol=1e-6) == rests, name
    for name, value in made.discriminator.state_dict().items():
        assert torch.equal(value, idle[name])
    assert not any("_original" in name for name in made.state_dict())


def test_errors(file: Path) -> None:
    with pytest.raises(UserError, match="method.total_images=null"):
        method(file, total_images=None)
    generator = load_generator(file).requires_grad_(True)
    with pytest.raises(UserError, match="codes change their meaning; give generator=finetuned"):
        StylizedStyleGAN2(generator, Discriminator(SIZE), original=load_generator(file), style=negative, total_images=8)
