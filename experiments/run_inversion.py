"""Run the benchmark of all methods and put its results into this folder's pages.

    python experiments/run_inversion.py                                    # trains what has not been trained
    python experiments/run_inversion.py --seeds 0 --descent-faces 6
    python experiments/run_inversion.py --quick --seeds 0 --runs /tmp/runs --pages /tmp/pages     # does everything run?

Whatever is no option goes to ``stylegan_inv.benchmark``. Its results go to ``benchmark/``, each method's figures below
``## Result`` of its page, the tables below ``## Inversion of SynthFaces`` of the folder's page; then the README's part
is written by ``readme.py``.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from pages import command, write_below
from published import NOT_THE_SAME, PUBLISHED

from stylegan_inv.benchmark.comparison_report import FIGURES
from stylegan_inv.benchmark.method_runs import BY_NAME, TRAINED
from stylegan_inv.benchmark.results import cell, markdown, read_table

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
    "covered/mse_interest": "the same when something covers the face",
    "covered/mse_hidden": "MSE of what is hidden, against the face without the obstacle",
    "clear/w_distance": "distance to W (1: a fresh code of W)",
    "clear/lec_age": "editing consistency (age, 3)",
    "edits/wanted": "edit of strength 2: wanted change, standard deviations",
    "edits/others": "edit of strength 2: mean change of other attributes",
    "edits/identity": "edit of strength 2: identity kept",
    "seconds": "CPU seconds a face",
}
#: Entrant -> page, where they have different names.
PAGES = {name: f"{name}_synthfaces" for name in ("projector", "pti", "image2stylegan_pp")}
HEADING, ON_FACES = "## Inversion of SynthFaces", "## Among all methods"


def main() -> None:
    """Benchmark, then the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("outputs/benchmark"), help="folder of the run folders")
    parser.add_argument("--pages", type=Path, default=HERE, help="folder of the pages, pictures and figures")
    options, rest = parser.parse_known_args()
    results = options.pages / RESULTS
    command("benchmark", "methods", "--runs", str(options.runs), "--into", str(results), *rest)
    about = json.loads((results / "benchmark.json").read_text())["about"]
    table = read_table(results / "benchmark.json")
    for name, row in table.items():
        page = PAGES.get(name, name)
        if (HERE / page / "README.md").is_file():
            write_page(name, row, about, options.runs, options.pages / page)
    write_comparison(results, options.pages)


def write_page(name: str, row: dict, about: dict[str, str], runs: Path, page: Path) -> None:
    """Figures of one method, beside the published ones; of trained ones a picture too."""
    page.mkdir(parents=True, exist_ok=True)
    entrant, first = BY_NAME[name], row["clear/mse"]
    text = ""
    if entrant.kind == TRAINED:
        done = sorted(runs.glob(f"seed*/{name}/metrics.json"))
        trainings = {file.parent.parent.name: json.loads(file.read_text()) for file in done}
        (page / "metrics.json").write_text(json.dumps(trainings, indent=2) + "\n")
        shutil.copy(done[0].parent / "panels" / "last.png", page / "panel.png")
        minutes = ", ".join(f"{training['seconds'] / 60:.0f}" for training in trainings.values())
        text = (
            f"![input, reconstruction, difference](panel.png)\n\nOne training a seed took {minutes} minutes on one CPU "
            "core that it shared ([metrics.json](metrics.json)). "
        )
    steps = [key for key in row if key.startswith("clear/mse_step")]
    rows = [[title, cell(row.get(key), key == "seconds")] for key, title in ROWS.items() if key in row]
    if steps:
        kind = "each refinement" if entrant.kind == TRAINED else "each part of the way"
        rows.insert(1, [f"MSE after {kind}", ", ".join(f"{row[key].mean:.4f}" for key in steps)])
    text += (
        f"On {first.faces} held-out faces (seed 2), {first.seeds} training seed{'s' if first.seeds > 1 else ''}: "
        f"{about['figures']}. Protocol and all methods: [benchmark](../{RESULTS}/README.md).\n\n"
    )
    text += markdown(["", ""], rows) + f"\n\n{published(name)}"
    heading = "## Result" if entrant.kind == TRAINED else ON_FACES
    write_below(heading, text, page / "README.md", HERE / page.name / "README.md")


def published(name: str) -> str:
    """The figures of others, and why they are no yardstick."""
    if name not in PUBLISHED:
        return f"No published figures were at hand for this method, and none is given from memory. {NOT_THE_SAME}"
    p = PUBLISHED[name]
    time = f", {p.seconds} s an image" if p.seconds else ""
    return (
        f"Published for CelebA-HQ, by a generator of FFHQ ({p.source}): MSE {p.mse}, LPIPS {p.lpips}, identity "
        f"{p.identity}{time}. {NOT_THE_SAME}"
    )


def write_comparison(results: Path, pages: Path) -> None:
    """The tables and figures, in the folder's page."""
    text = (results / "table.md").read_text(encoding="utf-8")
    pictures = "\n\n".join(f"![{caption}]({RESULTS}/{name})" for name, caption in FIGURES.items())
    write_below(HEADING, f"{text}\n{pictures}", pages / "README.md", HERE / "README.md")


if __name__ == "__main__":
    main()
