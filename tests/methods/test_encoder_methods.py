"""pSp, e4e, ReStyle over e4e and IntereStyle on a tiny generator, compared with papers and official code."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Discriminator, Generator
from stylegan_inv.latents.mixing import mix_styles
from stylegan_inv.losses.adversarial import AdversarialLoss
from stylegan_inv.losses.compose import LossInputs, LossTerms
from stylegan_inv.losses.latent.latent_pool import LatentPool
from stylegan_inv.losses.latent.regularization import DeltaNorm
from stylegan_inv.losses.pixel import L2
from stylegan_inv.methods.common.discriminators.latent_discriminator_training import LatentDiscriminatorTraining
from stylegan_inv.methods.e4e import E4E
from stylegan_inv.methods.interestyle import IntereStyle
from stylegan_inv.methods.psp import PSP
from stylegan_inv.methods.restyle import ReStyle
from stylegan_inv.methods.restyle_e4e import ReStyleE4E
from stylegan_inv.optim.schedules import ProgressiveStages
from tests.forks import join, launch_ranks

SIZE, DIM = 16, 8


class TinyEncoder(nn.Module):
    """A linear map of 4x4 means, with e4e's stages and, on request, batch statistics."""

    def __init__(self, num_ws: int, w_dim: int, in_channels: int, norm: bool = False) -> None:
        super().__init__()
        self.shape, self.stage = (num_ws, w_dim), num_ws - 1
        self.norm = nn.BatchNorm2d(in_channels) if norm else nn.Identity()
        self.linear = nn.Linear(in_channels * 16, num_ws * w_dim)
        nn.init.normal_(self.linear.weight, std=0.05)

    def set_stage(self, stage: int) -> None:
        self.stage = min(stage, self.shape[0] - 1)

    def forward(self, x: Tensor) -> Tensor:
        codes = self.linear(F.adaptive_avg_pool2d(self.norm(x), 4).flatten(1)).unflatten(1, self.shape)
        offsets = codes.clone()
        offsets[:, 0] = 0
        offsets[:, self.stage + 1 :] = 0
        return codes[:, :1] + offsets


def generator() -> Generator:
    torch.manual_seed(0)
    made = Generator(SIZE, z_dim=DIM, w_dim=DIM, mapping_layers=2, channels={4: 8, 8: 8, 16: 8})
    made.mapping.w_avg.normal_()
    return made.freeze()


def make(kind: type, **kwargs: Any) -> Any:
    torch.manual_seed(1)
    loss = LossTerms({"l2": L2(), "delta": DeltaNorm()}, {"l2": 1.0, "delta": 2e-4})
    defaults: dict[str, Any] = {
        "generator": generator(), "encoder": TinyEncoder, "loss": loss, "optimizer": torch.optim.Adam,
        "training_noise": "const",
    }  # fmt: skip
    return kind(**{**defaults, **kwargs})


def images(count: int = 4, seed: int = 3, channels: int = 3) -> Tensor:
    noise = torch.randn(count, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    return noise.clamp(-1, 1)


def loader(count: int = 8, batch_size: int = 4) -> DataLoader[Any]:
    masks = (images(count, seed=4, channels=1) > 0).float()
    return DataLoader(
        [{"image": x, "mask": m} for x, m in zip(images(count), masks, strict=True)], batch_size=batch_size
    )


def fit(method: pl.LightningModule, folder: Path, steps: int, ckpt: Path | None = None, **kwargs: Any) -> pl.Trainer:
    trainer = pl.Trainer(
        max_steps=steps, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, **kwargs,
    )  # fmt: skip
    trainer.fit(method, loader(), ckpt_path=ckpt, weights_only=True)
    return trainer


def adversary(w_dim: int, **kwargs: Any) -> LatentDiscriminatorTraining:
    return LatentDiscriminatorTraining(w_dim, **{"lr": 1e-2, "r1_every": 2, "pool_size": 4, **kwargs})


# -- pSp ---------------------------------------------------------------------------------------------------------------


def test_psp_adds_the_average_code_and_reads_the_source() -> None:
    method = make(PSP, in_channels=1).eval()
    batch = {"image": images(), "source": images(channels=1)}
    w = method.encoder(batch["source"]) + method.generator.w_avg
    result = method.invert(method.source(batch))
    torch.testing.assert_close(result.w, w)
    torch.testing.assert_close(result.image, method.generator.synthesis(w, noise="const"))
    terms = method.training_losses(batch)
    torch.testing.assert_close(terms["l2"], (result.image - batch["image"]).square().mean())


def test_psp_variants_exchange_exactly_the_chosen_layers() -> None:
    method = make(PSP).eval()
    x, z = images(2), torch.randn(1, DIM)
    plain, mixed = method.invert(x), method.variants(x, z, layers=range(3, 6))
    torch.testing.assert_close(mixed.w[:, :3], plain.w[:, :3])
    torch.testing.assert_close(mixed.w[:, 3:], method.generator.mapping(z)[:, 3:].expand(2, -1, -1))
    half = method.variants(x, z, layers=[5], strength=0.25).w[:, 5]
    torch.testing.assert_close(half, 0.75 * plain.w[:, 5] + 0.25 * method.generator.mapping(z)[0, 5])
    with pytest.raises(UserError, match="layer 6 of codes with 6"):
        mix_styles(plain.w, plain.w, [6])
    with pytest.raises(UserError, match="expected equal shapes"):
        mix_styles(plain.w, plain.w[:, :2], [0])


# -- e4e ---------------------------------------------------------------------------------------------------------------


def test_stages_start_when_the_official_schedule_says() -> None:
    # 18 styles with --progressive_start 20000 and --progressive_step_every 2000.
    official = [0] + [20_000 + 2_000 * i for i in range(17)]
    stages = ProgressiveStages(20_000, 2_000)
    for number, step in enumerate(official):
        assert stages.stage(step) == number and (step == 0 or stages.stage(step - 1) == number - 1)
    with pytest.raises(UserError, match="stages.start=-1: expected a whole number of at least 0"):
        ProgressiveStages(-1, 5)


def test_e4e_follows_its_stages_and_restores_them(tmp_path: Path) -> None:
    method = make(E4E, stages=ProgressiveStages(1, 2), adversary=adversary)
    assert method.active_layers == 1
    trainer = fit(method, tmp_path, 4)
    # The last step was number 3: layers 1 and 2 have offsets.
    assert trainer.global_step == 4 and method.active_layers == 3
    w = method.encode(images())
    assert torch.equal(w[:, 3:] - method.generator.w_avg, (w[:, :1] - method.generator.w_avg).expand(-1, 3, -1))
    assert not torch.equal(w[:, 2], w[:, 0])
    trainer.save_checkpoint(tmp_path / "e4e.ckpt")
    again = make(E4E, stages=ProgressiveStages(1, 2), adversary=adversary)
    again.on_load_checkpoint(torch.load(tmp_path / "e4e.ckpt", weights_only=True))
    assert again.active_layers == 3


def test_latent_discriminator_steps_as_written_out(tmp_path: Path) -> None:
    """Two steps of D, the first with R1, against the same arithmetic in float64 without any of our loss functions."""
    method = make(E4E, adversary=lambda w_dim: adversary(w_dim, pool_size=0, r1_every=2))
    twin = copy.deepcopy(method.adversary.discriminator).double().requires_grad_(True)
    twin_optimizer = torch.optim.Adam(twin.parameters(), lr=1e-2)
    shown: list[Tensor] = []

    def watch(pool: LatentPool) -> None:
        swap = pool.swap
        pool.swap = lambda w: shown.append(swap(w).double()) or shown[-1].float()  # type: ignore[func-returns-value,method-assign]

    watch(method.adversary.reals)
    watch(method.adversary.fakes)
    fit(method, tmp_path, 2)
    for number in range(2):
        real, fake = shown[2 * number], shown[2 * number + 1]
        twin_optimizer.zero_grad()
        (torch.log1p(torch.exp(-twin(real))).mean() + torch.log1p(torch.exp(twin(fake))).mean()).backward()
        twin_optimizer.step()
        if number == 0:
            twin_optimizer.zero_grad()
            codes = real.clone().requires_grad_(True)
            (gradient,) = torch.autograd.grad(twin(codes).sum(), codes, create_graph=True)
            (10.0 / 2 * 2 * gradient.square().sum(1).mean()).backward()
            twin_optimizer.step()
    for (name, value), mine in zip(twin.named_parameters(), method.adversary.discriminator.parameters(), strict=True):
        torch.testing.assert_close(mine.double(), value.detach(), rtol=1e-3, atol=1e-5, msg=name)
        assert not mine.requires_grad and mine.grad is None


def test_adversarial_term_is_the_mean_over_active_layers() -> None:
    method = make(E4E, stages=ProgressiveStages(0, 1), adversary=adversary)
    method.on_step(2)
    w = torch.randn(3, 6, DIM, requires_grad=True)
    terms = method.with_adversarial_loss({"total": torch.zeros(())}, w)
    logits = method.adversary.discriminator(w[:, :4])
    torch.testing.assert_close(terms["latent_adversarial"], torch.log1p(torch.exp(-logits)).mean())
    torch.testing.assert_close(terms["total"], 0.1 * terms["latent_adversarial"])
    terms["total"].backward()
    assert w.grad is not None and w.grad[:, :4].abs().min() > 0 and w.grad[:, 4:].abs().max() == 0


def test_second_pass_moves_the_batch_statistics_twice(tmp_path: Path) -> None:
    encoder = lambda **kwargs: TinyEncoder(**kwargs, norm=True)  # noqa: E731
    once, twice = (make(E4E, encoder=encoder, second_pass=second) for second in (False, True))
    x = next(iter(loader()))["image"]
    for method in (once, twice):
        fit(method, tmp_path, 1)
    mean = x.mean((0, 2, 3))
    torch.testing.assert_close(once.encoder.norm.running_mean, 0.1 * mean)
    torch.testing.assert_close(twice.encoder.norm.running_mean, 0.19 * mean)


# -- ReStyle over e4e --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("learn_from", ["codes", "residuals"])
def test_restyle_e4e_shows_the_first_step_to_the_discriminator(learn_from: str) -> None:
    method = make(ReStyleE4E, iterations=3, learn_from=learn_from, adversary=adversary)
    shown: list[Tensor] = []
    method.train_discriminator = lambda codes: shown.append(codes)
    batch = next(iter(loader()))
    terms = list(method.training_losses(batch))
    assert len(terms) == 3 and len(shown) == 1 and not shown[0].requires_grad
    average = method.average_image(SIZE).expand(4, -1, -1, -1)
    residual = method.encoder(torch.cat([batch["image"], average], 1)).detach()
    start = method.generator.w_avg if learn_from == "codes" else 0
    torch.testing.assert_close(shown[0], residual + start)
    assert all("latent_adversarial" in step for step in terms)
    with pytest.raises(UserError, match="learn_from=images: expected one of codes, residuals"):
        make(ReStyleE4E, learn_from="images")


# -- IntereStyle -------------------------------------------------------------------------------------------------------


def interestyle(**kwargs: Any) -> IntereStyle:
    loss = LossTerms({"l2": L2(region="interest")}, {"l2": 1.0})
    return make(IntereStyle, **{"loss": loss, "radii": (32, 16, 0), **kwargs})


def test_uninterest_filter_leaves_the_interest_region_alone() -> None:
    method, batch = interestyle(), next(iter(loader()))
    x, m = batch["image"], batch["mask"]
    method._mask = m
    views = list(method.views(x))
    assert torch.equal(views[2], x)
    for view in views[:2]:
        assert torch.equal((view * m), x * m)
        assert (view - x).mul(1 - m).abs().max() > 0.1
    # A stronger filter leaves less contrast outside.
    detail = [float((view[..., 1:] - view[..., :-1]).abs().mean()) for view in views]
    assert detail[0] < detail[1] < detail[2]
    method.filter_region = "whole"
    whole = next(iter(method.views(x)))
    assert not torch.allclose(whole * m, x * m)
    method._mask = None
    assert all(torch.equal(view, x) for view in method.views(x))


def test_blur_is_a_gaussian_of_the_radius_in_pixels_of_256() -> None:
    method = interestyle(filter_region="whole", radii=(32, 0))
    point = torch.zeros(1, 1, 256, 256)
    point[0, 0, 128, 128] = 1
    method._mask = torch.ones_like(point)
    row = next(iter(method.views(point)))[0, 0].sum(0)
    x = torch.arange(256.0) - 128
    torch.testing.assert_close((row * x.square()).sum().sqrt(), torch.tensor(32.0), rtol=0.02, atol=0)


@pytest.mark.parametrize("backprop", ["all", "last"])
def test_interestyle_gradient_is_that_of_the_written_out_step(backprop: str) -> None:
    method, batch = interestyle(backprop=backprop, disentanglement=0.05), next(iter(loader()))
    x, m, g = batch["image"], batch["mask"], method.generator
    for terms in method.training_losses(batch):
        terms["total"].backward()
    got = method.encoder.linear.weight.grad.clone()
    method.zero_grad()

    method._mask = m
    views = list(method.views(x))
    method._mask = None
    w, y = g.w_avg.expand(4, 6, DIM), method.average_image(SIZE).expand(4, -1, -1, -1)
    total = torch.zeros(())
    for number, view in enumerate(views):
        w = w.detach() + method.encoder(torch.cat([view, y.detach()], 1))
        y = g.synthesis(w)
        if backprop == "all" or number == 2:
            total = total + (m * y - m * x).square().mean()
    changed = g.synthesis(w.detach() + method.encoder(torch.cat([x, x * m], 1)))
    total = total + 0.05 * (m * changed - m * x).square().mean()
    total.backward()
    torch.testing.assert_close(got, method.encoder.linear.weight.grad, rtol=1e-4, atol=1e-7)


def test_interestyle_needs_masks_and_one_radius_for_each_step() -> None:
    with pytest.raises(UserError, match="no mask of the interest region"):
        next(iter(interestyle().training_losses({"image": images()})))
    with pytest.raises(UserError, match="one for each iteration"):
        interestyle(iterations=2)
    with pytest.raises(UserError, match="backprop=first: expected one of all, last"):
        interestyle(backprop="first")


# -- all ---------------------------------------------------------------------------------------------------------------


def adversarial() -> LossTerms:
    term = AdversarialLoss(Discriminator(SIZE, channels={4: 8, 8: 8, 16: 8}), lr=1e-2, r1_every=2)
    return LossTerms({"l2": L2(), "adversarial": term}, {"l2": 1.0, "adversarial": 0.2})


KINDS: dict[str, Any] = {
    "psp": lambda: make(PSP),
    "e4e": lambda: make(E4E, stages=ProgressiveStages(1, 1), adversary=adversary),
    "restyle": lambda: make(ReStyle, iterations=2),
    "restyle_e4e": lambda: make(ReStyleE4E, iterations=2, stages=ProgressiveStages(1, 1), adversary=adversary),
    "interestyle": lambda: interestyle(),
    "adversarial": lambda: make(PSP, loss=adversarial()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_validation_reports_the_interest_region(kind: str, tmp_path: Path) -> None:
    method = KINDS[kind]()
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=tmp_path,
    )  # fmt: skip
    (got,) = trainer.validate(method, loader(7, 3), verbose=False)
    expected = []
    with torch.no_grad():
        for batch in loader(7, 1):
            error = (method.invert(batch["image"]).image - batch["image"]).square()
            expected.append(((error * batch["mask"]).sum() / (3 * batch["mask"].sum())).double())
    assert got["val/mse_interest"] == pytest.approx(float(torch.stack(expected).mean()), rel=1e-5)


def same_as_one(kind: str) -> bool:
    """e4e's discriminator sees other random codes on each rank, that of images other groups of them."""
    return "e4e" not in kind and kind != "adversarial"


def precision(kind: str) -> Any:
    return "64-true" if same_as_one(kind) else "32-true"


#: Those that repeat the ranks of psp, e4e and an image discriminator.
_LONG = ("restyle", "restyle_e4e", "interestyle")


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.long) if kind in _LONG else kind for kind in KINDS]
)
def test_two_ranks_do_what_one_does(kind: str, tmp_path: Path) -> None:
    """Two gloo ranks with half the batch each end with the weights of one process, and with each other's.

    The latter in double precision: Adam makes whole steps of gradients that are nothing but rounding errors.
    """
    from tests.methods.two_ranks_encoders import train_rank

    processes = launch_ranks(train_rank, kind, tmp_path, log=tmp_path / "log")
    assert join(processes, 300) == [0, 0], (tmp_path / "log.0").read_text()
    a, b = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    one = KINDS[kind]()
    fit(one, tmp_path, 3, precision=precision(kind))
    for name, value in one.state_dict().items():
        if "adversary" in name and not isinstance(value, Tensor):
            continue  # the pools are each rank's own
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0, msg=name)
        if same_as_one(kind):
            torch.testing.assert_close(a[name], value, rtol=1e-6, atol=1e-9, msg=name)


def test_loss_inputs_give_terms_the_synthesis() -> None:
    method, seen = make(PSP), []
    loss = LossTerms({"l2": L2()}, {"l2": 1.0})
    forward = loss.forward

    def spy(inputs: LossInputs) -> Any:
        seen.append(inputs)
        return forward(inputs)

    loss.forward = spy  # type: ignore[method-assign]
    method.loss = loss
    method.training_losses(next(iter(loader())))
    assert seen[0].synthesis is not None and seen[0].synthesis(seen[0].w).shape == (4, 3, SIZE, SIZE)
