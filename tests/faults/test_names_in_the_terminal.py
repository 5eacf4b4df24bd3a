"""Names of a stranger's files are shown by their escapes: they move no cursor, change no title and end no line."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from stylegan_inv.data.images.decoding import BadImage, decode
from stylegan_inv.data.images.image_files import name_list
from stylegan_inv.invert import __main__ as invert
from stylegan_inv.prepare import __main__ as prepare
from stylegan_inv.utils.text import printable
from tests.cli import call, error_of

#: The title of the window, the cursor, a line, an override of the direction, a byte that is not UTF-8.
NAMES = ("\x1b]2;a\x07", "\rb", "c\nerror: c", "\u202egnp", "\x9bd", "\udce9e")


def test_what_is_shown() -> None:
    assert printable("a\x1b[2J\r\n\t\x85\u202e\u2028é😀\udce9") == r"a\x1b[2J\r\n\t\x85\u202e\u2028é😀%E9"
    assert name_list(["a\nb", "\x1b"]) == r"a\nb, \x1b"
    with pytest.raises(BadImage) as error:
        decode(b"", "\x1b[2Ja\n.png")
    assert str(error.value) == r"\x1b[2Ja\n.png: empty file (0 bytes), expected an image"


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    Path("images").mkdir()
    for name in NAMES:
        Image.new("RGB", (64, 64), (90, 80, 70)).save(f"images/{name}.png")
        Path(f"images/bad{name}.png").write_bytes(b"")
        Path(f"images/other{name}.gif").write_bytes(b"GIF89a")
    with pytest.raises(SystemExit):
        prepare.main(["verify", "images", "--workers", "0"])
    call(monkeypatch, invert, "input=images", "on_bad_image=skip", "output=out")
    text = "".join(capsys.readouterr())
    assert not any(character in text for character in "\x1b\x07\r\u202e\x9b") and "\nerror: c" not in text
    assert "6 cannot be read" in text and "6 of 12 files cannot be read and are skipped" in text
    line = error_of(monkeypatch, capsys, invert, "input=images", "output=other")
    assert line.isprintable() and r"images/bad\rb.png: empty file" in line
