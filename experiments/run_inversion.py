"""Train the embedded world's inversion recipes under one budget, score them and test the papers' claims on them.

    python experiments/run_inversion.py                                    # trains what has not been trained
    python experiments/run_inversion.py --only psp_synthfaces
    python experiments/run_inversion.py --steps 10 --into /tmp/check --runs /tmp/runs dataset.val_size=16

Whatever is no option goes to ``stylegan_inv.train``. Results go below ``## Result`` of each recipe's page, the
comparison below ``## Inversion of SynthFaces`` of the folder's page.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pages import command, hardware, write_below
from torch import Tensor

HERE = Path(__file__).resolve().parent
#: name -> recipe and what is changed in it. Each trains on 16,000 passes of encoder and generator; the last one is
#: there to compare IntereStyle with, which also sees covered faces in training.
RUNS: dict[str, list[str]] = {
    "psp_synthfaces": [],
    "e4e_synthfaces": [],
    "restyle_synthfaces": [],
    "restyle_e4e_synthfaces": [],
    "interestyle_synthfaces": [],
    "restyle_covered": ["experiment=restyle_synthfaces", "dataset.obstacles=0.5"],
}
#: Held-out faces: nothing before them, and something before each.
CONDITIONS = {"clear": 0.0, "covered": 1.0}
COLUMNS = {
    ("clear", "mse"): "MSE",
    ("clear", "perceptual"): "perceptual",
    ("clear", "id"): "identity",
    ("covered", "mse_interest"): "MSE of the interest region, covered faces",
    ("clear", "w_distance"): "distance to W",
    ("clear", "w_spread"): "spread of w+",
}
#: Directions whose effect on inverted faces is measured, and by how many of their units.
EDITS = ("age", "eyeglasses", "gender", "pose", "smile")
#: claim -> (what is compared, where, better run, worse run); lower values are better.
CLAIMS = {
    "ReStyle's distortion is below pSp's": ("mse", "clear", "restyle_synthfaces", "psp_synthfaces"),
    "ReStyle's distortion is below e4e's": ("mse", "clear", "restyle_synthfaces", "e4e_synthfaces"),
    "e4e is nearer to W than pSp": ("w_distance", "clear", "e4e_synthfaces", "psp_synthfaces"),
    "e4e is nearer to W than ReStyle": ("w_distance", "clear", "e4e_synthfaces", "restyle_synthfaces"),
    "IntereStyle is better on the interest region of covered faces than ReStyle": (
        "mse_interest",
        "covered",
        "interestyle_synthfaces",
        "restyle_synthfaces",
    ),
    "… than ReStyle that was trained on covered faces too": (
        "mse_interest",
        "covered",
        "interestyle_synthfaces",
        "restyle_covered",
    ),
}
HEADING = "## Inversion of SynthFaces"


def main() -> None:
    """Train, score, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), metavar="RUN", help="some of them")
    parser.add_argument("--steps", type=int, help="optimiser steps instead of the recipe's")
    parser.add_argument("--faces", type=int, default=500, help="held-out faces to score, at most 1000")
    parser.add_argument("--runs", type=Path, default=Path("outputs/inversion"), help="folder of the run folders")
    parser.add_argument("--into", type=Path, default=HERE, help="folder of the pages, pictures and figures")
    options, overrides = parser.parse_known_args()
    if options.steps is not None:
        overrides = [f"trainer.max_steps={options.steps}", f"trainer.val_check_interval={options.steps}", *overrides]
    for name in options.only:
        train(name, options.runs / name, overrides)
        for condition, share in CONDITIONS.items():
            score(options.runs / name, condition, share, options.faces)
        if name.endswith("_synthfaces"):
            write_page(name, options.runs / name, options.into / name)
    done = [name for name in RUNS if (options.runs / name / "evaluation" / "covered" / "metrics.json").is_file()]
    options.into.mkdir(parents=True, exist_ok=True)
    write_comparison({name: options.runs / name for name in done}, options.into)


def train(name: str, run: Path, overrides: Sequence[str]) -> None:
    """Train a run that has no figures yet."""
    if not (run / "metrics.json").is_file():
        command("train", *(RUNS[name] or [f"experiment={name}"]), f"hydra.run.dir={run}", "logger=csv", *overrides)


def score(run: Path, condition: str, share: float, faces: int) -> None:
    """Score a run on held-out faces, once."""
    output = run / "evaluation" / condition
    if not (output / "metrics.json").is_file():
        changes = [f"+dataset.obstacles={share}", f"max_images={faces}", "overwrite=true"]
        command("evaluate", f"run={run}", f"output={output}", *changes)


def write_page(name: str, run: Path, page: Path) -> None:
    """Picture and figures of a recipe."""
    page.mkdir(parents=True, exist_ok=True)
    shutil.copy(run / "panels" / "last.png", page / "panel.png")
    training = json.loads((run / "metrics.json").read_text())
    clear, covered = (scores(run, condition) for condition in CONDITIONS)
    figures = {"training": training, "clear": clear, "covered": covered}
    (page / "metrics.json").write_text(json.dumps(figures, indent=2) + "\n")
    steps = [clear["metrics"][key] for key in sorted(clear["metrics"]) if key.startswith("mse_step")]
    rows = {
        "MSE, squared units of [-1, 1]": interval(clear, "mse"),
        **({"MSE after each refinement": ", ".join(f"{s['mean']:.4f}" for s in steps)} if steps else {}),
        "PSNR, dB": interval(clear, "psnr"),
        "SSIM": interval(clear, "ssim"),
        "identity similarity (`face_eval`)": interval(clear, "id"),
        "embedded perceptual distance (`face_eval`)": interval(clear, "perceptual"),
        "Fréchet distance of `face_eval`'s features (not FID)": f"{clear['sets']['frechet_embedded']:.3f}",
        "MSE of the interest region": interval(clear, "mse_interest"),
        "the same when something covers the face": interval(covered, "mse_interest"),
        "distance to W (1: a fresh code of W)": interval(clear, "w_distance"),
    }
    text = (
        f"![input, reconstruction, difference](panel.png)\n\nOn {clear['counts']['images']} held-out faces (seed 2), "
        f"mean and 95 % interval over the faces; trained in {training['seconds']:.0f} seconds on {hardware()}, one "
        "seed ([metrics.json](metrics.json)):\n\n| | |\n|---|---|\n"
    )
    text += "\n".join(f"| {title} | {value} |" for title, value in rows.items())
    write_below("## Result", text, page / "README.md", HERE / name / "README.md")


def write_comparison(runs: dict[str, Path], into: Path) -> None:
    """The table of all runs, the claims, and what edits do to each method's codes."""
    results = {name: {condition: scores(run, condition) for condition in CONDITIONS} for name, run in runs.items()}
    lines = ["| run | " + " | ".join(COLUMNS.values()) + " | seconds a face |", "|---|" + "---|" * (len(COLUMNS) + 1)]
    for name, result in results.items():
        cells = [interval(result[condition], key) for condition, key in COLUMNS]
        seconds = result["clear"]["seconds"]["batch_1"]["median"]
        lines.append(f"| {title(name)} | {' | '.join(cells)} | {seconds:.3f} |")
    lines += [
        "",
        "Means and 95 % intervals over the faces of one training each; the spread over training seeds is not in. "
        "Seconds depend on what else the machine does.",
        "",
    ]
    claims = {
        claim: compare(runs[better], runs[worse], condition, key)
        for claim, (key, condition, better, worse) in CLAIMS.items()
        if better in runs and worse in runs
    }
    lines += ["| claim | difference of the means (95 %) | faces on which it holds | verdict |", "|---|---|---|---|"]
    for claim, (mean, low, high, share) in claims.items():
        lines.append(f"| {claim} | {mean:+.4f} ({low:+.4f} to {high:+.4f}) | {share:.1%} | {verdict(low, high)} |")
    edits = {name: edit_effects(run) for name, run in runs.items()}
    lines += ["", *edit_table(edits)]
    grid(runs, into / "inversion.png")
    lines += ["", "![the same faces through all methods: clear above, covered below](inversion.png)"]
    figures = {"results": results, "claims": claims, "edits": edits}
    (into / "inversion.json").write_text(json.dumps(figures, indent=2) + "\n")
    write_below(HEADING, "\n".join(lines), into / "README.md", HERE / "README.md")


def title(name: str) -> str:
    """A run as a link to its page."""
    recipe = f"{name.removesuffix('_covered')}_synthfaces" if name.endswith("_covered") else name
    what = "restyle, trained on covered faces too" if name.endswith("_covered") else name.removesuffix("_synthfaces")
    return f"[{what}]({recipe}/README.md)"


def scores(run: Path, condition: str) -> dict:
    """What `evaluate` has written; the run by its name alone, as its folder is elsewhere for the next reader."""
    text = (run / "evaluation" / condition / "metrics.json").read_text()
    return json.loads(text.replace(f"{run.parent}{os.sep}", ""))


def interval(result: dict, key: str) -> str:
    """Mean and half the width of its interval."""
    s = result["metrics"][key]
    return f"{s['mean']:.4g} ± {(s['high'] - s['low']) / 2:.1g}"


def per_image(run: Path, condition: str, key: str) -> np.ndarray:
    """A column of an evaluation, in the order of the faces."""
    with open(run / "evaluation" / condition / "per_image.csv", newline="") as file:
        return np.array([float(row[key]) for row in csv.DictReader(file)])


def compare(better: Path, worse: Path, condition: str, key: str) -> tuple[float, float, float, float]:
    """Mean difference over the same faces, its 95 % bootstrap interval, and the share of faces with a negative one."""
    difference = per_image(better, condition, key) - per_image(worse, condition, key)
    drawn = np.random.default_rng(0).integers(len(difference), size=(2000, len(difference)))
    low, high = np.quantile(difference[drawn].mean(axis=1), (0.025, 0.975))
    return float(difference.mean()), float(low), float(high), float((difference < 0).mean())


def verdict(low: float, high: float) -> str:
    """What an interval of a difference that should be negative says."""
    return "reproduced" if high < 0 else "contradicted" if low > 0 else "not reproduced"


@torch.no_grad()
def edit_effects(run: Path, faces: int = 200) -> dict[str, dict[str, float]]:
    """What each direction does to a method's codes of held-out faces, read by ``face_eval``.

    Returns:
        edit -> ``wanted``: standard deviations by which the attribute moves, ``others``: mean size of the other
        attributes' movements, ``identity``: cosine before and after.
    """
    from stylegan_inv import load_inverter
    from stylegan_inv.encoders.face import load_face_network
    from stylegan_inv.latents.directions import load_direction
    from stylegan_inv.latents.effect import EffectMeter

    method = load_inverter(run)
    codes = torch.cat([method.invert(part).w for part in held_out(0.0, faces).split(50)])
    meter = EffectMeter(method.generator, {"face_eval": load_face_network("face_eval")}, codes)
    found = {}
    for edit in EDITS:
        effect = meter.measure(load_direction(edit, method.generator), 2.0)["face_eval"]
        others = [value for name, value in effect.absolute.items() if name != edit]
        found[edit] = {
            "wanted": effect.mean[edit],
            "others": sum(others) / len(others),
            "identity": effect.identity,
        }
    return found


def edit_table(edits: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """Rows of methods, columns of edits: how much the wanted attribute moves for each unit by which the others do."""
    lines = [
        "What an edit of strength 2 does to the codes: by how many standard deviations the wanted attribute moves, the "
        "mean movement of all others in brackets, read by `face_eval` on 200 faces:",
        "",
        f"| run | {' | '.join(EDITS)} | wanted for each unit of the others | identity kept |",
        "|---|" + "---|" * (len(EDITS) + 2),
    ]
    for name, found in edits.items():
        cells = [f"{found[edit]['wanted']:.2f} ({found[edit]['others']:.2f})" for edit in EDITS]
        ratio = sum(f["wanted"] for f in found.values()) / sum(f["others"] for f in found.values())
        identity = sum(f["identity"] for f in found.values()) / len(found)
        lines.append(f"| {title(name)} | {' | '.join(cells)} | {ratio:.2f} | {identity:.3f} |")
    return lines


def held_out(obstacles: float, count: int) -> Tensor:
    """The first faces of the test split (count, 3, 64, 64)."""
    from stylegan_inv.data.faces import FacesDataModule

    data = FacesDataModule(resolution=64, test_size=count, val_batch_size=count, obstacles=obstacles)
    data.setup("test")
    return next(iter(data.test_dataloader()))["image"]


@torch.no_grad()
def grid(runs: dict[str, Path], picture: Path) -> None:
    """The same faces through all methods."""
    from stylegan_inv import load_inverter
    from stylegan_inv.runtime.contact_sheet import contact_sheet

    images = torch.cat([held_out(share, 5) for share in CONDITIONS.values()])
    columns = {"input": images}
    for name, run in runs.items():
        columns[name.removesuffix("_synthfaces").replace("_", " ")] = load_inverter(run).invert(images).image
    contact_sheet(columns).save(picture)


if __name__ == "__main__":
    main()
