"""ADA and DiffAugment: exact cases, colour matrices against formulas, second derivatives, the update of p."""

from __future__ import annotations

import math

import pytest
import torch

from stylegan_inv.data.augment.ada import ADA, recolour, rotation, scaling, translation, warp
from stylegan_inv.data.augment.diffaugment import DiffAugment
from stylegan_inv.errors import UserError


def images(count: int = 2, size: int = 8) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1


def test_p_zero_changes_nothing_and_p_one_does() -> None:
    x = images()
    assert ADA()(x) is x
    torch.manual_seed(0)
    assert not torch.allclose(ADA(initial_p=1.0)(x), x)
    torch.testing.assert_close(warp(x, torch.eye(3).expand(2, 3, 3)), x)
    torch.testing.assert_close(recolour(x, torch.eye(4).expand(2, 4, 4)), x)
    assert DiffAugment("")(x) is x


def test_blits_move_whole_pixels() -> None:
    x, one = images(1), torch.ones(1, dtype=torch.float64)
    torch.testing.assert_close(warp(x, scaling(-one, one)), x.flip(3))
    turned = warp(x, rotation(-one * math.pi / 2))
    torch.testing.assert_close(turned, x.rot90(-1, (2, 3)))  # y points down: clockwise
    shifted = warp(x, translation(-2 * 2 / 8 * one, 0 * one))  # two pixels to the right
    torch.testing.assert_close(shifted[..., 2:], x[..., :-2])
    torch.testing.assert_close(shifted[..., :2], x[..., :2].flip(3))  # the border is reflected


def test_blit_only_gives_exact_images() -> None:
    x = images(64)
    torch.manual_seed(0)
    ada = ADA(initial_p=1.0, geometric=0, colour=0)
    out = warp(x, ada.sample_geometry(x))
    # Reflections and whole-pixel shifts create no new values.
    for before, after in zip(x, out, strict=True):
        values = before.flatten()
        nearest = (after.flatten()[:, None] - values[None]).abs().min(1).values
        assert float(nearest.max()) < 1e-9


def test_colour_matrices() -> None:
    x = images(400, 4)
    for seed in range(3):
        torch.manual_seed(seed)
        matrix = ADA(initial_p=1.0).sample_colour(x)
        torch.testing.assert_close(matrix[:, 3], torch.tensor([0, 0, 0, 1.0]).double().expand(400, 4))
        # Grey stays grey: brightness, contrast and luma act along the grey axis, hue and saturation around it.
        grey = recolour(torch.full((400, 3, 1, 1), 0.3).double(), matrix)[..., 0, 0]
        torch.testing.assert_close(grey, grey.mean(1, keepdim=True).expand(-1, 3))
        # Off the grey axis the map is a rotation times contrast and saturation, which scales all directions equally.
        v = torch.ones(3).double() / math.sqrt(3)
        off = matrix[:, :3, :3] - torch.einsum("bij,j,k->bik", matrix[:, :3, :3], v, v)
        singular = torch.linalg.svdvals(off)
        torch.testing.assert_close(singular[:, 0], singular[:, 1])
        assert float(singular[:, 2].max()) < 1e-9
    assert 0.2 < float((matrix[:, :3, :3] @ v @ v < 0).double().mean()) < 0.8  # luma flips


def test_probability_is_per_image_and_per_transformation() -> None:
    x = images(4000, 4)
    torch.manual_seed(0)
    matrix = ADA(initial_p=0.2, blit=0, colour=1).sample_colour(x)
    same = (matrix - torch.eye(4).double()).abs().amax((1, 2)) < 1e-9
    # Unchanged by four transformations and by the luma flip, which changes nothing half of the time.
    assert float(same.double().mean()) == pytest.approx(0.8**4 * 0.9, abs=0.03)
    inverse = ADA(initial_p=0.2, blit=0).sample_geometry(x)
    same = (inverse - torch.eye(3).double()).abs().amax((1, 2)) < 1e-9
    assert float(same.double().mean()) == pytest.approx(0.8**3 * 0.8, abs=0.03)  # the last factor: both rotations


@pytest.mark.parametrize("augment", [ADA(initial_p=1.0), DiffAugment()], ids=["ada", "diffaugment"])
def test_differentiable_twice(augment: torch.nn.Module) -> None:
    def seeded(x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        return augment(x).square()  # quadratic, so that the second derivative is not zero

    x = images(1, 4).requires_grad_()
    assert torch.autograd.gradcheck(seeded, (x,))
    assert torch.autograd.gradgradcheck(seeded, (x,))


def test_p_follows_the_sign_of_the_logits() -> None:
    ada = ADA(ada_images=1000, target=0.6, interval=2)
    ada.observe(torch.tensor(0.9), 50)
    assert float(ada.p) == 0  # p is updated after every second batch
    ada.observe(torch.tensor(0.9), 50)
    assert float(ada.p) == pytest.approx(0.1)
    ada.observe(torch.tensor(0.9), 100)
    ada.observe(torch.tensor(0.1), 300)  # mean 0.3 < target
    assert float(ada.p) == 0  # 0.1 - 0.4, and not below 0
    for _ in range(2 * 11):
        ada.observe(torch.tensor(1.0), 50)
    assert float(ada.p) == 1
    copy = ADA(ada_images=1000)
    copy.load_state_dict(ada.state_dict())
    assert float(copy.p) == 1
    fixed = ADA(initial_p=0.3, target=None, interval=1)
    fixed.observe(torch.tensor(1.0), 10_000)
    assert float(fixed.p) == pytest.approx(0.3)


def test_diffaugment_transformations() -> None:
    x = images(200, 8)
    torch.manual_seed(0)
    moved = DiffAugment("translation")(x)
    shifts = set()
    for before, after in zip(x, moved, strict=True):
        found = []
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                want = torch.zeros(3, 10, 10).double()
                want[:, 1 + dy : 9 + dy, 1 + dx : 9 + dx] = before
                if torch.equal(want[:, 1:9, 1:9], after):
                    found.append((dy, dx))
        assert len(found) == 1
        shifts.update(found)
    assert len(shifts) == 9
    holes = (DiffAugment("cutout")(x) == 0).all(1)
    assert int(holes.sum((1, 2)).max()) == 16 and int(holes.sum((1, 2)).min()) >= 4
    coloured = DiffAugment("color")(x)
    assert coloured.shape == x.shape and not torch.allclose(coloured, x)


def test_bad_arguments() -> None:
    with pytest.raises(UserError, match="policy has colour"):
        DiffAugment("colour,cutout")
    with pytest.raises(UserError, match="interval=0"):
        ADA(interval=0)
    with pytest.raises(UserError, match="expected \\(B, 3, R, R\\)"):
        ADA(initial_p=1)(torch.zeros(1, 1, 4, 4))
