"""Damaged images are one line of this package; libtiff, Pillow and Python add none of their own."""

from __future__ import annotations

import io
import logging
import random
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

from stylegan_inv.data.images.decoding import BadImage, decode, stored_size
from stylegan_inv.data.images.quiet_decoders import silence_decoders
from tests.forks import join, launch

COMPRESSIONS = ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits", "zstd", "lzma")


def damaged(folder: Path) -> list[Path]:
    """TIFFs with a few wrong bytes, or without their end."""
    rng, files = random.Random(0), []
    noise = Image.frombytes("RGB", (32, 32), rng.randbytes(32 * 32 * 3))
    for compression in COMPRESSIONS:
        buffer = io.BytesIO()
        noise.save(buffer, "TIFF", compression=compression)
        for number in range(40):
            data = bytearray(buffer.getvalue())
            for _ in range(rng.choice((1, 3, 20))):
                data[rng.randrange(len(data))] = rng.randrange(256)
            files.append(folder / f"{compression}{number}.tif")
            files[-1].write_bytes(data[: rng.randrange(len(data))] if number % 3 == 0 else data)
    return files


def _decode_all(files: list[Path], quiet: bool) -> None:
    failed = 0
    for path in files:
        try:
            if quiet:
                stored_size(path), decode(path.read_bytes(), path.name)
            else:
                with Image.open(path) as image:
                    image.load()
        except Exception as error:
            assert not quiet or isinstance(error, BadImage), error
            failed += 1
    raise SystemExit(0 if failed > len(files) // 3 else 1)


@pytest.mark.parametrize("quiet", [True, False])
def test_damaged_tiffs(quiet: bool, tmp_path: Path) -> None:
    files = damaged(tmp_path)
    assert join([launch(_decode_all, files, quiet, log=tmp_path / "log")], 120) == [0]
    assert (tmp_path / "log").read_text().strip() == "" if quiet else "LZMADecode" in (tmp_path / "log").read_text()


def test_other_messages_stay(caplog: pytest.LogCaptureFixture) -> None:
    silence_decoders()
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (9, 8, 7)).save(buffer, "TIFF", compression="tiff_lzw")
    assert torch.equal(decode(buffer.getvalue(), "a")[:, 0, 0], torch.tensor([9, 8, 7], dtype=torch.uint8))
    with pytest.warns(UserWarning, match="of others"), caplog.at_level(logging.WARNING):
        warnings.warn("of others", UserWarning, stacklevel=1)
        logging.getLogger("others").warning("stays")
    assert "stays" in caplog.text
