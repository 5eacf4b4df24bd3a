"""Image files of every kind, compared with arithmetic on their pixels and with torchvision's decoders."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stylegan_inv.data.images.image_files import (
    BadImage,
    check_image,
    from_uint8,
    read_image,
    save_image,
    to_pil,
    to_uint8,
)
from stylegan_inv.data.images.resizing import Geometry
from stylegan_inv.errors import UserError
from stylegan_inv.utils.text import printable

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6


def write_png(path: Path, array: np.ndarray, colour: int, depth: int = 8, chunks: bytes = b"") -> Path:
    """Returns a PNG written without Pillow, as an independent source for Pillow's decoder."""
    height, width = array.shape[:2]
    rows = array.astype(">u2" if depth == 16 else "u1").reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunks
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )
    return path


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def levels(image: torch.Tensor) -> np.ndarray:
    """Converts (3, H, W) in [-1, 1] to (H, W, 3) float64 levels, by the definition of the range."""
    assert image.dtype == torch.float32 and image.min() >= -1 and image.max() <= 1
    return (image.double().permute(1, 2, 0).numpy() + 1.0) * 127.5


def on_white(rgb: np.ndarray, alpha: np.ndarray, top: float) -> np.ndarray:
    a = alpha[..., None] / top
    return rgb * (255 / top) * a + 255 * (1 - a)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# -- kinds of pixels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("colour, channels", [(GREY, 1), (RGB, 3), (GREY_ALPHA, 2), (RGBA, 4)])
def test_png_of_every_colour_type(tmp_path, rng, depth, colour, channels):
    top = 2.0**depth - 1
    array = rng.integers(0, int(top) + 1, (9, 7, channels))
    array[0, 0], array[0, 1] = 0, int(top)
    got = levels(read_image(write_png(tmp_path / "a.png", array, colour, depth)))
    rgb = array[..., :3] if channels >= 3 else array[..., :1].repeat(3, axis=2)
    want = on_white(rgb, array[..., -1], top) if channels in (2, 4) else rgb * (255 / top)
    # 16 bits: Pillow keeps the upper byte (up to one level down); 8 bits with alpha: one rounding.
    tolerance = 1e-4 if channels in (1, 3) and depth == 8 else (0.51 if depth == 8 or colour == GREY else 1.6)
    np.testing.assert_allclose(got, want, atol=tolerance)


def test_levels_converted_from_8_to_16_bits_are_restored_exactly(tmp_path):
    array = np.arange(256).reshape(16, 16, 1)
    for colour, wide in ((GREY, array * 257), (RGB, (array * 257).repeat(3, 2))):
        got = levels(read_image(write_png(tmp_path / "a.png", wide, colour, 16)))
        np.testing.assert_allclose(got, array.repeat(3, 2), atol=1e-4)


def test_palette_with_and_without_transparency(tmp_path, rng):
    palette = rng.integers(0, 256, (256, 3))
    index = rng.integers(0, 256, (8, 8, 1))
    plte = chunk(b"PLTE", palette.astype("u1").tobytes())
    got = levels(read_image(write_png(tmp_path / "p.png", index, PALETTE, chunks=plte)))
    np.testing.assert_allclose(got, palette[index[..., 0]], atol=1e-4)

    alpha = rng.integers(0, 256, 256)
    trns = chunk(b"tRNS", alpha.astype("u1").tobytes())
    got = levels(read_image(write_png(tmp_path / "pt.png", index, PALETTE, chunks=plte + trns)))
    np.testing.assert_allclose(got, on_white(palette[index[..., 0]], alpha[index[..., 0]], 255), atol=0.51)


def test_transparent_colour_becomes_white(tmp_path):
    array = np.zeros((4, 4, 3), dtype=np.uint8)
    array[0] = (10, 20, 30)
    trns = chunk(b"tRNS", struct.pack(">HHH", 10, 20, 30))
    got = levels(read_image(write_png(tmp_path / "k.png", array, RGB, chunks=trns)))
    np.testing.assert_allclose(got[0], 255, atol=1e-4)
    np.testing.assert_allclose(got[1:], 0, atol=1e-4)


def test_black_and_white_bilevel(tmp_path, rng):
    bits = rng.random((10, 10)) < 0.5
    Image.fromarray(bits).save(tmp_path / "b.png")
    np.testing.assert_allclose(levels(read_image(tmp_path / "b.png"))[..., 1], bits * 255.0, atol=1e-4)


def test_cmyk_jpeg(tmp_path):
    flat = np.empty((16, 16, 4), dtype=np.uint8)
    flat[:] = (0, 255, 128, 0)  # no cyan, all magenta, half yellow, no black
    Image.fromarray(flat, "CMYK").save(tmp_path / "c.jpg", quality=100)
    assert Image.open(tmp_path / "c.jpg").mode == "CMYK"
    np.testing.assert_allclose(levels(read_image(tmp_path / "c.jpg", 8)).mean((0, 1)), (255, 0, 127), atol=3)


@pytest.mark.filterwarnings("ignore:.*TorchVision are deprecated.*")
@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".png", ".bmp", ".tif", ".ppm"])
def test_formats_against_torchvision(tmp_path, suffix):
    ramp = np.linspace(0, 255, 48)
    array = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], 128), axis=2).astype(np.uint8)
    file = tmp_path / f"image{suffix}"
    Image.fromarray(array).save(file)
    got = levels(read_image(file))
    if suffix in (".jpg", ".webp", ".png"):
        decoders = pytest.importorskip("torchvision.io")
        want = decoders.decode_image(decoders.read_file(str(file))).permute(1, 2, 0).numpy()
        np.testing.assert_allclose(got, want, atol=1.01 if suffix == ".jpg" else 1e-4)
    else:
        np.testing.assert_allclose(got, array, atol=1e-4)


def test_grey_jpeg_and_tiff_with_sixteen_bits(tmp_path):
    ramp = np.linspace(0, 255, 64).astype(np.uint8)[None].repeat(64, 0)
    Image.fromarray(ramp).save(tmp_path / "g.jpg", quality=100)
    np.testing.assert_allclose(levels(read_image(tmp_path / "g.jpg"))[..., 2], ramp, atol=2)
    wide = (np.arange(64, dtype=np.uint16) * 1000)[None].repeat(64, 0)
    Image.fromarray(wide).save(tmp_path / "w.tif")
    np.testing.assert_allclose(levels(read_image(tmp_path / "w.tif"))[..., 0], wide / 257, atol=0.51)


@pytest.mark.parametrize(
    "orientation, upright",
    [
        (1, lambda s: s),
        (2, np.fliplr),
        (3, lambda s: np.rot90(s, 2)),
        (4, np.flipud),
        (5, lambda s: s.swapaxes(0, 1)),
        (6, lambda s: np.rot90(s, -1)),
        (7, lambda s: np.rot90(s, 2).swapaxes(0, 1)),
        (8, lambda s: np.rot90(s, 1)),
    ],
)
@pytest.mark.parametrize("kind", ["rgb", "grey16"])
def test_exif_orientation(tmp_path, rng, orientation, upright, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    if kind == "rgb":
        stored = rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)
        expected = upright(stored)
        Image.fromarray(stored).save(tmp_path / "o.png", exif=exif)
    else:
        stored = rng.integers(0, 256, (6, 9), dtype=np.uint16) * 257
        expected = upright(stored)[..., None].repeat(3, 2) / 257
        Image.fromarray(stored).save(tmp_path / "o.png", exif=exif)
    np.testing.assert_allclose(levels(read_image(tmp_path / "o.png")), expected, atol=1e-4)


def test_invalid_exif_keeps_the_stored_orientation(tmp_path):
    Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "x.png", exif=b"Exif\0\0an invalid block")
    np.testing.assert_allclose(levels(read_image(tmp_path / "x.png")), 9, atol=1e-4)


# -- size and shape ----------------------------------------------------------------------------------------------------


def antialiased_resize(array: np.ndarray, size: int) -> np.ndarray:
    """Resizes by the definition of antialiased bilinear interpolation, in float64: weights @ input along both axes."""
    for axis in (0, 1):
        length = array.shape[axis]
        scale = length / size
        support = max(scale, 1.0)
        centre = (np.arange(size) + 0.5) * scale
        weights = np.maximum(0, 1 - np.abs(np.arange(length)[None] + 0.5 - centre[:, None]) / support)
        weights /= weights.sum(1, keepdims=True)
        array = np.moveaxis(np.tensordot(weights, array, axes=(1, axis)), 0, axis)
    return array


@pytest.mark.parametrize("shape", [(40, 40), (40, 61), (97, 40), (12, 12), (5, 300)])
@pytest.mark.parametrize("size", [16, 33])
def test_crop_and_resize(tmp_path, rng, shape, size):
    array = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    got = read_image(write_png(tmp_path / "a.png", array, RGB), size)
    assert got.shape == (3, size, size) and got.is_contiguous()
    side = min(shape)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    want = antialiased_resize(array[top : top + side, left : left + side].astype(float), size)
    np.testing.assert_allclose(levels(got), want, atol=1.01)  # two passes, each rounded to whole levels


def test_crop_of_a_marked_image_is_central(tmp_path):
    array = np.zeros((10, 30, 3), dtype=np.uint8)
    array[:, 10:20] = 200
    np.testing.assert_allclose(levels(read_image(write_png(tmp_path / "a.png", array, RGB), 10)), 200, atol=1e-4)


def test_fit_keeps_the_whole_image_between_black_bars(tmp_path):
    array = np.full((20, 40, 3), 200, dtype=np.uint8)
    got = levels(read_image(write_png(tmp_path / "a.png", array, RGB), 32, mode="fit"))
    np.testing.assert_allclose(got[8:24], 200, atol=1e-4)
    np.testing.assert_allclose(got[np.r_[0:8, 24:32]], 0, atol=1e-4)


def test_without_size_keeps_the_shape(tmp_path):
    assert read_image(write_png(tmp_path / "a.png", np.zeros((5, 8, 3)), RGB)).shape == (3, 5, 8)


def test_transparency_is_blended_before_resizing(tmp_path):
    """The colour of a transparent pixel must not bleed into its neighbours."""
    array = np.zeros((8, 8, 4), dtype=np.uint8)
    array[:, ::2] = (255, 255, 255, 255)
    array[:, 1::2] = (255, 0, 0, 0)  # red, but invisible
    np.testing.assert_allclose(levels(read_image(write_png(tmp_path / "a.png", array, RGBA), 4)), 255, atol=1e-4)


def test_large_jpeg_is_decoded_at_a_fraction_and_looks_the_same(tmp_path, monkeypatch):
    y, x = np.mgrid[0:1500, 0:2000]
    array = (127 + 60 * np.sin(x / 90.0) + 60 * np.cos(y / 70.0)).astype(np.uint8)
    file = tmp_path / "big.jpg"
    Image.fromarray(array).convert("RGB").save(file, quality=95)
    decoded = []
    apply = Geometry.apply
    monkeypatch.setattr(
        Geometry, "apply", lambda self, pixels: decoded.append((*pixels.shape[:0:-1],)) or apply(self, pixels)
    )
    small = levels(read_image(file, 64))
    assert decoded == [(500, 375)]
    want = antialiased_resize(array[:, 250:1750].astype(float), 64)
    assert np.abs(small.mean(2) - want).mean() < 1.0
    read_image(file, 512)
    assert decoded[1] == (2000, 1500), "a full decode where the ratio is that of the published protocol"


# -- levels ------------------------------------------------------------------------------------------------------------


def test_levels_round_trip():
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(from_uint8(every)), every)


@given(st.floats(-3, 3))
@settings(deadline=None, max_examples=200)
def test_to_uint8_is_the_nearest_level(value):
    got = int(to_uint8(torch.tensor([value]))[0])
    exact = (value + 1) * 127.5
    assert 0 <= got <= 255
    assert abs(got - min(max(exact, 0), 255)) <= 0.5 + 1e-4


def test_to_uint8_does_not_truncate_and_is_defined_for_non_finite_values():
    image = torch.tensor([-1 + 1.9 / 127.5, float("inf"), float("-inf"), float("nan")])
    assert to_uint8(image).tolist() == [2, 255, 0, 0]
    assert to_uint8(torch.zeros(2, 3, 4, 4, dtype=torch.bfloat16)).shape == (2, 3, 4, 4)


def test_save_and_read_back(tmp_path, rng):
    image = from_uint8(torch.from_numpy(rng.integers(0, 256, (3, 12, 12), dtype=np.uint8)))
    path = save_image(image, tmp_path / "new" / "folder" / "a.png")
    assert torch.equal(read_image(path), image)
    assert [p.name for p in path.parent.iterdir()] == ["a.png"], "no temporary file is left"
    save_image(image[:1], tmp_path / "grey.png")
    assert Image.open(tmp_path / "grey.png").mode == "L"
    save_image(image, tmp_path / "a.JPG")
    assert Image.open(tmp_path / "a.JPG").format == "JPEG"
    with pytest.raises(UserError, match=r"a\.xyz.*'\.xyz'"):
        save_image(image, tmp_path / "a.xyz")
    with pytest.raises(UserError, match=r"shape \(1, 3, 12, 12\)"):
        to_pil(image[None])


# -- unreadable files --------------------------------------------------------------------------------------------------


def good(path: Path) -> Path:
    Image.effect_noise((64, 64), 90).convert("RGB").save(path)
    return path


def truncated(path: Path) -> Path:
    data = good(path).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def bomb(path: Path) -> Path:
    Image.new("1", (20000, 20000)).save(path)
    assert path.stat().st_size < 100_000
    return path


def written(data: bytes):
    return lambda path: path.write_bytes(data) and path or path


BAD = {
    "missing.png": (lambda path: path, "no such file"),
    "zero.png": (lambda path: path.touch() or path, "0 bytes"),
    "text.png": (written(b"This is my holiday photo"), "text, not an image.*This is my holiday"),
    "quota.jpg": (written(b"<html><title>Google Drive - Quota exceeded"), "text, not an image.*<html>"),
    "noise.jpg": (written(bytes(range(256)) * 4), "not an image"),
    "cut.jpg": (truncated, "damaged"),
    "cut.png": (truncated, "damaged"),
    "cut.webp": (truncated, "damaged"),
    "header.png": (written(b"\x89PNG\r\n\x1a\n"), "not an image|damaged"),
    "bomb.png": (bomb, "too large.*179 megapixels"),
    "float.tif": (lambda p: Image.fromarray(np.zeros((4, 4), "f4")).save(p) or p, "range is unknown"),
    "deep.tif": (lambda p: Image.fromarray(np.full((4, 4), 70000, "i4")).save(p) or p, "70000"),
    "photo.heic": (written(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50)), "HEIC"),
    "script.png": (written(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "text, not an image"),
    "folder.png": (lambda path: path.mkdir() or path, "is a folder"),
    "nul\0.png": (lambda path: path, "cannot be opened"),
    "n" * 300 + ".png": (lambda path: path, "cannot be opened"),
}


@pytest.mark.parametrize("name", BAD, ids=lambda name: name[:10].replace("\0", "0"))
def test_error_of_a_bad_file_is_one_line(tmp_path, name):
    make, reason = BAD[name]
    path = make(tmp_path / name)
    for read in (check_image, lambda file: read_image(file, 8)):
        with pytest.raises(BadImage, match=reason) as error:
            read(path)
        assert printable(str(path)) in str(error.value) and "\n" not in str(error.value)
        assert isinstance(error.value, UserError)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_pipes_and_devices_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    for name in ("a.png", "b.png"):
        with pytest.raises(BadImage, match="is a pipe or a device"):
            read_image(tmp_path / name, 8)


def test_changed_byte_in_a_png_is_detected(tmp_path):
    path = good(tmp_path / "a.png")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(BadImage, match="damaged"):
        read_image(path)


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF", b"II*\0", b"P6 "]),
)
@settings(deadline=None, max_examples=150)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_any_bytes_are_decoded_or_raise_bad_image(tmp_path_factory, data, start):
    path = tmp_path_factory.getbasetemp() / "fuzz.png"
    path.write_bytes(start + data)
    try:
        image = read_image(path, 4)
    except BadImage:
        return
    assert image.shape == (3, 4, 4)


@pytest.mark.parametrize("size", [0, -3, 2.5, True, "64"])
def test_bad_size(tmp_path, size):
    with pytest.raises(UserError, match="resolution="):
        read_image(good(tmp_path / "a.png"), size)


def test_bad_mode(tmp_path):
    with pytest.raises(UserError, match="mode=squash: expected one of crop, fit, stretch"):
        read_image(good(tmp_path / "a.png"), 8, mode="squash")


def test_error_of_a_worker_stays_one_line(tmp_path):
    text = f"Caught BadImage in DataLoader worker process 0.\nTraceback:\n  ...\npackage.BadImage: {tmp_path}: empty\n"
    assert str(BadImage(text)) == f"{tmp_path}: empty"
