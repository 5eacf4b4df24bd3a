"""Pivotal tuning: the stored difference, early stop, locality regularisation, continuing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stylegan_inv.errors import UserError
from stylegan_inv.generators.variants.low_rank_difference import compress, tuned
from stylegan_inv.methods.image2stylegan import Image2StyleGAN
from stylegan_inv.methods.pti import PTI, Locality
from stylegan_inv.optim.optimization_state import Monitor, Progress
from tests.methods.tiny import tiny, tiny_generator, tiny_images
from tests.optim.test_per_image_optimization import Killed


def make(**settings):
    start = settings.pop("start", None) or tiny(Image2StyleGAN, steps=3, lr=0.05)
    return tiny(PTI, start=start, **{"steps": 12, "lr": 3e-3, "distance_threshold": None, "rank": 3, **settings})


def test_difference_is_the_best_of_its_rank() -> None:
    base, changed = tiny_generator().synthesis, tiny_generator().synthesis
    torch.manual_seed(1)
    for p in changed.parameters():
        p.data += 0.01 * torch.randn_like(p)
    difference = compress(base, changed, 3)
    other = tuned(tiny_generator(), difference).synthesis
    for (name, want), got, before in zip(
        changed.named_parameters(), other.parameters(), base.parameters(), strict=True
    ):
        change = want - before
        if name in difference:
            torch.testing.assert_close(got, want, rtol=0, atol=1e-4)
        else:
            left = torch.linalg.svdvals(change.flatten(1))[3:].square().sum().sqrt()
            assert float((got - want).norm()) == pytest.approx(float(left), rel=1e-2)
    with pytest.raises(UserError, match="a difference of another generator"):
        tuned(tiny_generator(), {**difference, "extra": torch.zeros(1)})


def test_reconstruction_is_rendered_with_the_stored_difference() -> None:
    images, method = tiny_images(2), make()
    found = method.invert(images)
    pivot, last = found.steps
    for row in range(2):
        generator = tuned(method.generator, {name: t[row] for name, t in found.weights.items()})
        torch.testing.assert_close(generator.synthesis(found.w[row : row + 1]), found.image[row : row + 1])
        assert (last.image[row] - images[row]).square().mean() < 0.8 * (pivot.image[row] - images[row]).square().mean()
    same = tiny_generator().synthesis(found.w)
    torch.testing.assert_close(method.generator.synthesis(found.w), same), "the shared generator stays"
    alone = make().invert(images[1:])
    torch.testing.assert_close(alone.image, found.image[1:], rtol=0, atol=1e-8)


def test_stops_at_the_threshold_before_the_step() -> None:
    near = make(distance_threshold=1e9).invert(tiny_images(1))
    assert len(near.curves["tuning"]) == 1
    torch.testing.assert_close(near.steps[0].image, near.image)


def test_locality_keeps_other_codes() -> None:
    """The images of other codes change less with the regularisation than without."""
    images = tiny_images(1)
    w = tiny_generator().mapping(torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))
    moved = {}
    for name, locality in {"off": None, "on": Locality(weight=30.0, distance=3.0)}.items():
        method = make(locality=locality, rank=100)
        found = method.invert(images)
        other = tuned(method.generator, {key: t[0] for key, t in found.weights.items()})
        moved[name] = float((other.synthesis(w) - method.generator.synthesis(w)).square().mean())
    assert moved["on"] < 0.7 * moved["off"]


def test_killed_and_continued(tmp_path: Path) -> None:
    images, whole = tiny_images(2), make().invert(tiny_images(2))

    def report(progress: Progress) -> None:
        if progress.stage == "tuning 2/2":
            raise Killed

    with pytest.raises(Killed):
        make().optimize(images, monitor=Monitor(tmp_path / "state", "key", report=report))
    again = make().optimize(images, monitor=Monitor(tmp_path / "state", "key"))
    torch.testing.assert_close(again.image, whole.image, rtol=0, atol=1e-9)


def test_refused() -> None:
    with pytest.raises(UserError, match="rank=0"):
        make(rank=0)
    with pytest.raises(UserError, match="method.start='average': expected a method or the folder of a run"):
        make(start="average")
    with pytest.raises(UserError, match="PTI inverts by weights"):
        make(start=make()).invert(tiny_images(1))
