"""Runs the comparison of all methods and writes its results into the pages of this folder.

    python experiments/run_inversion.py                                    # trains the methods that are not trained
    python experiments/run_inversion.py --seeds 0 --per-image-faces 6
    python experiments/run_inversion.py --quick --seeds 0 --runs /tmp/runs --pages /tmp/pages     # a test run
    python experiments/run_inversion.py --render                           # stored results again, after changed texts

Other options are passed to ``stylegan_inv.benchmark``. The results are written to ``benchmark/``, the scores of each
method below ``## Result`` of its page, and the tables below ``## Inversion of SynthFaces`` of the folder's page.
Run ``readme.py`` afterwards to update the README.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from pages import command, write_below
from published import NOT_THE_SAME, PUBLISHED

from stylegan_inv.benchmark.quality.compared_methods import BY_NAME, TRAINED
from stylegan_inv.benchmark.quality.comparison_report import FIGURES
from stylegan_inv.benchmark.quality.result_tables import cell, markdown
from stylegan_inv.benchmark.quality.results import Results, load_results

HERE = Path(__file__).resolve().parent
RESULTS = "benchmark"
ROWS = {
    "clear/mse": "MSE, squared units of [-1, 1]",
    "clear/psnr": "PSNR, dB",
    "clear/ssim": "SSIM",
    "clear/perceptual": "embedded perceptual distance (`face_eval`)",
    "clear/id": "identity similarity (`face_eval`)",
    "clear/frechet_embedded": "Fréchet distance of `face_eval`'s features (not FID)",
    "clear/mse_interest": "MSE of the region of interest",
    "covered/mse_interest": "MSE of the visible region of interest, with an obstacle",
    "covered/mse_hidden": "MSE of the hidden region of interest, against the face without the obstacle",
    "clear/w_distance": "distance to W (1 for samples of W)",
    "clear/lec_age": "latent editing consistency (age, 3)",
    "edits/target": "edit of strength 2: change of the target attribute, standard deviations",
    "edits/others": "edit of strength 2: mean change of the other attributes",
    "edits/identity": "edit of strength 2: identity similarity",
    "seconds": "CPU seconds per face",
}
#: Method -> page, where their names differ.
PAGES = {name: f"{name}_synthfaces" for name in ("projector", "pti", "image2stylegan_pp")}
HEADING, COMPARISON = "## Inversion of SynthFaces", "## Comparison with all methods"


def main() -> None:
    """Runs the benchmark and writes the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("outputs/benchmark"), help="folder of the run folders")
    parser.add_argument("--pages", type=Path, default=HERE, help="folder of the pages and figures")
    parser.add_argument("--render", action="store_true", help="only write the stored results again")
    options, rest = parser.parse_known_args()
    folder = options.pages / RESULTS
    if options.render:
        command("benchmark", "render", str(folder))
    else:
        command("benchmark", "methods", "--runs", str(options.runs), "--into", str(folder), *rest)
    results = load_results(folder)
    for name in results.table:
        page = options.pages / PAGES.get(name, name)
        if (HERE / page.name / "README.md").is_file():
            if BY_NAME[name].kind == TRAINED and not options.render:
                copy_training(name, options.runs, page)
            write_page(name, results, page)
    write_comparison(folder, options.pages)


def copy_training(name: str, runs: Path, page: Path) -> None:
    """Copies the metrics of the trainings of a method, and the last panel of the first."""
    page.mkdir(parents=True, exist_ok=True)
    files = sorted(runs.glob(f"seed*/{name}/metrics.json"))
    trainings = {file.parent.parent.name: json.loads(file.read_text()) for file in files}
    (page / "metrics.json").write_text(json.dumps(trainings, indent=2) + "\n")
    shutil.copy(files[0].parent / "panels" / "last.png", page / "panel.png")


def write_page(name: str, results: Results, page: Path) -> None:
    """Writes the scores of a method with the published ones, and the last panel of a trained method."""
    page.mkdir(parents=True, exist_ok=True)
    compared, row, mse = BY_NAME[name], results.table[name], results.table[name]["clear/mse"]
    text = ""
    if compared.kind == TRAINED:
        trainings = json.loads((page / "metrics.json").read_text())
        minutes = ", ".join(f"{training['seconds'] / 60:.0f}" for training in trainings.values())
        text = (
            f"![input, reconstruction, difference](panel.png)\n\nThe trainings (one for each seed) took {minutes} "
            "minutes on one CPU core of a shared machine ([metrics.json](metrics.json)). "
        )
    rows = [[title, cell(row.get(key), key == "seconds")] for key, title in ROWS.items() if key in row]
    if steps := results.refinement.get(name, {}).get("mse"):
        kind = "each refinement step" if compared.kind == TRAINED else "each stage of the optimisation"
        rows.insert(1, [f"MSE after {kind}", ", ".join(f"{e.mean:.4f}" for _, e in steps)])
    text += (
        f"Results on {mse.faces} held-out faces (seed 2), {mse.seeds} training seed{'s' if mse.seeds > 1 else ''}: "
        f"{results.protocol.describe()['figures']}. Protocol and all methods: [benchmark](../{RESULTS}/README.md).\n\n"
    )
    text += markdown(["metric", "value"], rows) + f"\n\n{published(name)}"
    heading = "## Result" if compared.kind == TRAINED else COMPARISON
    write_below(heading, text, page / "README.md", HERE / page.name / "README.md")


def published(name: str) -> str:
    """Returns the published scores of a method, and why they cannot be compared with ours."""
    if name not in PUBLISHED:
        return "No published scores are listed for this method."
    p = PUBLISHED[name]
    time = f", {p.seconds} s per image" if p.seconds else ""
    return (
        f"Published for CelebA-HQ with a generator of FFHQ ({p.source}): MSE {p.mse}, LPIPS {p.lpips}, identity "
        f"{p.identity}{time}. {NOT_THE_SAME}"
    )


def write_comparison(folder: Path, pages: Path) -> None:
    """Writes tables and figures into the page of this folder."""
    text = (folder / "table.md").read_text(encoding="utf-8")
    images = "\n\n".join(f"![{caption}]({RESULTS}/{name})" for name, caption in FIGURES.items())
    write_below(HEADING, f"{text}\n{images}", pages / "README.md", HERE / "README.md")


if __name__ == "__main__":
    main()
