"""The matrix of embedders and refiners: pairs, the front, a test run against direct computation, bad options."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_inv import load_inverter
from stylegan_inv.benchmark import __main__ as benchmark
from stylegan_inv.benchmark.matrix.claims_beyond_codes import CLAIMS
from stylegan_inv.benchmark.matrix.pair_results import SHOWN_COLUMNS, front
from stylegan_inv.benchmark.matrix.pairs import EMBEDDERS, REFINERS, Pair, pair_of
from stylegan_inv.benchmark.quality.held_out_faces import Faces
from stylegan_inv.benchmark.quality.results import COLUMNS
from tests.cli import REPOSITORY


def test_names_of_pairs_are_unique_and_read_back() -> None:
    pairs = [Pair(embedder, refiner) for embedder in EMBEDDERS for refiner in REFINERS]
    assert len({pair.name for pair in pairs}) == len(pairs) == 44
    assert [pair_of(pair.name) for pair in pairs] == pairs
    assert not pair_of("e4e").trains and pair_of("e4e+hfgi").trains and not pair_of("e4e+pti").trains
    assert pair_of("e4e+hfgi").kind == "trained" and pair_of("projector+hfgi").kind == "per_image"


def test_claims_and_recipes_exist() -> None:
    for claim in CLAIMS:
        assert pair_of(claim.better) != pair_of(claim.worse) and claim.column in SHOWN_COLUMNS
        assert claim.higher is bool(COLUMNS[claim.column].higher)
    for refiner in REFINERS:
        folder = "experiment" if pair_of(f"e4e+{refiner.name}").trains else "method"
        assert not refiner.source or (REPOSITORY / "conf" / folder / f"{refiner.source}.yaml").is_file()


def test_front() -> None:
    points = np.random.default_rng(0).integers(0, 4, (40, 3)).astype(float)
    brute = [
        not any(all(b <= a for a, b in zip(own, other, strict=True)) and tuple(own) != tuple(other) for other in points)
        for own in points
    ]
    assert front(points) == brute and 0 < sum(brute) < len(points)
    assert front([[1.0, 2.0, 3.0]]) == [True] and front([[1, 2], [1, 2]]) == [True, True]


def test_a_pair_is_scored_and_written(tmp_path: Path) -> None:
    words = ["matrix", "--quick", "--seeds", "0", "--runs", str(tmp_path), "--embedders", "psp", "--refiners", "noise"]
    benchmark.main([*words, "--faces", "3", "--per-image-faces", "2"])
    content = json.loads((tmp_path / "matrix" / "matrix.json").read_text())
    images = Faces.of(3, 0.0).batch["image"]
    with torch.no_grad():
        found = load_inverter("psp_synthfaces").invert(images).image
    rounded = ((found.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    assert content["table"]["psp"]["clear/mse"]["mean"] == pytest.approx(
        float((rounded - images).square().mean()), 1e-3
    )
    table = content["table"]["psp+noise"]
    assert table["clear/mse"]["mean"] < content["table"]["psp"]["clear/mse"]["mean"]
    # Noise maps change no code, so that its style vectors stay.
    assert table["clear/nscd"]["faces"] == 2 and content["table"]["psp"]["edits/frechet"]["mean"] > 0
    text = (tmp_path / "matrix" / "matrix.md").read_text()
    assert "### MSE ↓" in text and "| pSp | " in text and "noise maps" in text
    for name in ("pareto.png", "reconstructions_psp.png"):
        with Image.open(tmp_path / "matrix" / name) as image:
            assert min(image.size) > 100
    stored = tmp_path / "pairs" / "seed0" / "psp+noise.pt"
    before = stored.stat().st_mtime_ns
    benchmark.main([*words, "--faces", "3", "--per-image-faces", "2"])
    assert stored.stat().st_mtime_ns == before  # not scored again


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--refiners", "nothing"], "invalid choice: 'nothing'"),
        (["--seeds", "1", "1"], "expected different whole numbers"),
        (["--faces", "0"], "--faces=0: expected a whole number"),
    ],
)
def test_bad_options(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        benchmark.main(["matrix", "--runs", str(tmp_path / "runs"), *words])
    assert stop.value.code == 2 and message in capsys.readouterr().err and not (tmp_path / "runs").exists()


def test_other_results_are_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "matrix.md").write_text("mine")
    with pytest.raises(SystemExit):
        benchmark.main(["matrix", "--runs", str(tmp_path / "runs"), "--into", str(tmp_path)])
    assert "has matrix.md and no matrix.json" in capsys.readouterr().err
    assert (tmp_path / "matrix.md").read_text() == "mine"
