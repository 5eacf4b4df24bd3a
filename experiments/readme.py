"""Write the README's table of methods from the results that lie in this folder.

    python experiments/readme.py            # writes the part of README.md between the two marks
    python experiments/readme.py --check    # exit code 1 where it is not current

Everything comes from ``benchmark/benchmark.json``; tests/test_readme_results.py fails where the README differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from published import NOT_THE_SAME, PUBLISHED

from stylegan_inv.benchmark.method_runs import BY_NAME, DESCENT, TRAINED
from stylegan_inv.benchmark.results import Table, cell, markdown, read_table

HERE = Path(__file__).resolve().parent
README, RESULTS = HERE.parent / "README.md", HERE / "benchmark" / "benchmark.json"
BEGIN, END = "<!-- python experiments/readme.py writes from here -->", "<!-- to here -->"
#: method= -> entrant of the benchmark (None: not in it), and the paper.
METHODS: dict[str, tuple[str | None, str]] = {
    "psp": ("psp_synthfaces", "[pSp](https://arxiv.org/abs/2008.00951), Richardson et al., CVPR 2021"),
    "e4e": ("e4e_synthfaces", "[e4e](https://arxiv.org/abs/2102.02766), Tov et al., SIGGRAPH 2021"),
    "restyle": ("restyle_synthfaces", "[ReStyle](https://arxiv.org/abs/2104.02699), Alaluf et al., ICCV 2021"),
    "restyle_e4e": ("restyle_e4e_synthfaces", "ReStyle over e4e"),
    "interestyle": (
        "interestyle_synthfaces",
        "[IntereStyle](https://arxiv.org/abs/2209.10811), Moon and Park, ECCV 2022; `interestyle_released` is what its "
        "code runs, `interestyle_dual` a variant with a predicted mask that is in no paper",
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
        "[StyleGAN2](https://arxiv.org/abs/1912.04958), Karras et al., CVPR 2020: trains the generator itself; "
        "`generator.style=adain`, `generator.progressive=true` for its ancestors",
    ),
    "face_network": (None, "the embedded identity, perception and attribute network"),
}
COLUMNS = {
    "clear/mse": "MSE ↓",
    "clear/id": "identity ↑",
    "covered/mse_interest": "MSE beside obstacle ↓",
    "clear/w_distance": "distance to W ↓",
    "edits/wanted": "edit: wanted change ↑",
    "seconds": "CPU s",
}


def main() -> None:
    """Write, or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    before = README.read_text(encoding="utf-8")
    after = renewed(before)
    if options.check:
        sys.exit("README.md: not current; run python experiments/readme.py" if after != before else 0)
    README.write_text(after, encoding="utf-8")


def renewed(readme: str) -> str:
    """The README with its part written anew.

    Raises:
        SystemExit: It has not the two marks.
    """
    before, begin, rest = readme.partition(f"{BEGIN}\n")
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"README.md: has no part between {BEGIN} and {END}")
    return f"{before}{begin}{part()}{end}{after}"


def part() -> str:
    """What stands between the marks."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    table, about = read_table(RESULTS), results["about"]
    words = [claim["verdict"] for claim in results["claims"]]
    count = {word: words.count(word) for word in ("reproduced", "not reproduced", "contradicted")}
    others = [f"{c['paper']}: {c['text']}" for c in results["claims"] if c["verdict"] == "contradicted"]
    faces, seeds = table["psp_synthfaces"]["clear/mse"].faces, table["psp_synthfaces"]["clear/mse"].seeds
    few = next(row["clear/mse"].faces for name, row in table.items() if BY_NAME[name].kind == DESCENT)
    paragraphs = [
        "![The same faces through all methods; below, something covers them](experiments/benchmark/grid.png)",
        markdown(["`method=`", "paper", *COLUMNS.values(), "published: MSE, LPIPS, identity"], rows(table)),
        f"On {faces} held-out SynthFaces, {seeds} training seed{'s' if seeds > 1 else ''} of 16,000 passes each; "
        f"methods that optimise each face on the first {few}. {_sentence(about['figures'])}. An edit is of strength 2, "
        "its change in standard deviations, read by a network that no method has met. For each unit of it the other "
        f"attributes move by {sides(table)}. {NOT_THE_SAME}",
        f"Of {len(words)} claims of the papers {count['reproduced']} are reproduced in this world, "
        f"{count['contradicted']} contradicted and {count['not reproduced']} undecided, each with its interval in the "
        "[benchmark](experiments/benchmark/README.md)" + (f". Contradicted: {'; '.join(others)}." if others else "."),
        "![Distortion, perception and editability against time](experiments/benchmark/tradeoff.png)",
        "    python -m stylegan_inv.benchmark                # all of it from nothing: about 2.5 hours of one core\n"
        "    python -m stylegan_inv.benchmark --quick        # the same in a minute, to see it run",
    ]
    return "\n\n".join(paragraphs) + "\n"


def sides(table: Table) -> str:
    """What else an edit moves for each unit of what is wanted, encoders only."""
    ratio = {n: row["edits/others"].mean / row["edits/wanted"].mean for n, row in table.items()}
    return ", ".join(f"{value:.3f} ({BY_NAME[n].title})" for n, value in ratio.items() if BY_NAME[n].kind == TRAINED)


def rows(table: Table) -> list[list[str]]:
    """One a method."""
    made = []
    for name, (entrant, paper) in METHODS.items():
        row = table.get(entrant or "", {})
        ours = [cell(row.get(key), key == "seconds") for key in COLUMNS]
        p = PUBLISHED.get(entrant or "")
        made.append([f"`{name}`", paper, *ours, f"{p.mse}, {p.lpips}, {p.identity}" if p else "–"])
    return made


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


if __name__ == "__main__":
    main()
