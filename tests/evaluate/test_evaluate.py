"""The evaluate command: its results are those of NumPy, SciPy and scikit-image."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
import yaml
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from stylegan_inv.data.synthfaces.dataset import SynthFaces
from stylegan_inv.encoders.face_network import load_face_network
from stylegan_inv.evaluate import __main__ as evaluate
from stylegan_inv.invert import __main__ as invert
from tests.cli import assert_user_error, call, error_of, run_cli
from tests.fake_run import RESOLUTION, make_run, write_config

FOLDER = ("dataset=folder", "dataset.num_workers=0", "metrics=evaluation_basic", "any_domain=true")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose step 1 has half of the contrast and step 2 all of it; its data are six SynthFaces."""
    folder = make_run(tmp_path_factory.mktemp("a run") / "two_steps")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["dataset"] = {
        "_target_": "stylegan_inv.data.SynthFacesDataModule",
        "resolution": 64,
        "test_size": 6,
        "val_batch_size": 4,
        "obstacles": 0.0,
    }
    write_config(folder, config)
    return folder


def results(folder: Path) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """``metrics.json`` and the columns of ``per_image.csv``."""
    with open(folder / "per_image.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return json.loads((folder / "metrics.json").read_text()), {key: [row[key] for row in rows] for key in rows[0]}


def column(columns: dict[str, list[Any]], name: str) -> np.ndarray:
    return np.array([float(cell or "nan") for cell in columns[name]])


def write_images(folder: Path, count: int, size: int, noise: float = 0.0) -> np.ndarray:
    """Writes smooth images as PNG files, optionally with noise, and returns their levels (count, size, size, 3)."""
    rng = np.random.default_rng(count)
    base = rng.integers(0, 256, (count, 5, 5, 3), dtype=np.uint8)
    levels = np.stack([np.asarray(Image.fromarray(b).resize((size, size), Image.Resampling.BICUBIC)) for b in base])
    if noise:
        levels = np.clip(levels + np.random.default_rng(9).normal(0, noise, levels.shape), 0, 255).astype(np.uint8)
    for number, image in enumerate(levels):
        file = folder / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return levels


# -- results against other libraries -----------------------------------------------------------------------------------


def test_two_folders_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    found = write_images(tmp_path / "found", 7, 48, noise=20)
    truth = write_images(tmp_path / "truth", 7, 48)
    mask = np.zeros((7, 48, 48), np.uint8)
    for number in range(6):  # the last one has no region of interest
        mask[number, 8 : 30 + number, 5:25] = 255
        mask[number, 40:, 30:] = 128
    (tmp_path / "masks").mkdir()
    for number, image in enumerate(mask):
        Image.fromarray(image).save(tmp_path / "masks" / f"{number}.png")
    folders = [
        f"{what}={tmp_path}/{name}" for what, name in {"images": "found", "targets": "truth", "masks": "masks"}.items()
    ]
    call(monkeypatch, evaluate, *folders, f"output={tmp_path}/out", "similarity=embedded", "batch_size=3")
    report, columns = results(tmp_path / "out")
    x, y, m = found / 127.5 - 1, truth / 127.5 - 1, mask / 255

    want: dict[str, list[float]] = {
        name: [] for name in ("mse", "psnr", "ssim", "mse_interest", "psnr_interest", "ssim_interest")
    }
    for a, b, weight in zip(x, y, m, strict=True):
        score, whole = structural_similarity(
            a, b, data_range=2, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
        )
        want["mse"].append(((a - b) ** 2).mean())
        want["psnr"].append(peak_signal_noise_ratio(b, a, data_range=2))
        want["ssim"].append(score)
        inside, valid = weight.sum(), weight[5:-5, 5:-5]
        empty = inside == 0
        error = np.nan if empty else (weight[..., None] * (a - b) ** 2).sum() / (3 * inside)
        want["mse_interest"].append(error)
        want["psnr_interest"].append(10 * np.log10(4 / error))
        want["ssim_interest"].append(
            np.nan if empty else (valid[..., None] * whole[5:-5, 5:-5]).sum() / (3 * valid.sum())
        )
    for name, values in want.items():
        np.testing.assert_allclose(column(columns, name), values, rtol=2e-5, atol=1e-6, err_msg=name)
        known = np.array(values)[~np.isnan(values)]
        summary = report["metrics"][name]
        assert summary["mean"] == pytest.approx(known.mean(), rel=1e-5)
        assert summary["std"] == pytest.approx(known.std(ddof=1), rel=1e-4)
        assert (summary["count"], summary["skipped"]) == (len(known), 7 - len(known))
        assert summary["low"] < summary["mean"] < summary["high"]

    network = load_face_network("face_eval")
    with torch.no_grad():
        pooled = [network.pooled(torch.from_numpy(v).permute(0, 3, 1, 2).float()).double().numpy() for v in (x, y)]
        embedded = [network.embed(torch.from_numpy(v).permute(0, 3, 1, 2).float()).double().numpy() for v in (x, y)]
    np.testing.assert_allclose(column(columns, "id"), (embedded[0] * embedded[1]).sum(1), atol=1e-5)
    (mean_x, mean_y), (cov_x, cov_y) = ([f(p) for p in pooled] for f in (lambda p: p.mean(0), lambda p: np.cov(p.T)))
    root = scipy.linalg.sqrtm(cov_x @ cov_y + 1e-10 * np.eye(len(cov_x))).real
    frechet = ((mean_x - mean_y) ** 2).sum() + np.trace(cov_x + cov_y - 2 * root)
    assert report["sets"]["frechet_embedded"] == pytest.approx(frechet, rel=0.02)
    assert "w_distance" not in columns, "image files have no latent codes"
    assert report["counts"] == {"images": 7, "of": 7, "left_out": 0, "left_out_names": [], "not_finite": 0}
    printed = capsys.readouterr().out
    assert "squared units of [-1, 1]" in printed and "mse ↓" in printed and "not LPIPS" in printed


def test_a_run_on_faces_with_obstacles_by_hand(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, evaluate, f"run={run}", f"output={tmp_path}/out", "+dataset.obstacles=1.0", "speed.seconds=0.3")
    report, columns = results(tmp_path / "out")
    items = SynthFaces(64, seed=2, size=6, obstacles=1.0).__getitems__(range(6))
    x = np.stack([item["image"].double().numpy() for item in items])
    m = np.stack([item["mask"].double().numpy() for item in items])
    half = np.rint((x / 2 + 1) * 127.5) / 127.5 - 1  # the first step, as a file has it
    error = ((half - x) ** 2).mean(axis=(1, 2, 3))
    interest = (m * (half - x) ** 2).sum(axis=(1, 2, 3)) / (3 * m.sum(axis=(1, 2, 3)))
    np.testing.assert_allclose(column(columns, "mse_step1"), error, rtol=1e-5)
    np.testing.assert_allclose(column(columns, "mse_interest_step1"), interest, rtol=1e-5)
    assert (np.abs(error / interest - 1) > 0.05).any(), "the region makes a difference"
    np.testing.assert_allclose(column(columns, "mse"), 0, atol=1e-9)
    assert columns["mse_step2"] == columns["mse"] and columns["index"] == [str(i) for i in range(6)]
    assert column(columns, "w_spread") == pytest.approx(0, abs=1e-6), "all rows of these codes are the same"
    assert "obstacles=1.0" in report["protocol"]["data"] and "masks of the data" in report["protocol"]["interest"]
    assert report["seconds"]["batch_1"]["median"] > 0 and report["seconds"]["best"]["median"] > 0
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| mse_interest ↓ |" in table and "| mean after | step 1 | step 2 |" in table


def test_image_files_score_as_the_run_that_wrote_them(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results do not depend on the tool that writes the files, nor on the batch size."""
    write_images(tmp_path / "photos", 5, 40)
    photos, half = tmp_path / "photos", tmp_path / "half"  # reconstructions with half of the contrast
    half.mkdir()
    seen = [f"run={run}", f"resolution={RESOLUTION}", "batch_size=2"]
    call(
        monkeypatch, evaluate, *seen, *FOLDER, f"dataset.test_root={photos}", "speed.seconds=0", f"output={tmp_path}/a"
    )
    by_run = results(tmp_path / "a")[1]
    call(monkeypatch, invert, *seen, f"input={photos}", f"output={tmp_path}/inverted")
    for file in (tmp_path / "inverted" / "reconstructions").iterdir():
        level = np.asarray(Image.open(file)) / 127.5 - 1
        Image.fromarray(np.rint((level / 2 + 1) * 127.5).astype(np.uint8)).save(half / file.name)
    for made, name, step in (("inverted/reconstructions", "b", ""), ("half", "c", "_step1")):
        places = [f"images={tmp_path}/{made}", f"targets={photos}", f"output={tmp_path}/{name}"]
        call(monkeypatch, evaluate, *places, "metrics=evaluation_basic")
        by_file = results(tmp_path / name)[1]
        assert by_file["name"] == by_run["name"] == [f"{i}.png" for i in range(5)]
        for metric in ("mse", "psnr", "ssim"):
            np.testing.assert_allclose(column(by_file, metric), column(by_run, metric + step), rtol=1e-5, atol=1e-9)


def test_batch_size_and_order_do_not_matter(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = [f"run={run}", "speed.seconds=0", "max_images=5"]
    for size in (1, 5):
        call(monkeypatch, evaluate, *base, f"batch_size={size}", f"output={tmp_path}/{size}")
    one, five = (results(tmp_path / str(size)) for size in (1, 5))
    assert one[1].keys() == five[1].keys() and len(one[1]["index"]) == 5
    for name in set(one[1]) - {"index", "name"}:
        np.testing.assert_allclose(column(one[1], name), column(five[1], name), rtol=1e-4, atol=2e-6, err_msg=name)
    for name, value in one[0]["sets"].items():
        assert value == pytest.approx(five[0]["sets"][name], rel=1e-3, abs=1e-6)
    assert one[0]["protocol"]["images"] == "5 of 6"


def test_edits_that_lead_back(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "warmer.npy", np.eye(8, dtype=np.float32)[:1])
    edit = [f"lec.directions=[{tmp_path}/warmer.npy]", "lec.strength=2"]
    call(monkeypatch, evaluate, f"run={run}", f"output={tmp_path}/out", *edit, "speed.seconds=0", "max_images=2")
    report, columns = results(tmp_path / "out")
    assert (column(columns, "lec_warmer") > 0).all() and "warmer by 2" in report["protocol"]["lec_warmer"]


# -- files, counts and errors -----------------------------------------------------------------------------------------


def test_unreadable_images_are_counted_and_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    write_images(tmp_path / "photos", 4, 32)
    (tmp_path / "photos" / "2.png").write_bytes(b"")
    data = [
        f"run={run}",
        *FOLDER,
        f"dataset.test_root={tmp_path}/photos",
        "speed.seconds=0",
        "resolution=32",
    ]
    with pytest.raises(SystemExit):
        call(monkeypatch, evaluate, *data, f"output={tmp_path}/out")
    assert "2.png: empty file" in capsys.readouterr().err and not (tmp_path / "out").exists()
    call(monkeypatch, evaluate, *data, f"output={tmp_path}/out", "dataset.on_bad_image=skip")
    report, columns = results(tmp_path / "out")
    assert columns["name"] == ["0.png", "1.png", "3.png"]
    assert report["counts"]["left_out"] == 1 and report["counts"]["left_out_names"] == ["2.png"]
    assert "3 of 4; 1 left out: 2.png" in capsys.readouterr().out


def test_files_without_a_partner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    write_images(tmp_path / "found", 3, 32)
    write_images(tmp_path / "truth", 4, 32)
    base = [f"images={tmp_path}/found", f"targets={tmp_path}/truth"]
    assert "1 files have no partner (targets: 3.png)" in error_of(monkeypatch, capsys, evaluate, *base)
    call(monkeypatch, evaluate, *base, "on_missing=skip")
    report, columns = results(tmp_path / "found_evaluation")
    assert report["counts"]["left_out_names"] == ["targets: 3.png"] and len(columns["name"]) == 3
    assert "has content" in error_of(monkeypatch, capsys, evaluate, *base, "on_missing=skip")
    Image.new("RGB", (32, 30)).save(tmp_path / "found" / "1.png")
    assert "1.png: got 32 x 30 px, expected a square" in error_of(
        monkeypatch, capsys, evaluate, *base, "on_missing=skip", "overwrite=true"
    )


def test_bad_arguments(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("a network was loaded before the input was checked")

    monkeypatch.setattr("stylegan_inv.loading.load_inverter", refuse)
    monkeypatch.chdir(tmp_path)
    base = [f"run={run}", "output=out"]
    for change, expected in {
        "run=absent": "run=absent: no such run folder",
        "images=x": "expected either run=",
        "split=train": "split=train: expected test or val",
        "per_image=values.txt": "per_image=values.txt: expected a file name ending in .csv or .parquet",
        "device=gpu": "device=gpu: expected auto",
        "bootstrap.level=95": "bootstrap.level=95",
        "bootstrap.resamples=0": "bootstrap.resamples=0",
        "max_images=0": "max_images=0",
        "batch_size=0": "batch_size=0",
        "speed.batch_sizes=[2,1]": "speed.batch_sizes=[2, 1]: expected ascending",
        "+dataset.no_such=1": "dataset.no_such: the run's data set has",
        "dataset=folder": "root",
        "dataset=no_such": "no_such",
        "lec.direction=smile": "direction",
        "+metrics.mse_step1={_target_: stylegan_inv.metrics.MSE}": "names must not contain",
    }.items():
        if "metrics" not in change:
            assert expected in error_of(monkeypatch, capsys, evaluate, *base, change)
    assert "images=<folder> and targets=<folder> go together" in error_of(monkeypatch, capsys, evaluate, "images=x")
    assert not list(tmp_path.iterdir())


def test_without_pyarrow_parquet_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    line = error_of(monkeypatch, capsys, evaluate, f"run={run}", f"output={tmp_path}/out", "per_image=values.parquet")
    assert "needs pyarrow" in line and not (tmp_path / "out").exists()


def test_parquet_has_the_same_values(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    from stylegan_inv.evaluate.score_table import write_per_image

    values = torch.tensor([0.5, torch.nan, 1.25], dtype=torch.float64)
    write_per_image(tmp_path / "v.parquet", [0, 1, 2], ["a", "b", "c"], {"mse": values})
    table = parquet.read_table(tmp_path / "v.parquet").to_pydict()
    assert table == {"index": [0, 1, 2], "name": ["a", "b", "c"], "mse": [0.5, None, 1.25]}


def test_official_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.encoders.official import psp_file

    torch.save(psp_file("GradualStyleEncoder"), tmp_path / "psp.pt")
    write_images(tmp_path / "photos", 2, 40)
    monkeypatch.chdir(tmp_path)
    call(monkeypatch, evaluate, "run=psp.pt", *FOLDER, "dataset.test_root=photos", "speed.seconds=0")
    report, columns = results(tmp_path / "outputs" / "psp" / "evaluation" / "folder")
    assert column(columns, "mse").shape == (2,) and report["protocol"]["method"].startswith("PSP of psp.pt, checkpoint")


def test_the_real_command_line(run: Path, tmp_path: Path) -> None:
    result = run_cli("evaluate", f"run={run}", "speed.seconds=0", "output=out", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["metrics.json", "per_image.csv", "table.md"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert_user_error(run_cli("evaluate", "run=absent", cwd=tmp_path), "absent: no such run folder")
