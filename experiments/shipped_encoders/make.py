"""Trains the encoders that are part of the package, and writes their files, scores and pictures.

    python experiments/shipped_encoders/make.py                                 # all three, an hour on one CPU core
    python experiments/shipped_encoders/make.py --only psp_synthfaces --into outputs/encoders

A training that has finished is not repeated. Other arguments are passed to ``stylegan_inv.train``. Writes
``<name>.safetensors``, and the part of the page below ``## Result``.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from omegaconf import DictConfig

from stylegan_inv.benchmark.quality.result_tables import markdown
from stylegan_inv.config import instantiate
from stylegan_inv.data.synthfaces.dataset import SynthFaces
from stylegan_inv.encoders.shipped_files import ENCODER_ARGUMENTS, ShippedEncoder, read_shipped, save_shipped
from stylegan_inv.evaluate.evaluation_data import dataset_batches
from stylegan_inv.latents.directions import load_direction
from stylegan_inv.loading import load_inverter
from stylegan_inv.methods.common.base import InversionMethod, mse
from stylegan_inv.methods.common.reached_distances import DistanceRecord, ReachedDistances
from stylegan_inv.runtime.run_folder import RunFolder
from stylegan_inv.visualization.contact_sheet import contact_sheet

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from pages import command, write_below  # noqa: E402

#: Name -> arguments of its training. The head of rank 96 has a tenth of the full head's weights.
TRAININGS = {
    "restyle_synthfaces": ("trainer.max_steps=1500",),
    "e4e_synthfaces": ("trainer.max_steps=4000", "method.stages.start=400", "method.stages.every=150"),
    "psp_synthfaces": ("trainer.max_steps=3500",),
}
#: Class of a method -> the arguments that its file keeps.
KEPT_ARGUMENTS = {"ReStyle": ("iterations",), "PSP": ("in_channels",), "E4E": ("in_channels",)}
#: Quantiles of the squared errors that the page shows.
SHOWN_LEVELS = (0.5, 0.95, 0.99, 1.0)
FIGURES = {
    "mse": "MSE, squared units of [-1, 1]",
    "psnr": "PSNR, dB",
    "id": "identity similarity (`face_eval`)",
    "perceptual": "embedded perceptual distance (`face_eval`)",
}
SHOWN = 6


def main() -> None:
    """Trains, writes and scores the encoders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=TRAININGS, default=list(TRAININGS), metavar="NAME")
    parser.add_argument("--runs", type=Path, default=Path("outputs/shipped_encoders/runs"), help="folder of the runs")
    parser.add_argument("--into", type=Path, default=Path("outputs/shipped_encoders"), help="folder of the encoders")
    parser.add_argument("--page", type=Path, default=HERE, help="folder of the page and its picture")
    parser.add_argument("--faces", type=int, default=1000, help="number of held-out faces")
    options, overrides = parser.parse_known_args()
    for name in options.only:
        run = options.runs / name
        arguments = (f"experiment={name}", "encoder.rank=96", *TRAININGS[name], *overrides)
        if not RunFolder(run).metrics():
            command("train", *arguments, f"hydra.run.dir={run}", "logger=csv", "resume=auto")
        write_encoder(run, options.into / f"{name}.safetensors", " ".join(arguments), options.faces)
    files = {name: file for name in TRAININGS if (file := options.into / f"{name}.safetensors").is_file()}
    write_page(files, options.runs, options.page)


@torch.no_grad()
def write_encoder(run: Path, file: Path, arguments: str, faces: int) -> None:
    """Writes the encoder of a run, with the scores of the weights that are written."""
    cfg = RunFolder(run).config()
    method = load_inverter(run)
    encoder = method.get_submodule("encoder")
    for parameter in encoder.parameters():
        parameter.copy_(parameter.half())  # as in the file
    scores, distances = score(method, cfg.dataset, faces)
    about = describe(method, cfg, f"python -m stylegan_inv.train {arguments}")
    save_shipped(encoder, replace(about, metrics=scores, distances=distances), file)
    print(f"{file}: {file.stat().st_size:,} bytes, {json.dumps(scores)}")


def describe(method: InversionMethod, cfg: DictConfig, command_line: str) -> ShippedEncoder:
    """Returns the metadata of the encoder of a run, without its scores."""
    kind = type(method).__name__
    return ShippedEncoder(
        method=kind,
        method_arguments={name: cfg.method[name] for name in KEPT_ARGUMENTS[kind]},
        encoder=cfg.encoder._target_.rpartition(".")[2],
        encoder_arguments={name: cfg.encoder[name] for name in ENCODER_ARGUMENTS if name in cfg.encoder},
        generator=cfg.generator.source,
        generator_hash=str(method.generator.source_hash),
        domain="synthfaces",
        resolution=cfg.dataset.resolution,
        command=command_line,
        metrics={},
        distances={},
    )


@torch.no_grad()
def score(method: InversionMethod, dataset: DictConfig, faces: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Returns the mean scores of held-out faces, and quantiles of their squared errors as plain data."""
    data = instantiate(dataset)
    data.setup("validate")
    metrics: dict[str, Any] = dict(method.metrics.items())
    errors, record = [], DistanceRecord()
    for metric in metrics.values():
        metric.reset()
    for batch in dataset_batches(data, "val", max_images=faces):
        image = method.invert(batch["image"]).image
        errors.append(mse(image, batch["image"]))
        record.add(errors[-1], batch["image"])
        for metric in metrics.values():
            metric.update(image, batch["image"])
    reached = record.compute()
    assert reached is not None
    scores = {
        "mse": float(torch.cat(errors).mean()),
        **{name: float(metric.compute()) for name, metric in metrics.items()},
    }
    return scores, reached.to_plain()


def write_page(files: dict[str, Path], runs: Path, page: Path) -> None:
    """Writes the scores before and after rounding, and a picture of inversions and edits."""
    abouts = {name: read_shipped(file)[0] for name, file in files.items()}
    rows = []
    for name, about in abouts.items():
        before, full = RunFolder(runs / name).metrics(), recipe_metrics(name)
        for key, title in FIGURES.items():
            values = (full[f"val/{key}"], before[f"val/{key}"], about.metrics[key])
            rows.append([name, title, *(f"{value:.5f}" for value in values)])
    page.mkdir(parents=True, exist_ok=True)
    draw(files, page / "panel.png")
    text = "![input, reconstructions, and the smile edited through ReStyle's codes](panel.png)\n\n"
    heads = [
        "encoder",
        "1,000 held-out faces",
        "recipe: full head, fewer steps",
        "trained, float32",
        "shipped, float16",
    ]
    text += markdown(heads, rows)
    quantiles = []
    for name, about in abouts.items():
        reached = ReachedDistances.from_plain(about.distances)
        quantiles.append([name, *(f"{reached.quantile(level):.5f}" for level in SHOWN_LEVELS)])
    text += "\n\nQuantiles of the squared error of a face:\n\n"
    text += markdown(["encoder", *(f"{level:.0%}" for level in SHOWN_LEVELS)], quantiles)
    write_below("## Result", text, page / "README.md", HERE / "README.md")
    stored = {name: {**about.metrics, "distances": about.distances} for name, about in abouts.items()}
    (page / "metrics.json").write_text(json.dumps(stored, indent=2) + "\n")


def recipe_metrics(name: str) -> dict[str, float]:
    """Returns the metrics of the recipe's own trainings, averaged over their seeds."""
    seeds = json.loads((HERE.parent / name / "metrics.json").read_text()).values()
    return {f"val/{key}": mean(training[f"val/{key}"] for training in seeds) for key in FIGURES}


@torch.no_grad()
def draw(files: dict[str, Path], picture: Path) -> None:
    """Draws test faces, their reconstructions, and edits of the smile through the codes of the first encoder."""
    images = torch.stack([item["image"] for item in SynthFaces(64, seed=2, size=SHOWN)])
    columns = {"input": images}
    methods = {name: load_inverter(file) for name, file in files.items()}
    columns |= {name.partition("_")[0]: method.invert(images).image for name, method in methods.items()}
    first = next(iter(methods.values()))
    inversion, smile = first.invert(images), load_direction("smile")
    for strength in (-3, 3):
        columns[f"smile {strength:+d}"] = first.edit(inversion, lambda w, s=strength: smile.apply(w, s))
    contact_sheet(columns, cell=128).save(picture)


if __name__ == "__main__":
    main()
