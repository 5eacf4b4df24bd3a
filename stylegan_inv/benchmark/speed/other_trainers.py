"""The training steps of other implementations of StyleGAN2, for comparison in one process."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from stylegan_inv.benchmark.speed.other_implementations import code_of, is_nvidia
from stylegan_inv.errors import UserError
from stylegan_inv.generators.layers import channel_table
from stylegan_inv.methods.generator.stylegan2 import StyleGAN2Training
from stylegan_inv.optim.gradient_averaging import update_moving_average
from stylegan_inv.utils.regular_files import read_text

#: Trains with a batch of images (B, C, R, R) in [-1, 1]; the second argument is the number of the batch.
Step = Callable[[Tensor, int], None]


@dataclass(frozen=True)
class OtherTrainer:
    """The training of another implementation.

    Attributes:
        name: Name of the implementation.
        step: Runs a training step.
        sample: Returns images (B, C, R, R) of the average generator for z (B, Z), without truncation, with fixed noise.
    """

    name: str
    step: Step
    sample: Callable[[Tensor], Tensor]


def other_trainer(checkout: Path, method: StyleGAN2Training) -> OtherTrainer:
    """Builds the networks, losses and optimisers of a public implementation.

    The moving average of the generator is ours, since the implementations have different ones.

    Args:
        checkout: Folder of rosinality/stylegan2-pytorch or NVlabs/stylegan2-ada-pytorch. Its code is executed.
        method: Our training, whose sizes and constants are used.

    Raises:
        UserError: If the folder is none of these checkouts, or its code does not run.
    """
    with code_of(checkout):
        return _nvidia(method) if is_nvidia(checkout) else _rosinality(checkout, method)


def _adams(method: StyleGAN2Training, generator: nn.Module, discriminator: nn.Module) -> list[torch.optim.Optimizer]:
    return [
        torch.optim.Adam(network.parameters(), lr=lr, betas=betas)
        for network, (lr, betas) in (
            (generator, method.corrected(method.lr_g, method.extra_g_steps)),
            (discriminator, method.corrected(method.lr_d, method.extra_d_steps)),
        )
    ]


def _nvidia(method: StyleGAN2Training) -> OtherTrainer:
    """The phases of ``training_loop`` with the networks and the loss of NVIDIA's code."""
    networks, losses = (importlib.import_module(f"training.{name}") for name in ("networks", "loss"))
    own = method.generator
    base: dict[str, Any] = {
        "channel_base": own.channels[own.resolution] * own.resolution,
        "channel_max": max(own.channels.values()),
    }
    _check_channels(method, channel_table(own.resolution, **base))
    base["num_fp16_res"] = 0
    generator = networks.Generator(
        own.z_dim, 0, own.w_dim, own.resolution, own.img_channels,
        mapping_kwargs={"num_layers": own.config["mapping_layers"]}, synthesis_kwargs=base,
    )  # fmt: skip
    discriminator = networks.Discriminator(0, own.resolution, own.img_channels, **base)
    average = copy.deepcopy(generator)
    loss = losses.StyleGAN2Loss(
        torch.device("cpu"), generator.mapping, generator.synthesis, discriminator,
        style_mixing_prob=method.style_mixing, r1_gamma=method.r1_gamma, pl_weight=method.path_length_weight,
    )  # fmt: skip
    of_generator, of_discriminator = _adams(method, generator, discriminator)
    phases = [
        ("Gmain", generator, of_generator, 1),
        ("Greg", generator, of_generator, method.extra_g_steps),
        ("Dmain", discriminator, of_discriminator, 1),
        ("Dreg", discriminator, of_discriminator, method.extra_d_steps),
    ]
    for network in (generator, discriminator):
        network.train().requires_grad_(False)

    def step(images: Tensor, number: int) -> None:
        c = torch.zeros(len(images), 0)
        for name, network, optimizer, interval in phases:
            if not interval or number % interval:
                continue
            optimizer.zero_grad(set_to_none=True)
            network.requires_grad_(True)
            z = torch.randn(len(images), own.z_dim)
            loss.accumulate_gradients(name, real_img=images, real_c=c, gen_z=z, gen_c=c, sync=True, gain=interval)
            network.requires_grad_(False)
            optimizer.step()
        _average(method, average, generator, len(images), number)

    def sample(z: Tensor) -> Tensor:
        images: Tensor = average(z, torch.zeros(len(z), 0), noise_mode="const")
        return images

    return OtherTrainer("NVIDIA", step, sample)


def _check_channels(method: StyleGAN2Training, possible: Mapping[int, int]) -> None:
    """Checks that the networks have a size that NVIDIA's code can express.

    Raises:
        UserError: They have another one, so that two different networks would be compared.
    """
    for name, network in (("generator", method.generator), ("method.discriminator", method.discriminator)):
        if dict(network.channels) != dict(possible):
            raise UserError(
                f"{name}.channels={dict(network.channels)}: NVIDIA's code has min(base / resolution, maximum) "
                f"channels, expected {dict(possible)} of generator and discriminator"
            )


def _rosinality(checkout: Path, method: StyleGAN2Training) -> OtherTrainer:
    """The steps of ``train`` with the networks and the losses of rosinality's code."""
    own = method.generator
    # The numbers of channels are constants in the source.
    source = read_text(checkout / "model.py", 1 << 20)
    for size in (4, 8, 16, 32):
        source = source.replace(f" {size}: 512,", f" {size}: {own.channels.get(size, 512)},")
    for size, base in ((64, 256), (128, 128), (256, 64), (512, 32), (1024, 16)):
        source = source.replace(f" {size}: {base} * channel_multiplier", f" {size}: {own.channels.get(size, base)}")
    model = importlib.import_module("model")
    exec(compile(source, "model.py", "exec"), model.__dict__)  # noqa: S102 - the checkout is the user's own
    train = importlib.import_module("train")
    generator, average = (
        model.Generator(own.resolution, own.z_dim, own.config["mapping_layers"], channel_multiplier=1) for _ in range(2)
    )
    discriminator = model.Discriminator(own.resolution, channel_multiplier=1)
    of_generator, of_discriminator = _adams(method, generator, discriminator)
    mean_length = torch.zeros(())

    def update(optimizer: torch.optim.Optimizer, network: nn.Module, loss: Tensor) -> None:
        network.zero_grad()
        loss.backward()
        optimizer.step()

    def fakes(count: int, **options: Any) -> Any:
        return generator(train.mixing_noise(count, own.z_dim, method.style_mixing, "cpu"), **options)

    def step(images: Tensor, number: int) -> None:
        nonlocal mean_length
        train.requires_grad(generator, False)
        train.requires_grad(discriminator, True)
        fake, _ = fakes(len(images))
        update(of_discriminator, discriminator, train.d_logistic_loss(discriminator(images), discriminator(fake)))
        if method.extra_d_steps and number % method.extra_d_steps == 0:
            real = images.detach().requires_grad_()
            logits = discriminator(real)
            penalty = method.r1_gamma / 2 * train.d_r1_loss(logits, real) * method.r1_every
            update(of_discriminator, discriminator, penalty + 0 * logits[0].sum())
        train.requires_grad(generator, True)
        train.requires_grad(discriminator, False)
        fake, _ = fakes(len(images))
        update(of_generator, generator, train.g_nonsaturating_loss(discriminator(fake)))
        if method.extra_g_steps and number % method.extra_g_steps == 0:
            fake, latents = fakes(max(1, len(images) // method.path_length_shrink), return_latents=True)
            loss, mean_length, _ = train.g_path_regularize(fake, latents, mean_length)
            weight = method.path_length_weight * method.path_length_every
            update(of_generator, generator, weight * loss + 0 * fake[0, 0, 0, 0])
        _average(method, average, generator, len(images), number)

    def sample(z: Tensor) -> Tensor:
        images, _ = average([z], randomize_noise=False)
        return cast(Tensor, images)

    return OtherTrainer("rosinality", step, sample)


def _average(method: StyleGAN2Training, average: nn.Module, network: nn.Module, images: int, number: int) -> None:
    half_life = float(method.ema_images)
    if method.ema_rampup is not None:
        half_life = min(half_life, images * number * method.ema_rampup)
    update_moving_average(average, network, images, half_life)
