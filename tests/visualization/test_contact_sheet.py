"""Contact sheets: positions of images, captions and error messages."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from stylegan_inv.errors import UserError
from stylegan_inv.visualization import contact_sheet as module
from stylegan_inv.visualization.contact_sheet import contact_sheet, difference_image

CELL, GAP = 32, 4


def flat(*levels: float, size: int = 8, channels: int = 3) -> torch.Tensor:
    return torch.tensor(levels).reshape(-1, 1, 1, 1).expand(-1, channels, size, size)


def cells(sheet: Image.Image, rows: int, columns: int) -> np.ndarray:
    """Returns the mean level of each cell; the table is aligned to the lower right."""
    array = np.asarray(sheet, dtype=float)
    height, width = array.shape[:2]
    out = np.zeros((rows, columns))
    for r in range(rows):
        for c in range(columns):
            y, x = height - (rows - r) * (CELL + GAP), width - (columns - c) * (CELL + GAP)
            out[r, c] = array[y : y + CELL, x : x + CELL].mean()
    return out


def test_every_image_is_in_its_cell():
    columns = {"input": flat(-1.0, 0.0, 1.0), "mask": flat(1.0, -1.0, 0.5, size=50, channels=1)}
    sheet = contact_sheet(columns, cell=CELL, gap=GAP)
    want = [[0, 255], [127.5, 0], [255, 191.25]]
    np.testing.assert_allclose(cells(sheet, 3, 2), want, atol=0.6)
    assert sheet.mode == "RGB"


def test_rows_as_a_list_give_the_same_sheet():
    columns = {"a": flat(-1.0, 0.0), "b": flat(0.5, 1.0)}
    rows = [torch.stack([columns["a"][i], columns["b"][i]]) for i in range(2)]
    one, two = contact_sheet(columns), contact_sheet(rows, ["a", "b"])
    assert np.array_equal(np.asarray(one), np.asarray(two))
    assert contact_sheet(rows).height < one.height, "a sheet without captions has no caption line"


def test_small_images_are_enlarged_and_large_ones_reduced():
    for size in (4, 300):
        assert contact_sheet({"x": flat(0.0, size=size)}, cell=CELL, gap=GAP).width == CELL + 2 * GAP


def test_images_that_are_not_square_keep_their_aspect_ratio():
    wide = torch.full((1, 3, 8, 16), -1.0)
    array = np.asarray(contact_sheet({"": wide}, cell=CELL, gap=0))
    assert (array[: CELL // 4] > 200).all() and (array[CELL // 4 : 3 * CELL // 4] == 0).all()


def ink(sheet: Image.Image, box: tuple[int, int, int, int]) -> int:
    return int((np.asarray(sheet.crop(box)).mean(2) < 128).sum())


def test_captions_are_drawn_above_columns_and_left_of_rows():
    columns = {"input": flat(1.0, 1.0), "": flat(1.0, 1.0), "difference": flat(1.0, 1.0)}
    sheet = contact_sheet(columns, row_captions=["left.png", ""], cell=100, gap=4)
    top, left = sheet.height - 2 * 104, sheet.width - 3 * 104
    assert ink(sheet, (left, 0, left + 104, top)) > 20
    assert ink(sheet, (left + 104, 0, left + 208, top)) == 0
    assert ink(sheet, (left + 208, 0, left + 312, top)) > 20
    assert ink(sheet, (0, top, left, top + 100)) > 20 and ink(sheet, (0, top + 104, left, top + 204)) == 0


def test_long_captions_are_shortened_in_the_middle():
    fonts = module._Fonts(16)
    short = module._shorten("a_very_long_name_of_a_photograph_0001.png", fonts, 120)
    assert fonts.width(short) <= 120 and short.startswith("a_very") and short.endswith("1.png")
    assert module._shorten("short", fonts, 120) == "short"
    sheet = contact_sheet({"x" * 200: flat(1.0), "y": flat(1.0)}, row_captions=["n" * 500], cell=CELL, gap=GAP)
    assert sheet.width <= 2 * (CELL + GAP) + 2 * CELL


@pytest.mark.parametrize("bitmap", [False, True])
def test_captions_in_any_script_and_with_line_breaks(monkeypatch, bitmap):
    if bitmap:  # a Pillow without FreeType
        monkeypatch.setattr(module, "_font", lambda size: ImageFont.load_default_imagefont())
    contact_sheet({"漢字 é\nß": flat(0.0)}, row_captions=["Ünïcode 👩.png"])


@pytest.mark.parametrize("letters", ["éß", "ЖЯ", "ΩΔ", "😀☺"])
def test_letters_beyond_ascii_are_no_boxes(letters):
    """Pillow's own font draws the same box for each of them."""
    fonts = module._Fonts(32)
    text = fonts.drawable(letters)
    first, second = (bytes(fonts.of(text).getmask(letter, mode="L")) for letter in text)
    assert text == letters and first != second


def test_letters_that_no_font_has_and_endless_captions():
    fonts = module._Fonts(16)
    assert fonts.drawable("漢 🎉.png caf\udce9") == "? ?.png caf%E9"
    assert fonts.drawable("e\u0301") == "é", "a letter and its accent, as macOS writes names"
    started = time.perf_counter()
    contact_sheet({"a": flat(0.0)}, row_captions=["n" * 1_000_000])
    assert time.perf_counter() - started < 5


def test_images_with_non_finite_values_are_drawn():
    bad = flat(0.0).clone()
    bad[0, :, 0, 0], bad[0, :, 0, 1] = float("nan"), float("inf")
    contact_sheet({"nan": bad, "difference": difference_image(bad, flat(0.0))})


def test_gradients_and_half_precision_are_accepted():
    image = torch.zeros(1, 3, 8, 8, dtype=torch.bfloat16, requires_grad=True)
    contact_sheet({"a": image, "d": difference_image(image, image)})


@pytest.mark.parametrize(
    "arguments, message",
    [
        (({},), "at least one"),
        (([],), "expected"),
        (({"a": torch.zeros(3, 8, 8)},), r"\(3, 8, 8\)"),
        (({"a": torch.zeros(1, 2, 8, 8)},), "1 or 3"),
        (({"a": flat(0.0), "b": flat(0.0, 0.0)},), "same number"),
        (({"a": flat(0.0)}, ["a"]), "keys are the captions"),
        (([flat(0.0, 0.0)], ["a"]), "2 different"),
        (([flat(0.0), flat(0.0, 0.0)],), "the same for all"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(UserError, match=message):
        contact_sheet(*arguments)


def test_wrong_number_of_row_captions():
    with pytest.raises(UserError, match="3 row captions for 1 rows"):
        contact_sheet({"a": flat(0.0)}, row_captions=["1", "2", "3"])


def test_difference_image():
    a, b = flat(-1.0, 0.0, 0.25, 2.0), flat(1.0, 0.0, 0.0, 1.0)
    got = difference_image(a, b)[:, 0, 0, 0]
    torch.testing.assert_close(got, torch.tensor([1.0, -1.0, -0.5, -1.0]))  # white, black, gain 2, clipped alike
    torch.testing.assert_close(difference_image(a, b, gain=1.0)[0, 0, 0, 0], torch.tensor(1.0))
    with pytest.raises(UserError, match="got shapes"):
        difference_image(a, b[:1])
