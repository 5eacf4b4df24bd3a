"""The comparison of all methods: scores against NumPy, the whole command, and error messages."""

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
from stylegan_inv.benchmark.quality import score_method as score_method_module
from stylegan_inv.benchmark.quality.compared_methods import BY_NAME, METHODS, Budget
from stylegan_inv.benchmark.quality.editability import STRENGTHS, EditedFaces
from stylegan_inv.benchmark.quality.held_out_faces import CONDITIONS, Faces
from stylegan_inv.benchmark.quality.method_scores import MethodScores, load_scores, save_scores, stack_seeds
from stylegan_inv.benchmark.quality.score_method import score_method
from stylegan_inv.benchmark.quality.true_factors import TrueFactors
from stylegan_inv.encoders.face_network import load_face_network
from stylegan_inv.errors import UserError
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
    scores = score_method(BY_NAME["true_factors"], reference, faces, Budget(faces=3, edited_faces=2))
    image = reference.invert(faces["clear"].batch["normals"]).image
    seen = np.round((image.numpy().clip(-1, 1) + 1) * 127.5) / 127.5 - 1
    target = faces["clear"].batch["image"].numpy()
    mse = scores.columns["clear/mse"]
    np.testing.assert_allclose(mse, ((seen - target) ** 2).mean((1, 2, 3)), rtol=1e-4)
    assert scores.images["clear"].dtype == np.uint8 and scores.images["clear"].shape == (2, 3, 64, 64)
    assert mse.mean() < 0.02  # the factors determine the face
    assert scores.edits["age"]["target"].shape == (len(STRENGTHS), 2)


def test_scores_are_stored_and_stacked(tmp_path):
    rng = np.random.default_rng(0)

    def scores() -> MethodScores:
        return MethodScores(
            {"clear/mse": rng.random(4, dtype=np.float32), "seconds": np.array(rng.random())},
            {"mse": {1: rng.random(4), 2: rng.random(4)}},
            {"all": {m: rng.random((len(STRENGTHS), 3)) for m in ("target", "others", "identity")}},
            {"clear": rng.integers(0, 255, (2, 3, 8, 8), dtype=np.uint8)},
        )

    seeds = [scores(), scores()]
    save_scores(tmp_path / "new" / "a.pt", seeds[0])
    loaded = load_scores(tmp_path / "new" / "a.pt")
    np.testing.assert_array_equal(loaded.columns["clear/mse"], seeds[0].columns["clear/mse"])
    assert loaded.columns["clear/mse"].dtype == np.float32 and loaded.images["clear"].dtype == np.uint8
    np.testing.assert_array_equal(loaded.steps["mse"][2], seeds[0].steps["mse"][2])
    columns = stack_seeds([loaded, seeds[1]]).all_columns()
    assert columns["clear/mse"].shape == (2, 4) and columns["seconds"].shape == (2, 1)
    np.testing.assert_array_equal(columns["clear/mse_step1"][1], seeds[1].steps["mse"][1])
    np.testing.assert_array_equal(columns["edits/others"][1], seeds[1].edits["all"]["others"][STRENGTHS.index(2.0)])


@pytest.mark.parametrize(
    "content",
    [
        b"garbage",
        b"",
        {"columns": {"clear/mse": torch.zeros(4)}, "steps": 3, "edits": {}, "images": {}},
        {"columns": {"clear/mse": torch.zeros(4)}},
        {"columns": {}, "steps": {}, "edits": {}, "images": {}},
        {"columns": {"clear/mse": "text"}, "steps": {}, "edits": {}, "images": {}},
        {"columns": [1], "steps": {}, "edits": {}, "images": {}},
        torch.zeros(3),
    ],
)
def test_files_that_hold_no_scores(content, tmp_path):
    file = tmp_path / "psp.pt"
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    with pytest.raises(UserError, match=r"psp.pt: expected scores of a method \(.*\); remove it, and"):
        load_scores(file)


def test_hidden_region_is_compared_with_the_face_without_the_obstacle(faces):
    clear, covered = (faces[name].batch for name in ("clear", "covered"))
    hidden = (clear["mask"] - covered["mask"]).numpy()
    guess = torch.zeros_like(clear["image"])
    found = score_method_module._hidden_part(guess, faces, 3)
    np.testing.assert_allclose(
        found["covered/fraction"], hidden.sum((1, 2, 3)) / clear["mask"].numpy().sum((1, 2, 3)), rtol=1e-5
    )
    error = (hidden * clear["image"].numpy() ** 2).sum((1, 2, 3)) / (3 * hidden.sum((1, 2, 3)))
    np.testing.assert_allclose(
        found["covered/mse_hidden"], np.where(found["covered/fraction"] > 0.02, error, np.nan), rtol=1e-4
    )
    assert (found["covered/fraction"] > 0).any()


def test_edits_are_measured_on_images_with_the_noise_of_the_inversion(generator, faces):
    """Against a direct computation for one attribute and strength."""
    originals, network = faces["clear"].batch["image"], load_face_network("face_eval")
    w = TrueFactors(generator).invert(faces["clear"].batch["normals"]).w[:2]
    noise = [torch.randn(2, 1, *m.shape[-2:]) * 30 for m in generator.synthesis.noise_maps()]
    inversion = Inversion(w, generator.synthesis(w, noise=noise), noise=noise)
    edits = EditedFaces(generator, [inversion], 2, originals).measure()
    before = predict_attributes(network, originals)["age"]
    sign = torch.where(before[:2] > (before.min() + before.max()) / 2, -1.0, 1.0)
    direction = load_direction("age", generator)

    def age(strength):
        codes = direction.apply(w, strength * sign)
        return predict_attributes(network, generator.synthesis(codes, noise=noise).clamp(-1, 1))["age"]

    expected = (age(2.0) - age(0.0)) * sign / before.std()
    row = STRENGTHS.index(2.0)
    np.testing.assert_allclose(edits["age"]["target"][row], expected, rtol=1e-3, atol=1e-4)
    without = EditedFaces(generator, [Inversion(w, generator.synthesis(w))], 2, originals).measure()
    assert not np.allclose(edits["age"]["target"], without["age"]["target"], rtol=1e-3)
    five = np.mean([edits[n]["target"] for n in ("age", "eyeglasses", "gender", "pose", "smile")], axis=0)
    np.testing.assert_allclose(edits["all"]["target"], five)


def test_methods_is_the_default_subcommand():
    assert benchmark.options([]).part == benchmark.options(["--seeds", "0"]).part == "methods"
    assert benchmark.options(["world", "--seconds", "1"]).part == "world"
    assert benchmark.options(["--runs", "data"]).runs == Path("data")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--faces", "0"], "--faces=0: expected a whole number from 1 to 1000000"),
        (["--seeds", "1", "1"], "--seeds 1 1: expected different whole numbers"),
        (["--quick", "--no-training", "--only", "psp_synthfaces"], "no trained methods found"),
    ],
)
def test_invalid_options_end_before_any_work(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        benchmark.main(["methods", *arguments, "--runs", str(tmp_path / "runs")])
    assert stop.value.code == 2 and message in capsys.readouterr().err
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


def without_images(page: str) -> str:
    """Removes embedded images: ``edits.csv`` is rounded, so the plots may differ by less than a pixel."""
    return re.sub(r"base64,[^\"]+", "", page)


@pytest.mark.slow
@pytest.mark.long
def test_whole_comparison_and_its_pages(tmp_path):
    """As in experiments/run_inversion.py; then again, which reuses trainings and scores."""
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
    assert page.count("data:image/png") == 5 and "Claims of the papers" in page
    assert "http" not in page.split("</style>")[1]
    for name in ("table.md", "table.csv", "grid.png", "tradeoff.png", "refinement.png", "obstacles.png", "edits.png"):
        assert (report / name).stat().st_size > 500, name
    result = (tmp_path / "pages" / "psp_synthfaces" / "README.md").read_text().partition("## Result")[2]
    mse = content["table"]["psp_synthfaces"]["clear/mse"]["mean"]
    assert f"| MSE, squared units of [-1, 1] | {mse:.3f}" in result and "LPIPS 0.17, identity 0.56" in result
    assert (tmp_path / "pages" / "psp_synthfaces" / "panel.png").is_file()
    assert "## Comparison with all methods" in (tmp_path / "pages" / "pti_synthfaces" / "README.md").read_text()
    assert "(benchmark/grid.png)" in (tmp_path / "pages" / "README.md").read_text()
    # Tables and figures of the stored results, without the scores.
    files = ("table.md", "table.csv", "edits.csv", "benchmark.json", "report.html")
    texts = {name: without_images((report / name).read_text()) for name in files}
    rendered = run_cli("benchmark", "render", "pages/benchmark", cwd=tmp_path)
    assert rendered.returncode == 0, rendered.stderr
    assert {name: without_images((report / name).read_text()) for name in files} == texts
    # Again: trainings and scores are reused, except for a missing one.
    before = trained.stat().st_mtime
    scores = {m.name: tmp_path / "runs" / "seed0" / f"{m.name}.pt" for m in METHODS if m.name in only}
    kept = {name: file.stat().st_mtime for name, file in scores.items()}
    scores["true_factors"].unlink()
    again = run_cli("benchmark", *arguments, "--runs", "runs", cwd=tmp_path)
    assert again.returncode == 0 and "results:    runs/report" in again.stdout, again.stderr
    assert trained.stat().st_mtime == before
    assert [n for n, file in scores.items() if file.stat().st_mtime != kept[n]] == ["true_factors"]
