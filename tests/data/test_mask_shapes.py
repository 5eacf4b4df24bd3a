"""Masks from text descriptions, compared with areas known from geometry, and invalid descriptions."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from stylegan_inv.data.images.mask_shapes import check_description, check_mask, draw_mask, read_mask
from stylegan_inv.errors import UserError

LABELS = ("background", "skin", "hair")


def test_areas_and_positions() -> None:
    ellipse = draw_mask("ellipse:0.5,0.25,0.4,0.2", 64)
    assert ellipse.shape == (1, 64, 64) and ellipse.mean().item() == pytest.approx(math.pi * 0.4 * 0.2, rel=0.01)
    assert ellipse[0, 16, 32] == 1 and ellipse[0, 40, 32] == 0
    box = draw_mask("rectangle:0.25,0.5,0.75,1.0", 64)
    want = torch.zeros(1, 64, 64)
    want[:, 32:, 16:48] = 1
    assert torch.equal(box, want)
    both = draw_mask("ellipse:0.5,0.25,0.4,0.2+rectangle:0.25,0.5,0.75,1.0", 64)
    assert torch.equal(both, torch.maximum(ellipse, box))


def test_labels_and_changes() -> None:
    label = torch.tensor([[0, 1], [2, 2]])
    assert draw_mask("label:hair", 2, label, LABELS).tolist() == [[[0, 0], [1, 1]]]
    assert draw_mask("label:skin,background", 2, label, LABELS).tolist() == [[[1, 1], [0, 0]]]
    image = torch.zeros(3, 64, 64)
    second = image.clone()
    second[1, 20, 30] = 0.5
    changed = draw_mask("changed", 64, image=image, second=second)
    assert (
        changed[0, 20, 30] == 1
        and changed.sum() == 9
        and draw_mask("changed", 64, image=image, second=image).sum() == 0
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ellipse:0.5,0.5,0.1", "four numbers"),
        ("ellipse:0.5,0.5,0,0.1", "has no area"),
        ("rectangle:0.5,0.5,0.4,0.9", "has no area"),
        ("rectangle:a,b,c,d", "four numbers"),
        ("label:nose", "no label 'nose', expected some of background, skin, hair"),
        ("changed", "give reference"),
        ("triangle:1,2,3", "expected ellipse"),
        ("nowhere.png", "no such file or shape"),
    ],
)
def test_invalid_descriptions(text: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        check_description(text, LABELS, changed=False)


def test_files(tmp_path: Path) -> None:
    Image.new("L", (40, 20), 255).save(tmp_path / "mask.png")
    Image.new("RGB", (40, 20)).save(tmp_path / "photo.png")
    Image.new("RGB", (20, 20)).save(tmp_path / "other.png")
    assert torch.equal(read_mask(tmp_path / "mask.png", tmp_path / "photo.png", 16), torch.ones(1, 16, 16))
    with pytest.raises(UserError, match=r"is 40 x 20 pixels, but .*other.png is 20 x 20; expected the same size"):
        read_mask(tmp_path / "mask.png", tmp_path / "other.png", 16)
    with pytest.raises(UserError, match="the mask is empty"):
        check_mask(torch.zeros(1, 4, 4), "mask")
    with pytest.raises(UserError, match="no label map"):
        check_description("label:hair", None)
