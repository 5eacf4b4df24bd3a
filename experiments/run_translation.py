"""Trains the image-to-image translation recipes of pSp and writes images and metrics into their pages.

    python experiments/run_translation.py                                  # all recipes
    python experiments/run_translation.py --only psp_sketch_synthfaces
    python experiments/run_translation.py --steps 3 --into /tmp/check dataset.val_size=16     # a test run

Other arguments are passed to ``stylegan_inv.train``. The part of each page below ``## Result`` is replaced.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from pages import command, hardware, write_below

HERE = Path(__file__).resolve().parent
#: In this order: the last recipe uses the generator of the one before.
RECIPES = (
    "psp_segmentation_synthfaces",
    "psp_sketch_synthfaces",
    "psp_super_resolution_synthfaces",
    "psp_inpainting_synthfaces",
    "psp_colorization_synthfaces",
    "psp_frontalization_synthfaces",
    "toon_generator_synthfaces",
    "psp_toonify_synthfaces",
)
#: Recipes with multi-modal synthesis (pSp, section 4): many faces match one input.
MULTIMODAL = ("psp_segmentation_synthfaces", "psp_sketch_synthfaces")
FIGURES = {
    "val/mse": "MSE, squared units of [-1, 1]",
    "val/mse_ratio": "MSE relative to that of the average face",
    "val/psnr": "PSNR, dB",
    "val/ssim": "SSIM",
    "val/id": "identity similarity (`face_eval`)",
    "val/perceptual": "embedded perceptual distance (`face_eval`)",
    "val/frechet_embedded": "Fréchet distance of `face_eval`'s features (not FID)",
    "val/precision": "precision",
    "val/recall": "recall",
}


def main() -> None:
    """Trains the recipes and writes the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=RECIPES, default=RECIPES, metavar="RECIPE", help="train these recipes only"
    )
    parser.add_argument("--steps", type=int, help="number of optimiser steps; default: that of the recipe")
    parser.add_argument("--runs", type=Path, default=Path("outputs/translation"), help="folder of the run folders")
    parser.add_argument("--into", type=Path, default=HERE, help="folder of the pages, images and metrics")
    options, overrides = parser.parse_known_args()
    if options.steps is not None:
        overrides = [f"trainer.max_steps={options.steps}", f"trainer.val_check_interval={options.steps}", *overrides]
    for name in (recipe for recipe in RECIPES if recipe in options.only):
        run, page = options.runs / name, options.into / name
        page.mkdir(parents=True, exist_ok=True)
        toon = options.runs / "toon_generator_synthfaces" / "generator.safetensors"
        source = [f"generator.source={toon}"] if name == "psp_toonify_synthfaces" else []
        command("train", f"experiment={name}", f"hydra.run.dir={run}", "logger=csv", *source, *overrides)
        images = {"panel.png": "source, reconstruction, target"}
        shutil.copy(run / "panels" / "last.png", page / "panel.png")
        if name == "toon_generator_synthfaces":
            images = {"panel.png": "cartoons of random codes with three truncations"}
            draw_same_codes(toon, page / "same_codes.png")
            images["same_codes.png"] = "the same codes in both generators"
        if name in MULTIMODAL:
            draw_variants(run, page / "variants.png")
            images["variants.png"] = "input, reconstruction, five variants of the appearance"
        write_result(name, page, json.loads((run / "metrics.json").read_text()), images)


def draw_variants(run: Path, file: Path) -> None:
    """Inverts held-out source images of a run with variants."""
    from stylegan_inv.config import instantiate
    from stylegan_inv.data.images.image_files import save_image
    from stylegan_inv.runtime.run_folder import RunFolder

    data = instantiate(RunFolder(run).dataset_config())
    inputs, output = run / "held_out", run / "variants"
    for number, shown in enumerate(data.panel_batch(6)["shown"]):
        save_image(shown, inputs / f"{number}.png")
    command("invert", f"run={run}", f"input={inputs}", f"output={output}", "overwrite=true", "variants=5")
    shutil.copy(output / "contact_sheet.png", file)


def draw_same_codes(toon: Path, file: Path) -> None:
    """Draws the same codes with the embedded generator and with the cartoon generator."""
    import torch

    from stylegan_inv import load_generator
    from stylegan_inv.visualization.contact_sheet import contact_sheet

    faces, cartoons = load_generator("synthfaces64"), load_generator(str(toon))
    z = torch.randn(8, faces.z_dim, generator=torch.Generator().manual_seed(0))
    contact_sheet({"faces": faces(z, psi=0.8), "cartoons": cartoons(z, psi=0.8)}).save(file)


def write_result(name: str, page: Path, metrics: dict[str, float], images: dict[str, str]) -> None:
    """Replaces the part of the page below ``## Result`` and writes ``metrics.json``."""
    (page / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    lines = [f"![{alt}]({file})\n" for file, alt in images.items()]
    lines.append(f"On held-out faces (seed 1); {metrics['seconds']:.0f} seconds on {hardware()}, one run")
    lines.append("([metrics.json](metrics.json)):\n\n| metric | value |\n|---|---|")
    lines += [f"| {title} | {metrics[key]:.3g} |" for key, title in FIGURES.items() if key in metrics]
    write_below("## Result", "\n".join(lines), page / "README.md", HERE / name / "README.md")


if __name__ == "__main__":
    main()
