"""Collects the scores of `train_by.py`: a table, ``results.json``, and the curves over the images.

python experiments/stylegan2_comparison/compare.py outputs/ours* outputs/nvidia* outputs/rosinality*
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NAMES = {"stylegan_inv": "ours", "stylegan2-ada-pytorch": "NVIDIA", "stylegan2-pytorch": "rosinality"}


def load(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """Returns the rows of all trainings, each with its implementation and seed."""
    rows = []
    for folder in folders:
        result = json.loads((folder / "scores.json").read_text())
        by = NAMES.get(result["by"], result["by"])
        whole = {name: result[name] for name in ("seed", "processor_seconds", "peak_mb")}
        rows += [{"by": by, **whole, **row} for row in result["rows"]]
    return rows


def spread(values: list[float], digits: int = 3) -> str:
    """Returns the mean and the range of the seeds."""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the Markdown table of the last scores of each implementation."""
    lines = [
        "| trainer | seeds | images | Fréchet distance ↓ | precision ↑ | recall ↑ | CPU s ↓ | peak MB ↓ |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for by in dict.fromkeys(row["by"] for row in rows):
        own = [row for row in rows if row["by"] == by]
        last = max(row["images"] for row in own)
        ends = [row for row in own if row["images"] == last]
        columns = [spread([row[name] for row in ends]) for name in ("frechet", "precision", "recall")]
        seconds = [row["processor_seconds"] for row in ends if row["processor_seconds"] is not None]
        speed = spread(seconds, 0) if seconds else "–"
        peak = max(row["peak_mb"] for row in ends)
        lines.append(f"| {by} | {len(ends)} | {last:,} | {' | '.join(columns)} | {speed} | {peak:,} |")
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws the Fréchet distance of each training over its images."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(5.5, 3.5))
    for index, by in enumerate(dict.fromkeys(row["by"] for row in rows)):
        for seed in sorted({row["seed"] for row in rows if row["by"] == by}):
            curve = [row for row in rows if (row["by"], row["seed"]) == (by, seed)]
            label = by if seed == min(row["seed"] for row in rows if row["by"] == by) else None
            axis.plot([r["images"] for r in curve], [r["frechet"] for r in curve], f"C{index}o-", ms=3, label=label)
    axis.set(xlabel="images", ylabel="Fréchet distance", yscale="log")
    axis.grid(alpha=0.3, which="both")
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Prints the table and writes results and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    rows = load(options.folders)
    (options.output / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    draw(rows, options.output / "curves.png")
    print(table(rows))


if __name__ == "__main__":
    main()
