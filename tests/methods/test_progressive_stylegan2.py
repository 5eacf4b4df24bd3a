"""Progressive growing: the layers and the resolution of each stage, and exact resume."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from stylegan_inv.data.augment.ada import ADA
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Discriminator, Generator, load_generator
from stylegan_inv.generators.progressive import Stage
from stylegan_inv.methods.generator.stylegan2 import StyleGAN2Training

CHANNELS = {4: 6, 8: 6, 16: 4}


def training(style: str = "modulated", **kwargs: Any) -> StyleGAN2Training:
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "z_dim": 8,
        "w_dim": 8,
        "mapping_layers": 1,
        "mapping_lr_multiplier": 1.0,
        "style": style,
    }
    generator = Generator(16, channels=CHANNELS, progressive=True, **options)
    discriminator = Discriminator(16, channels=CHANNELS, progressive=True)
    schedule: dict[str, Any] = {"grow_from": 8, "grow_images": 8, "fade_images": 8, "ema_rampup": None, "samples": 4}
    return StyleGAN2Training(generator, discriminator, **{**schedule, **kwargs})


def fit(method: StyleGAN2Training, folder: Path, steps: int, ckpt: Path | None = None) -> pl.Trainer:
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    trainer = pl.Trainer(
        max_steps=steps, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    data: Any = [{"image": image} for image in images]
    trainer.fit(method, DataLoader(data, batch_size=4), ckpt_path=ckpt)
    return trainer


@pytest.mark.parametrize("style", ["modulated", "adain"])
def test_layers_learn_from_the_stage_of_their_resolution(style, tmp_path):
    method = training(style, augment=ADA(initial_p=0.5, interval=1), export="g.safetensors")
    start = copy.deepcopy(method.state_dict())

    def changed(part: str) -> bool:
        now = method.state_dict()
        keys = [k for k in start if k.startswith(part) and "noise_const" not in k]
        assert keys
        return any(not torch.equal(now[k], start[k]) for k in keys)

    assert method.stage == Stage(8)
    fit(method, tmp_path, 2)
    assert changed("generator.synthesis.b8") and changed("discriminator.b8.fromrgb")
    assert not changed("generator.synthesis.b16") and not changed("discriminator.b16")
    z = torch.randn(2, 8)
    small = method.sample(z)
    assert small.shape == (2, 3, 16, 16) and torch.equal(small[..., ::2, ::2], small[..., 1::2, 1::2])
    trainer = fit(method, tmp_path, 4)
    assert method.stage == Stage(16) and changed("generator.synthesis.b16") and changed("discriminator.b16")
    assert trainer.callback_metrics["train/resolution"] == 16
    torch.testing.assert_close(method.sample(z), load_generator(tmp_path / "g.safetensors")(z).clamp(-1, 1))


def test_discriminator_sees_images_of_the_stage(tmp_path, monkeypatch):
    method = training(r1_every=2)
    seen = []
    forward = method.discriminator.forward

    def spy(image: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
        seen.append((int(method.images_seen), image.shape[-1], alpha))
        return forward(image, alpha=alpha)

    monkeypatch.setattr(method.discriminator, "forward", spy)
    fit(method, tmp_path, 5)
    assert set(seen) == {(0, 8, 1.0), (4, 8, 1.0), (8, 8, 1.0), (12, 16, 0.5), (16, 16, 1.0)}
    assert len(seen) == 5 * 3 + 3  # G, generated, real; R1 of three


def test_styles_mix_among_the_layers_in_use():
    method = training(style_mixing=1.0)
    cuts = set()
    for _ in range(40):
        ws = method.codes(torch.randn(1, 8))[0]
        cuts.add(int((ws == ws[0]).all(dim=1).sum()))
    assert cuts == {1, 2, 3}  # of the 4 that 8 px has
    method.images_seen.fill_(100)
    grown = [method.codes(torch.randn(1, 8))[0] for _ in range(60)]
    assert max(int((ws == ws[0]).all(dim=1).sum()) for ws in grown) == 5


def test_resumed_run_has_equal_weights(tmp_path):
    whole, first, second = training(), training(), training()
    fit(whole, tmp_path, 5)
    fit(first, tmp_path, 3).save_checkpoint(tmp_path / "half.ckpt")  # in the middle of the fade
    fit(second, tmp_path, 5, ckpt=tmp_path / "half.ckpt")
    for (name, a), b in zip(whole.state_dict().items(), second.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=name)


def test_a_run_that_ends_too_early_warns(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        fit(training(export="g.safetensors"), tmp_path, 1)
    assert "not grown up: 4 of 16 images" in caplog.text


def test_both_networks_must_grow():
    generator = Generator(8, channels={4: 2, 8: 2}, z_dim=2, w_dim=2, mapping_layers=1, progressive=True)
    with pytest.raises(UserError, match="discriminator, method.discriminator.progressive=true"):
        StyleGAN2Training(generator, Discriminator(8, channels={4: 2, 8: 2}))
