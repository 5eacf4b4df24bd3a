"""The objective of Image2StyleGAN++ against its formula, and the regions that its applications change."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from stylegan_inv.errors import UserError
from stylegan_inv.losses.style import gram, style_distance
from stylegan_inv.methods.common.embedding_stage import EmbeddingStage
from stylegan_inv.methods.feature_transfer import FeatureTransfer
from stylegan_inv.methods.image2stylegan_pp import Image2StyleGANPP
from tests.methods.tiny import tiny, tiny_images

WEIGHTS = {"pixel": 0.7, "pixel_reference": 0.3, "perceptual": 0.5, "style": 0.2}


def half_mask(count: int) -> torch.Tensor:
    mask = torch.zeros(count, 1, 16, 16, dtype=torch.float64)
    mask[:, :, :, :8] = 1
    return mask


def test_gram_by_loops() -> None:
    torch.manual_seed(0)
    maps, mask = torch.rand(2, 3, 4, 4, dtype=torch.float64), torch.rand(2, 1, 4, 4, dtype=torch.float64)
    want = torch.zeros(2, 3, 3, dtype=torch.float64)
    for b in range(2):
        for y in range(4):
            for x in range(4):
                want[b] += mask[b, 0, y, x] * torch.outer(maps[b, :, y, x], maps[b, :, y, x]) / mask[b].sum()
    torch.testing.assert_close(gram(maps, mask), want)
    torch.testing.assert_close(gram(maps), gram(maps, torch.ones(2, 1, 8, 8, dtype=torch.float64)))
    assert style_distance(want, want + 2).tolist() == [4.0, 4.0]
    # The style does not depend on positions.
    torch.testing.assert_close(gram(maps), gram(maps.flip(3)))


def test_objective_is_that_of_the_paper() -> None:
    """Equation 1 with all masks, two images and all four terms."""
    stage = EmbeddingStage(
        variable="w", steps=1, lr=0.0, pixel_mask="inside", perceptual_mask="outside", style_mask="inside", **WEIGHTS
    )
    method, x, y, mask = tiny(Image2StyleGANPP, stages={"w": stage}), tiny_images(2), tiny_images(4)[2:], half_mask(2)
    found = method.optimize(x, reference=y, mask=mask)
    image = method.generator.synthesis(method.average_codes(2), noise="const")
    network = method.features.network
    for b in range(2):
        g, i, j, m = image[b : b + 1], x[b : b + 1], y[b : b + 1], mask[b : b + 1]
        pixel = (m * (g - i)).square().sum() / g.numel()
        second = ((1 - m) * (g - j)).square().sum() / g.numel()
        outside = [network.maps((1 - m) * one) for one in (g, i)]
        perceptual = sum(F.mse_loss(a, c) for a, c in zip(*outside, strict=True))
        style = (gram(network.style(g), m) - gram(network.style(j), m)).square().mean()
        total = 0.7 * pixel + 0.3 * second + 0.5 * perceptual + 0.2 * style
        torch.testing.assert_close(found.curves["w"][0, b], total)


def test_only_the_chosen_layers_move() -> None:
    stage = EmbeddingStage(variable="w", steps=5, lr=0.05, pixel=1.0, layers=[0, 5])
    method = tiny(Image2StyleGANPP, stages={"w": stage})
    moved = (method.invert(tiny_images(1)).w - method.average_codes(1)).abs().amax(2)[0] > 0
    assert moved.tolist() == [True, False, False, False, False, True]
    with pytest.raises(UserError, match="no layer 6, expected 0 to 5"):
        tiny(Image2StyleGANPP, stages={"w": EmbeddingStage(variable="w", steps=1, lr=0.1, layers=[6])})


def test_inpainting_does_not_use_the_hole() -> None:
    stages = {
        "w": EmbeddingStage("w", 6, 0.05, pixel=1.0, pixel_mask="outside", perceptual=1.0, perceptual_mask="outside"),
        "noise": EmbeddingStage(
            "noise", 6, 0.05, pixel=1.0, pixel_mask="outside", pixel_reference=1.0, reference="initial"
        ),
    }
    method, x, mask = tiny(Image2StyleGANPP, stages=stages), tiny_images(1), half_mask(1)
    other_inside = torch.where(mask > 0, torch.full_like(x, 5.0), x)
    torch.testing.assert_close(method.optimize(other_inside, mask=mask).w, method.optimize(x, mask=mask).w)
    with pytest.raises(UserError, match="got no mask, this application needs one; give mask="):
        method.invert(x)


def test_crossover_takes_each_side_from_its_image() -> None:
    stages = {
        "w": EmbeddingStage("w", 30, 0.05, pixel=1.0, pixel_mask="inside", pixel_reference=1.0),
        "noise": EmbeddingStage("noise", 40, 0.05, pixel=1.0, pixel_mask="inside", pixel_reference=1.0),
    }
    x, y, mask = tiny_images(1), tiny_images(2)[1:], half_mask(1)
    image = tiny(Image2StyleGANPP, stages=stages).optimize(x, reference=y, mask=mask).image

    def error(other: torch.Tensor, m: torch.Tensor) -> float:
        return float((m * (image - other).square()).sum())

    assert error(x, mask) < 0.2 * error(y, mask) and error(y, 1 - mask) < 0.2 * error(x, 1 - mask)
    with pytest.raises(UserError, match="got no reference image, this application needs one; give reference="):
        tiny(Image2StyleGANPP, stages=stages).optimize(x, mask=mask)


def test_feature_transfer_changes_the_region_alone() -> None:
    stages = {"w": EmbeddingStage("w", 5, 0.05, pixel=1.0)}
    method = tiny(FeatureTransfer, stages=stages, resolutions=[16])
    x, y = tiny_images(1), tiny_images(2)[1:]
    found = method.optimize(x, reference=y, mask=half_mask(1))
    before = found.steps[-2].image
    changed = (found.image - method.generator.synthesis(found.w)).abs().amax(1)[0]
    # The kernels of the last layers reach three pixels beyond the edge of the mask.
    assert changed[:, :8].max() > 0.05 and changed[:, 12:].max() < 1e-9 and before.shape == found.image.shape
    nothing = method.optimize(x, reference=y, mask=torch.zeros_like(half_mask(1)))
    torch.testing.assert_close(nothing.image, method.generator.synthesis(nothing.w))
    with pytest.raises(UserError, match=r"resolutions=\[7\], expected some of"):
        tiny(FeatureTransfer, stages=stages, resolutions=[7]).optimize(x, reference=y, mask=half_mask(1))


def test_shapes_are_checked_first() -> None:
    method, x = (
        tiny(Image2StyleGANPP, stages={"w": EmbeddingStage("w", 1, 0.1, pixel=1.0, pixel_mask="inside")}),
        tiny_images(1),
    )
    with pytest.raises(UserError, match="the mask is"):
        method.optimize(x, mask=torch.ones(1, 1, 8, 8, dtype=torch.float64))
    with pytest.raises(UserError, match="the reference image is"):
        method.optimize(x, reference=x[..., :8], mask=half_mask(1))
    with pytest.raises(UserError, match="variable=z: expected one of w, noise"):
        EmbeddingStage("z", 1, 0.1)
