"""The descent itself: Adam, independence of images, early stop, and that a killed descent continues unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stylegan_inv.errors import UserError
from stylegan_inv.methods.common.per_image import PerImageMethod
from stylegan_inv.methods.feature_transfer import FeatureTransfer
from stylegan_inv.methods.image2stylegan import Image2StyleGAN
from stylegan_inv.methods.image2stylegan_pp import Image2StyleGANPP, Part
from stylegan_inv.methods.projector import Projector
from stylegan_inv.optim.descent import EarlyStop, Stage, State, Watch, adam, descend
from tests.methods.tiny import tiny, tiny_generator, tiny_images

PARTS = {
    "w": Part(vary="w", steps=12, rate=0.05, pixel=1.0, perceptual=1.0),
    "noise": Part(vary="noise", steps=12, rate=0.05, pixel=1.0),
}
METHODS = {
    "projector": lambda **k: tiny(Projector, steps=20, samples=50, **k),
    "projector_w_plus": lambda **k: tiny(Projector, space="w_plus", steps=20, samples=50, pixel=1.0, **k),
    "image2stylegan": lambda **k: tiny(Image2StyleGAN, steps=20, rate=0.05, **k),
    "image2stylegan_pp": lambda **k: tiny(Image2StyleGANPP, parts=PARTS, **k),
    "alternating": lambda **k: tiny(Image2StyleGANPP, parts=PARTS, rounds=3, **k),
}


def test_adam_is_torchs() -> None:
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
    """Alone, in another place and beside other images: the same result."""
    method, images = METHODS[name](), tiny_images(4)
    alone = method.invert(images[2:3])
    beside = method.invert(torch.stack([images[0], -images[1], images[2], images[3] * 3]))
    assert (alone.w - method.average_codes(1)).abs().max() > 0.05, "it moved"
    torch.testing.assert_close(beside.w[2:3], alone.w, rtol=0, atol=1e-9)
    torch.testing.assert_close(beside.image[2:3], alone.image, rtol=0, atol=1e-8)
    for curve, other in zip(beside.curves.values(), alone.curves.values(), strict=True):
        torch.testing.assert_close(curve[:, 2:3], other, rtol=0, atol=1e-8)


class Killed(Exception):
    pass


def kill_at(step: int, stage: str | None = None):
    """A report that stops everything, as a signal would, at a step of a stage."""
    seen = set()

    def report(name: str, now: int, *rest: object) -> None:
        seen.add(name)
        if now >= step and (stage is None or (name == stage and len(seen) > 0)):
            raise Killed

    return report


@pytest.mark.parametrize("name", METHODS)
def test_killed_and_continued(name: str, tmp_path: Path) -> None:
    images, whole = tiny_images(3), METHODS[name]().invert(tiny_images(3))
    file = tmp_path / "state.safetensors"
    last = "noise" if "noise" in str(whole.curves.keys()) else None
    with pytest.raises(Killed):
        METHODS[name]().invert(images, watch=Watch(file, "key", every_seconds=0, report=kill_at(4, last)))
    state = State.load(file, "key", torch.device("cpu"))
    assert state is not None and 0 < state.step < 20
    continued = METHODS[name]().invert(images, watch=Watch(file, "key"))
    assert torch.equal(continued.w, whole.w) and torch.equal(continued.image, whole.image)
    assert [s.name for s in continued.steps] == [s.name for s in whole.steps]
    assert all(torch.equal(a.image, b.image) for a, b in zip(continued.steps, whole.steps, strict=True))
    for a, b in zip(continued.curves.values(), whole.curves.values(), strict=True):
        assert torch.equal(a.nan_to_num(-1), b.nan_to_num(-1))
    # A finished one is not done again.
    again = METHODS[name]().invert(images, watch=Watch(file, "key", report=kill_at(0)))
    same(again, whole)


def test_state_of_something_else_is_not_continued(tmp_path: Path) -> None:
    file = tmp_path / "state.safetensors"
    METHODS["image2stylegan"]().invert(tiny_images(1), watch=Watch(file, "one"))
    assert State.load(file, "two", torch.device("cpu")) is None
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UserError, match="cannot be continued"):
        State.load(file, "one", torch.device("cpu"))


def test_each_image_stops_by_itself() -> None:
    """Quadratic bowls: those that start lower reach the goal earlier and then stand still."""
    start = torch.tensor([[1.0], [4.0], [0.01], [8.0]], dtype=torch.float64)
    state = State({"w": start.clone()})
    calls: list[int] = []

    def loss(variables, given, step):
        calls.append(len(variables["w"]))
        return {"total": (variables["w"] * given["scale"]).square().sum(1)}

    stage = Stage("bowl", 200, ("w",), loss, {"scale": torch.ones(4, 1)}, lambda step: 0.1, stop=EarlyStop(goal=0.01))
    state.enter(stage)
    descend(stage, state, Watch())
    curve = state.curves[0]
    steps = (~curve.isnan()).sum(0).tolist()
    assert steps[2] < steps[0] < steps[1] < steps[3] and calls[0] == 4 and calls[-1] == 1
    alone = State({"w": start[1:2].clone()})
    single = Stage(**{**vars(stage), "given": {"scale": torch.ones(1, 1)}})
    alone.enter(single)
    descend(single, alone, Watch())
    assert torch.equal(alone.variables["w"][0], state.variables["w"][1])


def test_patience() -> None:
    flat, falling = torch.ones(60), 0.9 ** torch.arange(60.0)
    stop = EarlyStop(patience_steps=20, least_gain=0.01)
    assert stop.done(torch.stack([flat, falling], 1)).tolist() == [True, False]
    assert not stop.done(torch.stack([flat, falling], 1)[:20]).any()
    with pytest.raises(UserError, match="patience_steps=0"):
        EarlyStop(patience_steps=0)


def test_early_stop_through_a_method() -> None:
    method = tiny(Image2StyleGAN, steps=40, rate=0.05, stop=EarlyStop(goal=0.3))
    found = method.invert(tiny_images(4))
    steps = (~found.curves["W+"].isnan()).sum(0)
    assert steps.min() < steps.max() <= 40


def test_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    images = tiny_images(2)
    first = tiny(Image2StyleGANPP, parts=PARTS).invert(images)
    at_once = {"w": Part(vary="w", steps=1, rate=0.0, pixel=1.0)}
    start = tiny(Image2StyleGANPP, parts=PARTS)
    continued = tiny(Image2StyleGANPP, parts=at_once, start=start).invert(images)
    same(continued, first)
    random = tiny(Image2StyleGAN, steps=1, rate=0.0, start="random", seed=3).invert(images)
    assert torch.equal(random.w[0], random.w[1]) and not torch.allclose(random.w[0], start.average_codes(1)[0])
    other = tiny(Image2StyleGAN, steps=1)
    other.generator.source_hash = "another"
    with pytest.raises(UserError, match="its generator is another"):
        tiny(Image2StyleGAN, steps=1, start=other)
    with pytest.raises(UserError, match="nowhere: no such run folder"):
        tiny(Image2StyleGAN, steps=1, start="nowhere")


def test_gradients_inside_validation() -> None:
    """Lightning validates in inference mode."""
    images = tiny_images(1)
    method = METHODS["image2stylegan"]()
    with torch.inference_mode():
        inside = method.invert(images)
    same(inside, METHODS["image2stylegan"]().invert(images))


def test_noise_floor_makes_up_for_missing_strength() -> None:
    """With noise of no strength the maps change nothing; with a floor they do, by large maps."""
    generator = tiny_generator()
    for layer in generator.synthesis.layers():
        layer.noise_strength.data.fill_(1e-6)
    images = tiny_images(1)
    errors = {}
    for floor in (0.0, 0.2):
        parts = {"noise": Part(vary="noise", steps=40, rate=0.05, pixel=1.0)}
        method = tiny(Image2StyleGANPP, parts=parts, noise_floor=floor)
        method._generator._held = (generator,)
        found = method.invert(images)
        assert found.noise is not None
        torch.testing.assert_close(generator.synthesis(found.w, noise=found.noise), found.image)
        errors[floor] = float((found.image - images).square().mean())
    assert errors[0.2] < 0.5 * errors[0.0]


def test_bad_settings() -> None:
    for change, text in {
        "noise_start": "expected const or random",
        "snapshots": "whole number",
    }.items():
        with pytest.raises(UserError, match=text):
            tiny(Image2StyleGAN, **{change: 0})
    with pytest.raises(UserError, match="w or w_plus"):
        tiny(Projector, space="z")
    with pytest.raises(UserError, match="takes one image"):
        tiny(Image2StyleGAN, steps=1).invert(tiny_images(1), second=tiny_images(1))
    assert issubclass(FeatureTransfer, PerImageMethod)
