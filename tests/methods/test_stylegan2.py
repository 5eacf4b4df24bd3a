"""StyleGAN2 training: averages and learning rates in closed form, exact resume, and the paired warm start."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from stylegan_inv.data.augment.ada import ADA
from stylegan_inv.encoders.factor_embedding import FactorEmbedding
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Discriminator, Generator, load_generator
from stylegan_inv.losses.paired.warm_start import PairedWarmStart
from stylegan_inv.methods.generator.paired_stylegan2 import PairedStyleGAN2Training
from stylegan_inv.methods.generator.stylegan2 import StyleGAN2Training
from stylegan_inv.optim.gradient_averaging import average_gradients, update_moving_average
from tests.faults.small import differences
from tests.forks import join, launch_ranks

SIZE, NORMALS = 8, 3


def networks() -> tuple[Generator, Discriminator]:
    torch.manual_seed(0)
    channels = {4: 8, 8: 8}
    generator = Generator(SIZE, z_dim=16, w_dim=16, mapping_layers=2, channels=channels, mapping_lr_multiplier=1.0)
    return generator, Discriminator(SIZE, channels=channels)


def stylegan2(**kwargs: Any) -> StyleGAN2Training:
    return StyleGAN2Training(*networks(), **{"ema_rampup": None, "samples": 4, **kwargs})


def paired(warmup_images: int, embedding: bool = True, **kwargs: Any) -> PairedStyleGAN2Training:
    generator, discriminator = networks()
    torch.manual_seed(1)
    factor_embedding = FactorEmbedding(lambda n: n, NORMALS, NORMALS, w_dim=16, hidden=16) if embedding else None
    warm_start = PairedWarmStart(warmup_images=warmup_images, embedding=factor_embedding, distill_steps=200)
    return PairedStyleGAN2Training(generator, discriminator, paired=warm_start, samples=4, **kwargs)


def loader(count: int = 8) -> DataLoader[Any]:
    """Uniform images whose colours are known functions of the latent vectors, in batches of four."""
    n = torch.randn(count, NORMALS, generator=torch.Generator().manual_seed(5))
    image = (n / 2).tanh()[:, :, None, None].expand(-1, -1, SIZE, SIZE).contiguous()
    return DataLoader([{"image": image[i], "normals": n[i]} for i in range(count)], batch_size=4)


def fit(
    method: pl.LightningModule, folder: Path, steps: int, ckpt: Path | None = None, count: int = 8, **kwargs: Any
) -> pl.Trainer:
    trainer = pl.Trainer(
        max_steps=steps, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, **kwargs,
    )  # fmt: skip
    trainer.fit(method, loader(count), ckpt_path=ckpt, weights_only=True)
    return trainer


def test_moving_average_has_its_half_life() -> None:
    average, network = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    torch.nn.init.constant_(average.weight, 1.0)
    torch.nn.init.constant_(network.weight, 3.0)
    network.running_mean.fill_(7.0)
    for _ in range(5):
        update_moving_average(average, network, 20, half_life=100)
    torch.testing.assert_close(average.weight, torch.full((2,), 2.0))  # half of the way after 100 images
    assert float(average.running_mean[0]) == 7
    update_moving_average(average, network, 1, half_life=0)
    torch.testing.assert_close(average.weight, network.weight)


def test_gradients_are_averaged_and_cleaned() -> None:
    class Strategy:
        def reduce(self, value: torch.Tensor, reduce_op: str) -> torch.Tensor:
            assert reduce_op == "mean"
            return value / 2  # as if the other rank had zeros

    a, b, unused = (torch.nn.Parameter(torch.zeros(2)) for _ in range(3))
    a.grad, b.grad = torch.tensor([2.0, float("nan")]), torch.tensor([float("inf"), 4.0])
    average_gradients([a, b, unused], Strategy(), 2, clean=True)
    assert a.grad.tolist() == [1, 0] and b.grad.tolist() == [1e5, 2] and unused.grad is None
    # An encoder's gradient is not mended in silence.
    a.grad = torch.tensor([2.0, float("nan")])
    average_gradients([a], Strategy(), 2)
    assert a.grad[0] == 1 and a.grad[1].isnan()


def test_lr_and_betas_are_corrected_for_lazy_regularisation() -> None:
    method = stylegan2(lr_g=0.002, lr_d=0.001, betas=(0.5, 0.99), path_length_every=4, r1_every=16)
    g, d = method.configure_optimizers()
    assert g.defaults["lr"] == pytest.approx(0.002 * 4 / 5) and d.defaults["lr"] == pytest.approx(0.001 * 16 / 17)
    assert g.defaults["betas"] == pytest.approx((0.5 ** (4 / 5), 0.99 ** (4 / 5)))
    assert d.defaults["betas"] == pytest.approx((0.5 ** (16 / 17), 0.99 ** (16 / 17)))
    assert stylegan2(path_length_weight=0).configure_optimizers()[0].defaults["betas"] == (0.0, 0.99)
    with pytest.raises(UserError, match="nonsaturating, minimax"):
        stylegan2(loss="gan")


def test_regularisers_that_would_never_run_are_refused() -> None:
    for options, cure in (({"r1_every": 0}, "method.r1_gamma=0"), ({"path_length_every": 0}, "path_length_weight=0")):
        with pytest.raises(UserError, match=f"at least 1, or .*{cure}"):
            stylegan2(**options)
    # A regulariser in each step, or none, takes no steps of its own, for which learning rates would be corrected.
    for options in ({"path_length_every": 1, "r1_every": 1}, {"path_length_weight": 0, "r1_gamma": 0}):
        for optimizer in stylegan2(**options).configure_optimizers():
            assert optimizer.defaults["lr"] == 2e-3 and optimizer.defaults["betas"] == (0.0, 0.99)


def test_r3gan_as_written_out(tmp_path: Path) -> None:
    """Relativistic pairs with R1 and R2 in each step (arXiv 2501.05441, equations 2 and 4)."""
    gamma = 0.3
    method = stylegan2(
        loss="relativistic", r1_gamma=gamma, r2_gamma=gamma, r1_every=1, path_length_weight=0, style_mixing=0,
        noise="none", seed=3,
    )  # fmt: skip
    g, d = copy.deepcopy(method.generator), copy.deepcopy(method.discriminator)
    fit(method, tmp_path, 2)
    optimizers = [torch.optim.Adam(network.parameters(), lr=2e-3, betas=(0.0, 0.99)) for network in (g, d)]

    def fakes() -> torch.Tensor:
        z = torch.randn(4, 16)
        torch.rand(())  # whether codes are mixed
        return g.synthesis(g.mapping(z), noise="none")

    for number, batch in enumerate(loader()):
        torch.manual_seed(3 * 1_000_003 + number)
        real = batch["image"]
        torch.log1p(torch.exp(d(real).detach() - d(fakes()))).mean().backward()
        optimizers[0].step()
        d.zero_grad()
        fake, real = fakes().detach().requires_grad_(True), real.requires_grad_(True)
        of_real, of_fake = d(real), d(fake)
        loss = torch.log1p(torch.exp(of_fake - of_real)).mean()
        for images, logits in ((real, of_real), (fake, of_fake)):
            (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
            loss = loss + gamma / 2 * gradient.square().sum(dim=(1, 2, 3)).mean()
        g.zero_grad()
        loss.backward()
        optimizers[1].step()
        d.zero_grad()
    for own, other in ((method.generator, g), (method.discriminator, d)):
        for (name, a), b in zip(own.named_parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_training_moves_both_networks_and_exports_the_average(tmp_path: Path) -> None:
    method = stylegan2(augment=ADA(initial_p=0.5, interval=1), export="out/generator.safetensors", ema_images=0)
    before = copy.deepcopy(method.state_dict())
    trainer = fit(method, tmp_path, 3)
    after = method.state_dict()
    for name in ("generator.mapping.fc0.weight", "discriminator.b4.out.weight", "generator.mapping.w_avg", "pl_mean"):
        assert not torch.equal(before[name], after[name]), name
    assert trainer.global_step == 3 and int(method.images_seen) == 12 and int(method.batches) == 3
    assert {"train/loss/r1", "train/loss/path_length", "train/augment_p"} <= trainer.callback_metrics.keys()
    z = torch.randn(2, 16)
    exported = load_generator(tmp_path / "out" / "generator.safetensors")
    torch.testing.assert_close(exported(z).clamp(-1, 1), method.sample(z))
    # Half-life 0: the average is the network itself.
    torch.testing.assert_close(method.generator(z).detach().clamp(-1, 1), method.sample(z))
    assert {tuple(column.shape) for column in method.panel_columns().values()} == {(4, 3, SIZE, SIZE)}


@pytest.mark.parametrize("make", [stylegan2, lambda: paired(8)], ids=["stylegan2", "paired"])
def test_resumed_run_has_equal_weights(make: Any, tmp_path: Path) -> None:
    whole, first, second = make(), make(), make()
    # One batch an epoch: that a resumed run sees the right images is the data module's business.
    fit(whole, tmp_path, 4, count=4)
    fit(first, tmp_path, 2, count=4).save_checkpoint(tmp_path / "half.ckpt")
    fit(second, tmp_path, 4, ckpt=tmp_path / "half.ckpt", count=4)
    for (name, a), b in zip(whole.state_dict().items(), second.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=name)


def test_resumed_in_any_phase_of_the_regularisers(tmp_path: Path) -> None:
    """Intervals of 2, 3 and 4 steps for the path length, R1 and ADA: each stop meets another phase of them."""

    def method() -> StyleGAN2Training:
        augment = ADA(initial_p=0.3, interval=4, ada_images=40)
        return stylegan2(path_length_every=2, r1_every=3, augment=augment, ema_rampup=0.5)

    def steps(count: int, start: Path | None = None) -> Path:
        path = tmp_path / f"{count}{'' if start is None else start.stem}.ckpt"
        fit(method(), tmp_path, count, ckpt=start, count=4).save_checkpoint(path)
        return path

    def content(path: Path) -> dict[str, Any]:
        state = torch.load(path, weights_only=True)
        return {key: state[key] for key in ("state_dict", "optimizer_states", "global_step")}

    whole = content(steps(8))
    assert len(whole["optimizer_states"]) == 2 and whole["state_dict"]["pl_mean"] > 0
    images, probabilities = set(), set()
    for stop in range(1, 8):
        path = steps(stop)
        held = torch.load(path, weights_only=True)["state_dict"]
        images.add(int(held["augment._images"]))
        probabilities.add(round(float(held["augment.p"]), 4))
        assert not differences(whole, content(steps(8, path))), f"stopped after step {stop}"
    assert images == {0, 4, 8, 12} and len(probabilities) > 1, "ADA is stopped between its updates, and after one"


def test_several_discriminator_steps_and_the_number_of_images(tmp_path: Path) -> None:
    method = stylegan2(d_steps_per_g=2, total_images=24)
    trainer = fit(method, tmp_path, 1000)
    assert int(method.batches) == 6 and trainer.global_step == 3


def test_fast_dev_run_exports_nothing_and_half_precision_is_refused(tmp_path: Path) -> None:
    fit(stylegan2(export="generator.safetensors"), tmp_path, 1, fast_dev_run=True)
    assert not list(tmp_path.rglob("*.safetensors"))
    method = stylegan2()
    method._trainer = type("T", (), {"precision": "16-mixed"})()  # type: ignore[assignment]
    with pytest.raises(UserError, match="bf16-mixed"):
        method.on_fit_start()


def test_warm_up_lowers_the_error_and_keeps_mapping_and_discriminator(tmp_path: Path) -> None:
    method = paired(10_000)
    batch = next(iter(loader()))

    def error() -> float:
        with torch.no_grad():
            ws = method.paired.codes(method.generator, batch["normals"])
            return float(method.paired.loss(method.generator.synthesis(ws, noise="none"), batch["image"]))

    start, before = error(), copy.deepcopy(method.state_dict())
    fit(method, tmp_path, 120)
    assert error() < 0.5 * start
    for name, value in method.state_dict().items():
        if name.startswith(("discriminator.", "generator.mapping.fc")):
            assert torch.equal(value, before[name]), name
    assert not method.warm_up_ended and method.panel_columns()["psi 1"].shape == (4, 3, SIZE, SIZE)


def test_the_mapping_learns_the_embedding(tmp_path: Path) -> None:
    method = paired(12)
    fit(method, tmp_path, 2)  # 8 images: still warming up
    mapping = copy.deepcopy(method.generator.mapping)
    assert not method.warm_up_ended
    embedding = copy.deepcopy(method.paired.embedding.state_dict())
    normals = torch.randn(500, NORMALS)
    z = PairedWarmStart.latents(normals, 16)
    with torch.no_grad():
        target = method.paired.embedding(normals)
        distance = float((mapping.w(z) - target).square().mean())
        with torch.enable_grad():
            method._end_warm_up()
        assert float((method.generator.mapping.w(z) - target).square().mean()) < 0.7 * distance
    assert method.warm_up_ended
    for a, b in zip(method.generator.mapping.parameters(), method.generator_ema.mapping.parameters(), strict=True):
        assert torch.equal(a, b)
    assert all(torch.equal(value, embedding[name]) for name, value in method.paired.embedding.state_dict().items())


def test_a_run_that_ends_with_the_warm_up_trains_the_mapping(tmp_path: Path) -> None:
    method = paired(8)
    before = copy.deepcopy(method.generator.mapping)
    fit(method, tmp_path, 2)
    assert method.warm_up_ended
    assert not torch.equal(before.fc0.weight, method.generator.mapping.fc0.weight)


def test_after_the_warm_up_the_embedding_is_fixed_and_the_discriminator_learns(tmp_path: Path) -> None:
    method = paired(4)
    fit(method, tmp_path, 1)
    embedding = copy.deepcopy(method.paired.embedding.state_dict())
    mapping = copy.deepcopy(method.generator.mapping.state_dict())
    synthesis = copy.deepcopy(method.generator.synthesis.state_dict())
    method = paired(4)
    trainer = fit(method, tmp_path, 4)
    # Both were trained for good in the warm-up; the game is played on their codes and trains the synthesis network.
    learnt = {name: value for name, value in method.generator.mapping.state_dict().items() if name != "w_avg"}
    assert all(torch.equal(value, mapping[name]) for name, value in learnt.items())
    played = method.generator.synthesis.state_dict()
    assert not all(torch.equal(value, synthesis[name]) for name, value in played.items())
    assert method.warm_up_ended and {"train/loss/paired", "train/loss/discriminator"} <= trainer.callback_metrics.keys()
    assert all(torch.equal(value, embedding[name]) for name, value in method.paired.embedding.state_dict().items())
    g = trainer.optimizers[0].param_groups[0]
    assert g["lr"] == pytest.approx(2e-3 * 4 / 5) and g["betas"] == pytest.approx((0.0, 0.99**0.8))


def test_data_without_normals_are_refused(tmp_path: Path) -> None:
    method = paired(8)
    with pytest.raises(UserError, match="no normals"):
        method.update({"image": torch.zeros(4, 3, SIZE, SIZE)}, 0, 0)


@pytest.mark.slow
def test_two_ranks_keep_equal_weights(tmp_path: Path) -> None:
    from tests.methods.two_ranks_stylegan2 import train_rank

    processes = launch_ranks(train_rank, tmp_path, log=tmp_path / "log")
    assert join(processes, 300) == [0, 0], (tmp_path / "log.0").read_text()
    a, b = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert int(a["images_seen"]) == 24 and a["warm_up_ended"]
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=0, atol=0, msg=name)
