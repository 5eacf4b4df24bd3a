"""Per-image optimisation: Adam, independence of images, early stop, and continuing after an interruption."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stylegan_inv.errors import UserError
from stylegan_inv.methods.common.embedding_stage import EmbeddingStage
from stylegan_inv.methods.image2stylegan import Image2StyleGAN
from stylegan_inv.methods.image2stylegan_pp import Image2StyleGANPP
from stylegan_inv.methods.projector import Projector
from stylegan_inv.optim.optimization_state import Moments, Monitor, OptimizationState, Progress, Snapshot
from stylegan_inv.optim.per_image_optimization import EarlyStop, Stage, adam, optimize
from tests.methods.tiny import tiny, tiny_generator, tiny_images

STAGES = {
    "w": EmbeddingStage(variable="w", steps=12, lr=0.05, pixel=1.0, perceptual=1.0),
    "noise": EmbeddingStage(variable="noise", steps=12, lr=0.05, pixel=1.0),
}
METHODS = {
    "projector": lambda **k: tiny(Projector, steps=20, w_avg_samples=50, **k),
    "projector_w_plus": lambda **k: tiny(Projector, space="w_plus", steps=20, w_avg_samples=50, pixel=1.0, **k),
    "image2stylegan": lambda **k: tiny(Image2StyleGAN, steps=20, lr=0.05, **k),
    "image2stylegan_pp": lambda **k: tiny(Image2StyleGANPP, stages=STAGES, **k),
    "alternating": lambda **k: tiny(Image2StyleGANPP, stages=STAGES, rounds=3, **k),
}


def test_adam_is_that_of_torch() -> None:
    torch.manual_seed(0)
    value = torch.randn(3, 4, dtype=torch.float64)
    reference = value.clone().requires_grad_()
    optimizer = torch.optim.Adam([reference], lr=0.03, betas=(0.8, 0.95))
    mean, square = torch.zeros_like(value), torch.zeros_like(value)
    for step in range(1, 30):
        gradient = torch.randn_like(value)
        reference.grad = gradient.clone()
        optimizer.step()
        adam(value, gradient, mean, square, step, 0.03, (0.8, 0.95))
        torch.testing.assert_close(value, reference.detach(), rtol=1e-12, atol=1e-12)


def same(a, b, atol: float = 1e-9) -> None:
    torch.testing.assert_close(a.w, b.w, rtol=0, atol=atol)
    torch.testing.assert_close(a.image, b.image, rtol=0, atol=10 * atol)
    assert (a.noise is None) == (b.noise is None)
    for x, y in zip(a.noise or [], b.noise or [], strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=10 * atol)


@pytest.mark.parametrize("name", METHODS)
def test_images_do_not_influence_one_another(name: str) -> None:
    """An image has the same result alone and in a batch, in any position."""
    method, images = METHODS[name](), tiny_images(4)
    alone = method.invert(images[2:3])
    in_batch = method.invert(torch.stack([images[0], -images[1], images[2], images[3] * 3]))
    assert (alone.w - method.average_codes(1)).abs().max() > 0.05, "it moved"
    torch.testing.assert_close(in_batch.w[2:3], alone.w, rtol=0, atol=1e-9)
    torch.testing.assert_close(in_batch.image[2:3], alone.image, rtol=0, atol=1e-8)
    for curve, other in zip(in_batch.curves.values(), alone.curves.values(), strict=True):
        torch.testing.assert_close(curve[:, 2:3], other, rtol=0, atol=1e-8)


class Killed(Exception):
    pass


def kill_at(step: int, stage: str | None = None):
    """Returns a report function that raises, as a signal would, at a step of a stage."""

    def report(progress: Progress) -> None:
        if progress.step >= step and stage in (None, progress.stage):
            raise Killed

    return report


@pytest.mark.parametrize("name", METHODS)
def test_killed_and_continued(name: str, tmp_path: Path) -> None:
    images, whole = tiny_images(3), METHODS[name]().invert(tiny_images(3))
    file = tmp_path / "state.safetensors"
    last = "noise" if "noise" in str(whole.curves.keys()) else None
    with pytest.raises(Killed):
        METHODS[name]().optimize(images, monitor=Monitor(file, "key", 0, kill_at(4, last)))
    state = Monitor(file, "key").load(OptimizationState, torch.device("cpu"))
    assert state is not None and 0 < state.step < 20
    continued = METHODS[name]().optimize(images, monitor=Monitor(file, "key"))
    assert torch.equal(continued.w, whole.w) and torch.equal(continued.image, whole.image)
    assert [s.name for s in continued.steps] == [s.name for s in whole.steps]
    assert all(torch.equal(a.image, b.image) for a, b in zip(continued.steps, whole.steps, strict=True))
    for a, b in zip(continued.curves.values(), whole.curves.values(), strict=True):
        assert torch.equal(a.nan_to_num(-1), b.nan_to_num(-1))
    # A finished optimisation is not repeated.
    again = METHODS[name]().optimize(images, monitor=Monitor(file, "key", report=kill_at(0)))
    same(again, whole)


def test_state_with_another_key_is_not_continued(tmp_path: Path) -> None:
    file, cpu = tmp_path / "state.safetensors", torch.device("cpu")
    METHODS["image2stylegan"]().optimize(tiny_images(1), monitor=Monitor(file, "one"))
    assert Monitor(file, "two").load(OptimizationState, cpu) is None
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UserError, match="cannot be continued"):
        Monitor(file, "one").load(OptimizationState, cpu)


def test_state_file_of_version_0_1_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "state.safetensors"
    tensors = {"variables/w": torch.zeros(1, 6, 8), "kept/shot|0000|start|w": torch.zeros(1, 6, 8)}
    save_file(tensors, file, {"key": "one", "stage": "0", "step": "3", "seconds": "1.0"})
    with pytest.raises(UserError, match=r"state.safetensors: cannot be continued .*remove the file to start again"):
        METHODS["image2stylegan"]().optimize(tiny_images(1), monitor=Monitor(file, "one"))


def test_state_files_keep_every_field(tmp_path: Path) -> None:
    state = OptimizationState(
        variables={"w": torch.rand(2, 3), "b|c/d": torch.rand(2)},
        moments={"w": Moments(torch.rand(2, 3), torch.rand(2, 3))},
        active=torch.tensor([True, False]),
        stage=1,
        step=7,
        curves=[torch.rand(4, 2), torch.full((9, 2), torch.nan)],
        snapshots=[Snapshot("W+ 10|x", torch.rand(2, 1, 3), torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8))],
        initial_image=None,
        seconds=0.1 + 0.2,
    )
    monitor = Monitor(tmp_path / "new folder" / "state", "key")
    monitor.save(state)
    loaded = monitor.load(OptimizationState, torch.device("cpu"))
    assert loaded is not None
    assert type(loaded.snapshots[0]) is Snapshot and type(loaded.moments["w"]) is Moments
    got, want = asdict(loaded), asdict(state)
    assert got["snapshots"][0].pop("name") == want["snapshots"][0].pop("name")
    assert (got.pop("initial_image"), got.pop("seconds")) == (want.pop("initial_image"), want.pop("seconds"))
    torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)


@dataclass
class Bowl:
    scale: torch.Tensor


def test_each_image_stops_by_itself() -> None:
    """Images that start with a lower loss reach the threshold earlier and then stay the same."""
    start = torch.tensor([[1.0], [4.0], [0.01], [8.0]], dtype=torch.float64)
    state = OptimizationState({"w": start.clone()})
    calls: list[int] = []

    def loss(variables, targets, step):
        calls.append(len(variables["w"]))
        return {"total": (variables["w"] * targets.scale).square().sum(1)}

    early_stop = EarlyStop(loss_threshold=0.01)
    stage = Stage("bowl", 200, ("w",), loss, Bowl(torch.ones(4, 1)), lambda step: 0.1, early_stop=early_stop)
    state.begin_stage(("w",), 200)
    optimize(stage, state, Monitor())
    curve = state.curves[0]
    steps = (~curve.isnan()).sum(0).tolist()
    assert steps[2] < steps[0] < steps[1] < steps[3] and calls[0] == 4 and calls[-1] == 1
    alone = OptimizationState({"w": start[1:2].clone()})
    alone.begin_stage(("w",), 200)
    optimize(replace(stage, targets=Bowl(torch.ones(1, 1))), alone, Monitor())
    assert torch.equal(alone.variables["w"][0], state.variables["w"][1])


def test_patience() -> None:
    flat, falling = torch.ones(60), 0.9 ** torch.arange(60.0)
    stop = EarlyStop(patience=20, min_delta=0.01)
    assert stop.should_stop(torch.stack([flat, falling], 1)).tolist() == [True, False]
    assert not stop.should_stop(torch.stack([flat, falling], 1)[:20]).any()
    with pytest.raises(UserError, match="patience=0"):
        EarlyStop(patience=0)
    with pytest.raises(UserError, match="min_delta=2"):
        EarlyStop(min_delta=2)


def test_early_stop_through_a_method() -> None:
    method = tiny(Image2StyleGAN, steps=40, lr=0.05, early_stop=EarlyStop(loss_threshold=0.3))
    found = method.invert(tiny_images(4))
    steps = (~found.curves["W+"].isnan()).sum(0)
    assert steps.min() < steps.max() <= 40


def test_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    images = tiny_images(2)
    first = tiny(Image2StyleGANPP, stages=STAGES).invert(images)
    at_once = {"w": EmbeddingStage(variable="w", steps=1, lr=0.0, pixel=1.0)}
    start = tiny(Image2StyleGANPP, stages=STAGES)
    continued = tiny(Image2StyleGANPP, stages=at_once, start=start).invert(images)
    same(continued, first)
    random = tiny(Image2StyleGAN, steps=1, lr=0.0, start="random", seed=3).invert(images)
    assert torch.equal(random.w[0], random.w[1]) and not torch.allclose(random.w[0], start.average_codes(1)[0])
    other = tiny(Image2StyleGAN, steps=1)
    other.generator.source_hash = "another"
    with torch.no_grad():
        other.generator.synthesis.b4.const.add_(1)
    with pytest.raises(UserError, match="its generator is another"):
        tiny(Image2StyleGAN, steps=1, start=other)
    with pytest.raises(UserError, match="method.start='nowhere': expected 'average', 'random' or a method"):
        tiny(Image2StyleGAN, steps=1, start="nowhere")


def test_gradients_inside_validation() -> None:
    """Lightning validates in inference mode."""
    images = tiny_images(1)
    method = METHODS["image2stylegan"]()
    with torch.inference_mode():
        inside = method.invert(images)
    same(inside, METHODS["image2stylegan"]().invert(images))


def test_noise_floor_compensates_for_missing_strength() -> None:
    """Without strength the noise maps change nothing; with a floor they reduce the error."""
    generator = tiny_generator()
    for layer in generator.synthesis.layers():
        layer.noise_strength.data.fill_(1e-6)
    images = tiny_images(1)
    errors = {}
    for floor in (0.0, 0.2):
        parts = {"noise": EmbeddingStage(variable="noise", steps=40, lr=0.05, pixel=1.0)}
        method = tiny(Image2StyleGANPP, stages=parts, noise_floor=floor)
        method._generator._held = (generator,)
        found = method.invert(images)
        assert found.noise is not None
        torch.testing.assert_close(generator.synthesis(found.w, noise=found.noise), found.image)
        errors[floor] = float((found.image - images).square().mean())
    assert errors[0.2] < 0.5 * errors[0.0]


def test_bad_settings() -> None:
    for change, text in {
        "noise_start": "expected one of const, random",
        "snapshots": "whole number",
    }.items():
        with pytest.raises(UserError, match=text):
            tiny(Image2StyleGAN, **{change: 0})
    with pytest.raises(UserError, match="expected one of w, w_plus"):
        tiny(Projector, space="z")
    with pytest.raises(UserError, match="takes images alone, got a reference image"):
        tiny(Image2StyleGAN, steps=1).optimize(tiny_images(1), reference=tiny_images(1))
    with pytest.raises(UserError, match="takes images alone, got a mask"):
        tiny(Image2StyleGAN, steps=1).optimize(tiny_images(1), mask=tiny_images(1)[:, :1])
