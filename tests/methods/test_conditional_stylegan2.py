"""Conditional training of StyleGAN2: the projection discriminator in float64, and classes that a generator learns."""

from __future__ import annotations

import math
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from stylegan_inv.generators import Discriminator, Generator
from stylegan_inv.methods.generator.stylegan2 import StyleGAN2Training

SIZE, CLASSES = 8, 2
CHANNELS = {4: 8, 8: 8}


def networks(img_channels: int = 3) -> tuple[Generator, Discriminator]:
    torch.manual_seed(0)
    options = {"channels": CHANNELS, "c_dim": CLASSES, "img_channels": img_channels}
    generator = Generator(SIZE, z_dim=8, w_dim=8, mapping_layers=2, mapping_lr_multiplier=1.0, **options)
    return generator, Discriminator(SIZE, mapping_layers=2, **options)


def method(**options: object) -> StyleGAN2Training:
    return StyleGAN2Training(*networks(), samples=4, ema_images=20, path_length_weight=0, **options)


def test_logits_are_projected_on_the_class() -> None:
    trained = method()
    discriminator = trained.discriminator.double()
    images = torch.randn(4, 3, SIZE, SIZE, dtype=torch.float64)
    c = torch.eye(CLASSES)[[0, 1, 1, 0]].double()
    features: list[Tensor] = []
    handle = discriminator.b4.register_forward_hook(lambda module, inputs, output: features.append(output))
    logits = trained.logits(images, c)
    handle.remove()
    m = discriminator.mapping
    x = c @ m.embed.weight.T / math.sqrt(CLASSES) + m.embed.bias
    x = x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()
    for layer in (m.fc0, m.fc1):
        x = x @ layer.weight.T * 0.01 / math.sqrt(x.shape[1]) + 0.01 * layer.bias
        x = torch.where(x > 0, x, 0.2 * x) * math.sqrt(2)
    torch.testing.assert_close(logits, (features[0] * x).sum(1, keepdim=True) / math.sqrt(CHANNELS[4]))


def test_style_mixing_stays_within_the_class() -> None:
    trained = method(style_mixing=1.0)
    with torch.no_grad():  # the class alone decides
        trained.generator.mapping.fc0.weight[:, :8] = 0
    c = torch.eye(CLASSES)[[0, 1]]
    w = trained.random_codes(2, c)
    torch.testing.assert_close(w, w[:, :1].expand_as(w))
    assert (w[0] - w[1]).abs().max() > 1e-3
    assert trained.random_codes(1, c).shape == (1, 4, 8)


def test_the_generator_learns_the_classes(tmp_path: Path) -> None:
    """Class 0 is dark, class 1 bright."""
    label = torch.arange(16) % CLASSES
    image = (label * 1.2 - 0.6)[:, None, None, None] + 0.1 * torch.randn(16, 3, SIZE, SIZE)
    data = [{"image": image[k], "class": label[k]} for k in range(16)]
    trained = method(noise="const", lr_g=0.01, lr_d=0.01, r1_gamma=0.1)
    trainer = pl.Trainer(
        max_steps=120, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(trained, DataLoader(data, batch_size=8, shuffle=True))
    z = torch.randn(32, 8)
    dark, bright = (trained.sample(z, c=torch.eye(CLASSES)[[k]].expand(32, -1)).mean((1, 2, 3)) for k in range(CLASSES))
    assert (dark < bright).float().mean() > 0.9 and bright.mean() - dark.mean() > 0.4
    panel = trained.panel_columns()["psi 1"].mean((1, 2, 3))
    assert panel[0] < panel[1] and panel[2] < panel[3]  # the classes take turns
