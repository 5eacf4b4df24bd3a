"""The benchmark of all methods: its figures against NumPy, its parts together, and what it says to bad input."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from stylegan_inv import load_generator
from stylegan_inv.benchmark import __main__ as benchmark
from stylegan_inv.benchmark import method_scores as benchmark_scores
from stylegan_inv.benchmark.editability import STRENGTHS, edit_columns
from stylegan_inv.benchmark.method_runs import BY_NAME, ENTRANTS, Budget, TrueFactors
from stylegan_inv.benchmark.method_scores import CONDITIONS, Faces, score
from stylegan_inv.encoders.face_network import load_face_network
from stylegan_inv.latents.directions import load_direction
from stylegan_inv.latents.discovery.scores import predict_attributes
from stylegan_inv.methods.common.base import Inversion
from tests.cli import REPOSITORY, run_cli


@pytest.fixture(scope="module")
def generator():
    return load_generator("synthfaces64")


@pytest.fixture(scope="module")
def faces():
    return {condition: Faces.of(3, share) for condition, share in CONDITIONS.items()}


def test_scores_against_numpy(generator, faces):
    reference = TrueFactors(generator)
    columns = score(BY_NAME["true_factors"], reference, faces, Budget(faces=3, edited=2))
    image = reference.invert(faces["clear"].batch["normals"]).image
    seen = np.round((image.numpy().clip(-1, 1) + 1) * 127.5) / 127.5 - 1
    target = faces["clear"].batch["image"].numpy()
    np.testing.assert_allclose(columns["clear/mse"], ((seen - target) ** 2).mean((1, 2, 3)), rtol=1e-4)
    assert columns["clear/pictures"].dtype == np.uint8 and columns["clear/pictures"].shape == (2, 3, 64, 64)
    assert columns["clear/mse"].mean() < 0.02  # it does know the faces


def test_what_is_hidden_is_compared_with_the_face_without_the_obstacle(faces):
    clear, covered = (faces[name].batch for name in ("clear", "covered"))
    hidden = (clear["mask"] - covered["mask"]).numpy()
    guess = torch.zeros_like(clear["image"])
    found = benchmark_scores._behind(guess, faces, 3)
    np.testing.assert_allclose(found["share"], hidden.sum((1, 2, 3)) / clear["mask"].numpy().sum((1, 2, 3)), rtol=1e-5)
    error = (hidden * clear["image"].numpy() ** 2).sum((1, 2, 3)) / (3 * hidden.sum((1, 2, 3)))
    np.testing.assert_allclose(found["mse_hidden"], np.where(found["share"] > 0.02, error, np.nan), rtol=1e-4)
    assert (found["share"] > 0).any()


def test_edits_are_read_from_pictures_with_the_inversions_own_noise(generator, faces):
    """By hand, for one attribute and strength; the maps that an inversion found stay."""
    originals, network = faces["clear"].batch["image"], load_face_network("face_eval")
    w = TrueFactors(generator).invert(faces["clear"].batch["normals"]).w[:2]
    noise = [torch.randn(2, 1, *m.shape[-2:]) * 30 for m in generator.synthesis.noise_maps()]
    columns = edit_columns(generator, [Inversion(w, generator.synthesis(w, noise=noise), noise=noise)], 2, originals)
    before = predict_attributes(network, originals)["age"]
    sign = torch.where(before[:2] > (before.min() + before.max()) / 2, -1.0, 1.0)
    direction = load_direction("age", generator)

    def age(strength):
        codes = direction.apply(w, strength * sign)
        return predict_attributes(network, generator.synthesis(codes, noise=noise).clamp(-1, 1))["age"]

    wanted = (age(2.0) - age(0.0)) * sign / before.std()
    row = STRENGTHS.index(2.0)
    np.testing.assert_allclose(columns["edits/age/wanted"][row], wanted, rtol=1e-3, atol=1e-4)
    without = edit_columns(generator, [Inversion(w, generator.synthesis(w))], 2, originals)
    assert not np.allclose(columns["edits/age/wanted"], without["edits/age/wanted"], rtol=1e-3)
    five = np.mean([columns[f"edits/{n}/wanted"] for n in ("age", "eyeglasses", "gender", "pose", "smile")], axis=0)
    np.testing.assert_allclose(columns["edits/all/wanted"], five)


def test_bare_command_means_all_methods():
    assert benchmark.options([]).part == benchmark.options(["--seeds", "0"]).part == "methods"
    assert benchmark.options(["world", "--seconds", "1"]).part == "world"
    assert benchmark.options(["--runs", "data"]).runs == Path("data")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--faces", "0"], "--faces 0: expected a whole number of at least 1"),
        (["--seeds", "1", "1"], "--seeds 1 1: expected different"),
        (["--quick", "--no-training", "--only", "psp_synthfaces"], "nothing has been trained there"),
    ],
)
def test_bad_input_ends_before_any_work(arguments, says, tmp_path):
    with pytest.raises(SystemExit, match=re.escape(says)):
        benchmark.main(["methods", *arguments, "--runs", str(tmp_path / "runs")])
    assert not (tmp_path / "runs").exists()


def test_commands_of_the_pages_are_accepted():
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "experiments").glob("**/README.md")]
    found = [
        line
        for page in pages
        for line in re.findall(r"^ +python -m stylegan_inv\.benchmark\b(.*)$", page.read_text(), re.M)
    ]
    assert len(found) >= 2
    for line in found:
        benchmark.options(shlex.split(line, comments=True))


@pytest.mark.slow
def test_from_nothing_to_the_pages_and_on(tmp_path):
    """As experiments/run_inversion.py does it; then again."""
    only = ["--only", "psp_synthfaces", "e4e_synthfaces", "image2stylegan", "pti", "true_factors"]
    arguments = ["--quick", "--seeds", "0", *only]
    script = [sys.executable, str(REPOSITORY / "experiments" / "run_inversion.py")]
    done = subprocess.run(
        [*script, *arguments, "--runs", "runs", "--pages", "pages"],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(REPOSITORY)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    report, trained = tmp_path / "pages" / "benchmark", tmp_path / "runs" / "seed0" / "psp_synthfaces" / "metrics.json"
    content = json.loads((report / "benchmark.json").read_text())
    assert set(content["table"]) == set(only[1:])
    assert content["table"]["image2stylegan"]["clear/mse"]["faces"] == 2
    assert {claim["verdict"] for claim in content["claims"]} <= {"reproduced", "not reproduced", "contradicted"}
    rows = list(csv.DictReader((report / "edits.csv").open()))
    assert len(rows) == len(only[1:]) * 6 * len(STRENGTHS)
    page = (report / "report.html").read_text()
    assert (
        page.count("data:image/png") == 5 and "Claims of the papers" in page and "http" not in page.split("</style>")[1]
    )
    for name in ("table.md", "table.csv", "grid.png", "tradeoff.png", "refinement.png", "obstacles.png", "edits.png"):
        assert (report / name).stat().st_size > 500, name
    result = (tmp_path / "pages" / "psp_synthfaces" / "README.md").read_text().partition("## Result")[2]
    mse = content["table"]["psp_synthfaces"]["clear/mse"]["mean"]
    assert f"| MSE, squared units of [-1, 1] | {mse:.3f}" in result and "LPIPS 0.17, identity 0.56" in result
    assert (tmp_path / "pages" / "psp_synthfaces" / "panel.png").is_file()
    assert "## Among all methods" in (tmp_path / "pages" / "pti_synthfaces" / "README.md").read_text()
    assert "(benchmark/grid.png)" in (tmp_path / "pages" / "README.md").read_text()
    # Again: what has been trained and scored is not done again, and a broken result is.
    before = trained.stat().st_mtime
    scores = {e.name: tmp_path / "runs" / "seed0" / f"{e.name}.npz" for e in ENTRANTS if e.name in only}
    kept = {name: file.stat().st_mtime for name, file in scores.items()}
    scores["true_factors"].unlink()
    again = run_cli("benchmark", *arguments, "--runs", "runs", cwd=tmp_path)
    assert again.returncode == 0 and "results:    runs/report" in again.stdout, again.stderr
    assert trained.stat().st_mtime == before
    assert [n for n, file in scores.items() if file.stat().st_mtime != kept[n]] == ["true_factors"]
