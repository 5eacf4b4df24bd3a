"""Edits of inversions by HFGI, SAM and DHR: at once, and from the folder that invert wrote, are the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stylegan_inv.data.images.image_files import read_image
from stylegan_inv.edit import __main__ as edit
from stylegan_inv.invert import __main__ as invert
from stylegan_inv.latents.saved_codes import read_features
from stylegan_inv.loading import load_inverter
from stylegan_inv.methods.common.base import Inversion
from stylegan_inv.utils.safetensors_files import read_safetensors, write_safetensors
from tests.cli import QUICK, call, error_of, run_cli

EDIT = ("edit=truncate", "edit.psi=[1,0.5]", "device=cpu")
SMALL = {
    "dhr": ("method.coarse.steps=2", "method.steps=3", "method.weight_steps=2"),
    "sam": ("method.measure_steps=2", "method.steps=3"),
}


def images(folder: Path) -> dict[str, Tensor]:
    return {
        path.name: read_image(path) for path in sorted((folder / "images").glob("*.png")) if "input" not in path.name
    }


@pytest.mark.parametrize("method", SMALL)
def test_saved_features_take_part_in_edits(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call(monkeypatch, invert, f"method={method}", *SMALL[method], "input=synthfaces:0-1", "output=out", "device=cpu")
    assert not Path("out", "unfinished").exists(), "also states of the methods that run before"
    call(monkeypatch, edit, "input=out", *EDIT, "output=edited")
    found = images(tmp_path / "edited")
    for row in range(2):
        whole = next(
            value for name, value in found.items() if name.startswith(f"synthfaces_{row}_") and "0.5" not in name
        )
        # With psi=1 the edit leaves the codes as they are, so that the reconstruction comes back.
        saved = read_image(tmp_path / "out" / "reconstructions" / f"synthfaces_{row}.png")
        assert float((whole - saved).abs().max()) < 2.01 / 127.5
    assert read_features("out", "reconstructions/synthfaces_0.png")
    assert len({value.numpy().tobytes() for value in found.values()}) == 4


def test_features_of_strangers_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    call(monkeypatch, invert, "method=sam", *SMALL["sam"], "input=synthfaces:0", "output=out", "device=cpu")
    file = tmp_path / "out" / "features" / "synthfaces_0.safetensors"
    tensors = read_safetensors(file, "features")[1]
    for change, message in (
        ({"b8.shift": torch.zeros(1, 3, 8, 8)}, "the change of b8 is of another size"),
        ({"b99.shift": torch.zeros(1), "b99.scale": torch.zeros(1)}, "b99"),
        ({"b4.scale": torch.ones(1)}, "have no b4"),
        ({"b8.scale": torch.full((1, 1, 8, 8), torch.nan)}, "holds NaN"),
    ):
        write_safetensors(file, {**tensors, **change}, {})
        assert message in error_of(monkeypatch, capsys, edit, "input=out", *EDIT, "output=edited")
    assert not (tmp_path / "edited").exists()


def test_saved_inversions_of_hfgi_need_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    active = ("method.consultation.zero_start=false", "method.aligner.zero_start=false")
    quick = [option for option in QUICK if "max_steps" not in option]
    result = run_cli("train", "method=hfgi", *quick, "trainer.max_steps=1", *active, "hydra.run.dir=run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    call(monkeypatch, invert, "run=run", "input=synthfaces:0-1", "device=cpu", "output=out")
    call(monkeypatch, edit, "input=out", *EDIT, "output=from_saved")
    found = images(tmp_path / "from_saved")
    assert len({value.numpy().tobytes() for value in found.values()}) == 4
    kept = read_safetensors(tmp_path / "out" / "kept" / "synthfaces_0.safetensors", "state")[1]
    codes = read_safetensors(tmp_path / "out" / "latents.safetensors", "codes")[1]["w"]
    method = load_inverter("run")
    inversion = Inversion(codes[:1], torch.zeros(1, 0), kept=dict(kept))
    with torch.no_grad():
        w = method.generator.w_avg + 0.5 * (codes[:1] - method.generator.w_avg)
        want = method.render_edited(inversion, w)[0].clamp(-1, 1)
    (got,) = (value for name, value in found.items() if name.startswith("synthfaces_0_") and "0.5" in name)
    assert float((got - want).abs().max()) < 1.01 / 127.5
    shutil.move("run", "moved")
    assert "HFGI edits with its networks" in error_of(monkeypatch, capsys, edit, "input=out", *EDIT, "output=x")
    call(monkeypatch, edit, "input=out", "run=moved", *EDIT, "output=from_moved")
    assert all(torch.equal(value, found[name]) for name, value in images(tmp_path / "from_moved").items())
    assert "but run=psp_synthfaces holds PSP" in error_of(
        monkeypatch, capsys, edit, "input=out", "run=psp_synthfaces", *EDIT, "output=x"
    )
