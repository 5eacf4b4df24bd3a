"""Writes the README's table of methods from the results in this folder.

    python experiments/readme.py            # writes the part of README.md between the two markers
    python experiments/readme.py --check    # exit code 1 if it is not current

All figures come from ``benchmark/benchmark.json``; tests/test_readme_results.py fails if the README differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from stylegan_inv.benchmark.quality.compared_methods import BY_NAME, PER_IMAGE
from stylegan_inv.benchmark.quality.result_tables import cell, markdown
from stylegan_inv.benchmark.quality.results import Table, read_table

HERE = Path(__file__).resolve().parent
README, RESULTS = HERE.parent / "README.md", HERE / "benchmark" / "benchmark.json"
BEGIN, END = "<!-- python experiments/readme.py writes from here -->", "<!-- to here -->"
#: Method -> name in the benchmark (None: not compared there), and the paper.
METHODS: dict[str, tuple[str | None, str]] = {
    "psp": ("psp_synthfaces", "[pSp](https://arxiv.org/abs/2008.00951), Richardson et al., CVPR 2021"),
    "e4e": ("e4e_synthfaces", "[e4e](https://arxiv.org/abs/2102.02766), Tov et al., SIGGRAPH 2021"),
    "restyle": ("restyle_synthfaces", "[ReStyle](https://arxiv.org/abs/2104.02699), Alaluf et al., ICCV 2021"),
    "restyle_e4e": ("restyle_e4e_synthfaces", "ReStyle over e4e"),
    "interestyle": (
        "interestyle_synthfaces",
        "[IntereStyle](https://arxiv.org/abs/2209.10811), Moon and Park, ECCV 2022; reconstructs the "
        "region of interest alone; `interestyle_released` follows the released code",
    ),
    "projector": ("projector", "StyleGAN2's projection into W, Karras et al., CVPR 2020"),
    "image2stylegan": ("image2stylegan", "[Image2StyleGAN](https://arxiv.org/abs/1904.03189), Abdal et al., ICCV 2019"),
    "image2stylegan_pp": (
        "image2stylegan_pp",
        "[Image2StyleGAN++](https://arxiv.org/abs/1911.11544), Abdal et al., CVPR 2020, with its "
        "[applications](experiments/image2stylegan_pp_synthfaces/README.md)",
    ),
    "pti": ("pti", "[PTI](https://arxiv.org/abs/2106.05744), Roich et al., TOG 2022"),
    "stylegan2": (
        None,
        "[StyleGAN2](https://arxiv.org/abs/1912.04958), Karras et al., CVPR 2020: trains the generator",
    ),
    "face_network": (None, "trains the embedded face networks"),
}
COLUMNS = {"clear/mse": "MSE ↓", "clear/id": "identity ↑", "seconds": "CPU s ↓"}


def main() -> None:
    """Writes the part, or compares it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only compare")
    options = parser.parse_args()
    before = README.read_text(encoding="utf-8")
    after = renewed(before)
    if options.check:
        sys.exit("README.md: not current; run python experiments/readme.py" if after != before else 0)
    README.write_text(after, encoding="utf-8")


def renewed(readme: str) -> str:
    """Returns the README with its part replaced.

    Raises:
        SystemExit: The two markers are missing.
    """
    before, begin, rest = readme.partition(f"{BEGIN}\n")
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"README.md: has no part between {BEGIN} and {END}")
    return f"{before}{begin}{part()}{end}{after}"


def part() -> str:
    """Returns the text between the markers."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    table = read_table(RESULTS)
    verdicts = [claim["verdict"] for claim in results["claims"]]
    trained = table["psp_synthfaces"]["clear/mse"]
    optimized = next(row["clear/mse"] for name, row in table.items() if BY_NAME[name].kind == PER_IMAGE)
    paragraphs = [
        markdown(["`method=`", "paper", *COLUMNS.values()], rows(table)),
        f"Mean over {trained.faces} held-out SynthFaces and {trained.seeds} training seeds (methods that optimise each "
        f"image: {optimized.faces} faces) ± half the 95 % confidence interval, in brackets the standard deviation over "
        "the seeds. Identity is the cosine similarity by a network that no loss uses; CPU s is processor time for each "
        "image. Editability, masked errors, perceptual distances and published results are in "
        "[experiments](experiments/README.md).",
        f"Of {len(verdicts)} claims of the papers, {verdicts.count('reproduced')} are reproduced on SynthFaces, "
        f"{verdicts.count('contradicted')} are contradicted and {verdicts.count('not reproduced')} remain undecided, "
        "each with its interval: [benchmark](experiments/benchmark/README.md).",
        "![Distortion, perception and editability against time](experiments/benchmark/tradeoff.png)",
    ]
    return "\n\n".join(paragraphs) + "\n"


def rows(table: Table) -> list[list[str]]:
    """Returns one row for each method."""
    return [
        [f"`{name}`", paper, *(cell(table.get(compared or "", {}).get(key), key == "seconds") for key in COLUMNS)]
        for name, (compared, paper) in METHODS.items()
    ]


if __name__ == "__main__":
    main()
