"""Train pSp's translation recipes one after the other and put pictures and figures beside their pages.

    python experiments/run_translation.py                                  # all of them
    python experiments/run_translation.py --only psp_sketch_synthfaces
    python experiments/run_translation.py --steps 3 --into /tmp/check dataset.val_size=16     # does everything run?

Whatever is no option goes to ``stylegan_inv.train``. Each page's part below ``## Result`` is written anew.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from pages import command, hardware, write_below

HERE = Path(__file__).resolve().parent
#: In this order: the last one needs the one before it.
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
#: Where many faces fit one input: pSp's multi-modal synthesis.
MULTIMODAL = ("psp_segmentation_synthfaces", "psp_sketch_synthfaces")
FIGURES = {
    "val/mse": "MSE, squared units of [-1, 1]",
    "val/mse_ratio": "the same as share of the average face's error",
    "val/psnr": "PSNR, dB",
    "val/ssim": "SSIM",
    "val/id": "identity similarity (`face_eval`)",
    "val/perceptual": "embedded perceptual distance (`face_eval`)",
    "val/frechet_embedded": "Fréchet distance of `face_eval`'s features (not FID)",
    "val/precision": "precision",
    "val/recall": "recall",
}


def main() -> None:
    """Train, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=RECIPES, metavar="RECIPE", help="some of them")
    parser.add_argument("--steps", type=int, help="optimiser steps instead of the recipe's")
    parser.add_argument("--runs", type=Path, default=Path("outputs/translation"), help="folder of the run folders")
    parser.add_argument("--into", type=Path, default=HERE, help="folder of the pages, pictures and figures")
    options, overrides = parser.parse_known_args()
    if options.steps is not None:
        overrides = [f"trainer.max_steps={options.steps}", f"trainer.val_check_interval={options.steps}", *overrides]
    for name in (recipe for recipe in RECIPES if recipe in options.only):
        run, page = options.runs / name, options.into / name
        page.mkdir(parents=True, exist_ok=True)
        toon = options.runs / "toon_generator_synthfaces" / "generator.safetensors"
        source = [f"generator.source={toon}"] if name == "psp_toonify_synthfaces" else []
        command("train", f"experiment={name}", f"hydra.run.dir={run}", "logger=csv", *source, *overrides)
        pictures = {"panel.png": "source, reconstruction, target"}
        shutil.copy(run / "panels" / "last.png", page / "panel.png")
        if name == "toon_generator_synthfaces":
            pictures = {"panel.png": "cartoons of random codes, at three truncations"}
            draw_same_codes(toon, page / "same_codes.png")
            pictures["same_codes.png"] = "the same codes in both generators"
        if name in MULTIMODAL:
            draw_variants(run, page / "variants.png")
            pictures["variants.png"] = "input, reconstruction, five variants of its appearance"
        write_result(name, page, json.loads((run / "metrics.json").read_text()), pictures)


def draw_variants(run: Path, picture: Path) -> None:
    """Invert held-out sources of a run, as picture files, with variants."""
    from omegaconf import OmegaConf

    from stylegan_inv.config import instantiate
    from stylegan_inv.data.images.image_files import save_image

    data = instantiate(OmegaConf.load(run / "config.yaml").dataset)
    inputs, output = run / "held_out", run / "variants"
    for number, shown in enumerate(data.panel_batch(6)["shown"]):
        save_image(shown, inputs / f"{number}.png")
    command("invert", f"run={run}", f"input={inputs}", f"output={output}", "overwrite=true", "variants=5")
    shutil.copy(output / "contact_sheet.png", picture)


def draw_same_codes(toon: Path, picture: Path) -> None:
    """The embedded generator and the cartoon generator, side by side."""
    import torch

    from stylegan_inv import load_generator
    from stylegan_inv.visualization.contact_sheet import contact_sheet

    faces, cartoons = load_generator("synthfaces64"), load_generator(str(toon))
    z = torch.randn(8, faces.z_dim, generator=torch.Generator().manual_seed(0))
    contact_sheet({"faces": faces(z, psi=0.8), "cartoons": cartoons(z, psi=0.8)}).save(picture)


def write_result(name: str, page: Path, metrics: dict[str, float], pictures: dict[str, str]) -> None:
    """Replace what stands below ``## Result``; the figures also go to ``metrics.json``."""
    (page / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    lines = [f"![{alt}]({file})\n" for file, alt in pictures.items()]
    lines.append(f"On held-out faces (seed 1); {metrics['seconds']:.0f} seconds on {hardware()}, one run")
    lines.append("([metrics.json](metrics.json)):\n\n| | |\n|---|---|")
    lines += [f"| {title} | {metrics[key]:.3g} |" for key, title in FIGURES.items() if key in metrics]
    write_below("## Result", "\n".join(lines), page / "README.md", HERE / name / "README.md")


if __name__ == "__main__":
    main()
