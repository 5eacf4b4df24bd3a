"""Numbers that no use needs, which would fill the memory or end never, are refused in one line before any work."""

from __future__ import annotations

import ast
import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from stylegan_inv.benchmark import __main__ as benchmark
from stylegan_inv.config import CONF_DIR
from stylegan_inv.config.number_ranges import LARGEST, RANGES
from stylegan_inv.config.typed_names import interpolated_names_as_text
from stylegan_inv.config.value_checks import check_plain_values
from stylegan_inv.data.sources.packing import ShardPacker, ZipPacker
from stylegan_inv.directions import __main__ as directions
from stylegan_inv.edit import __main__ as edit
from stylegan_inv.errors import UserError
from stylegan_inv.evaluate import __main__ as evaluate
from stylegan_inv.invert import __main__ as invert
from stylegan_inv.latents.layer_ranges import layer_range
from stylegan_inv.prepare import __main__ as prepare
from stylegan_inv.report import __main__ as report
from stylegan_inv.utils.checks import LARGEST_NUMBER
from stylegan_inv.utils.files import named_errors
from tests.cli import REPOSITORY, error_of
from tests.reported_run import make_run

COMMANDS: dict[str, tuple[Any, list[str]]] = {
    "frames of a GIF": (edit, ["samples=1", "frames=100000000", "animation=gif"]),
    "frames of many images": (edit, ["samples=100000", "frames=2048", "animation=gif"]),
    "duration": (edit, ["samples=1", "seconds=100000", "animation=gif"]),
    "cells": (edit, ["cell=100000"]),
    "random images": (edit, ["samples=10000000"]),
    "steps of a morph": (edit, ["samples=2", "edit=morph", "edit.steps=1000000"]),
    "noise maps": (edit, ["samples=2", "edit=noise", "edit.samples=1000000"]),
    "layers of an edit": (edit, ["samples=1", "edit=smile", "edit.layers=0-99999999999"]),
    "processes of an inversion": (invert, ["input=synthfaces:0", "method=projector", "devices=100000"]),
    "variants": (invert, ["input=synthfaces:0", "variants=100000000"]),
    "steps of a projector": (invert, ["input=synthfaces:0", "method=projector", "method.steps=100000000000"]),
    "processes of an evaluation": (evaluate, ["run=restyle_synthfaces", "dataset=synthfaces", "devices=100000"]),
    "bootstrap": (evaluate, ["run=restyle_synthfaces", "bootstrap.resamples=100000000000"]),
    "layers": (directions, ["sefa", "--output", "out", "--layers", "0-99999999999"]),
    "random codes": (directions, ["ganspace", "--output", "out", "--samples", "10000000000"]),
    "directions": (directions, ["sefa", "--output", "out", "--count", "100000000"]),
    "workers": (prepare, ["pack", ".", "a.zip", "--workers", "100000000"]),
    "side": (prepare, ["pack", ".", "a.zip", "--resolution", "1000000"]),
    "growth": (prepare, ["masks", "folder", ".", "out", "--dilate", "1e300"]),
    "classes": (prepare, ["masks", "labels", ".", "out", "--classes", "1", str(10**30)]),
    "side of a network": (prepare, ["masks", "folder", ".", "out", "--model-side", "1000000"]),
    "faces": (benchmark, ["methods", "--faces", "100000000000"]),
    "seeds": (benchmark, ["methods", "--seeds", "100000000000"]),
    "threads": (benchmark, ["ops", "--threads", "100000000000"]),
    "batch": (benchmark, ["generator", "--batch", "100000000000"]),
    "seconds": (benchmark, ["world", "--seconds", "inf"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_large_numbers_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    module, arguments = COMMANDS[name]
    if module in (prepare, benchmark, directions):
        with pytest.raises(SystemExit) as stop:
            module.main(arguments)
        line, code = capsys.readouterr().err.strip(), stop.value.code
    else:
        line, code = error_of(monkeypatch, capsys, module, *arguments), 2
    assert code == 2 and line.startswith("error: ") and "\n" not in line and len(line) < 300
    assert "expected" in line or "give fewer" in line
    assert not list(tmp_path.iterdir())


def test_every_range_ends() -> None:
    for key, found in RANGES.items():
        most = found.most if found.most is not None else LARGEST.get(key, LARGEST_NUMBER)
        found.check(key, int(most) if found.whole else most)
        with pytest.raises(UserError, match=f"^{key}="):
            found.check(key, int(most) * 2 + 1 if found.whole else most * 2 + 1)


def test_the_configs_are_within_their_bounds() -> None:
    """The largest settings in the repository are far from them, apart from sizes of networks."""
    files = [*(CONF_DIR / "experiment").rglob("*.yaml"), *(CONF_DIR / "domain").glob("*.yaml")]
    assert len(files) > 10
    for file in files:
        check_plain_values(
            {k: v for k, v in (OmegaConf.to_container(OmegaConf.load(file)) or {}).items() if k != "defaults"}
        )


def number_options() -> Iterator[str]:
    for file in sorted((REPOSITORY / "stylegan_inv").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
                for word in node.keywords:
                    if word.arg == "type" and ast.unparse(word.value) in ("int", "float"):
                        yield f"{file.name}: {ast.unparse(node)}"


def test_every_number_of_a_command_line_has_a_range() -> None:
    assert list(number_options()) == []


def test_layers_of_any_length() -> None:
    assert layer_range("0-3", 10) == [0, 1, 2, 3]
    for text in ("0-99999999999", "0-" + "9" * 5000, "\u00b2-3"):
        with pytest.raises(UserError, match="expected"):
            layer_range(text, 10)


# -- names -------------------------------------------------------------------------------------------------------------


def test_paths_that_an_interpolation_makes_a_number() -> None:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        config = compose("invert", ["method=projector", "input=${seed}", "output=${seed}", "mask=${overwrite}"])
        config.start = "${nothing}"
    interpolated_names_as_text(config)
    assert [config.input, config.output, config.mask, config.seed] == ["0", "0", "False", 0]


def test_a_report_whose_output_is_a_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    make_run(Path("7"))
    line = error_of(monkeypatch, capsys, report, "+seed=7", "run=${seed}", "output=${seed}")
    assert line == "error: output=7: expected a file name that ends in .html"


# -- errors of writing -------------------------------------------------------------------------------------------------


def test_errors_of_writing_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError) as error, named_errors(tmp_path / "a"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert error.value.filename == str(tmp_path / "a")
    with pytest.raises(FileNotFoundError) as missing, named_errors(tmp_path / "a"):
        open(tmp_path / "b")
    assert missing.value.filename == str(tmp_path / "b")


@pytest.mark.parametrize("kind", ["zip", "shards"])
def test_packing_more_than_fits(tmp_path: Path, kind: str) -> None:
    content = tmp_path / "content"
    packer: Any = ZipPacker(content, []) if kind == "zip" else ShardPacker(content, [], 10)
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, former[1]))
    try:
        with pytest.raises(OSError) as error:
            packer.add("a.png", bytes(1 << 17))
            packer.flush()
        packer.abandon()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert (error.value.errno, error.value.filename) == (
        errno.EFBIG,
        str(content if kind == "zip" else content / "000000.tar"),
    )


def test_masks_and_packed_images_on_a_full_disk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("photos/a.png")

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for command, file in ((["masks", "folder", "photos", "out"], "out/a.png"), (["pack", "photos", "b.zip"], "b.zip")):
        with pytest.raises(SystemExit) as stop:
            prepare.main([*command, "--workers", "0"])
        assert stop.value.code == 2
        assert capsys.readouterr().err.startswith(f"error: {file}")
