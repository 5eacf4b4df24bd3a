"""Writes the table of README.md from results.json: ``python experiments/dress_rehearsal/table.py``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from pages import write_below  # noqa: E402

#: Columns of the parts of the first training, and of the commands after it.
PARTS = ("loading", "step", "validation")
COMMANDS = ("resume", "invert", "evaluate", "edit", "truncate")
HEADS = ("recipe", *(f"{part}, s" for part in PARTS), "training, GB", *(f"{name}, s; GB" for name in COMMANDS))


def lines(results: dict[str, Any]) -> list[str]:
    """Returns the lines of the table, one for each recipe."""
    found = ["| " + " | ".join(HEADS) + " |", "|---" * len(HEADS) + "|"]
    for recipe, row in results.items():
        seconds, peak = row["seconds"], {name: value / 1e9 for name, value in row["peak_bytes"].items()}
        cells = [f"{seconds[part]:.1f}" for part in PARTS] + [f"{peak['train']:.1f}"]
        cells += [f"{seconds[name]:.0f}; {peak[name]:.1f}" for name in COMMANDS]
        found.append(f"| [{recipe}](../{recipe}/README.md) | {' | '.join(cells)} |")
    return found


def machines(results: dict[str, Any]) -> str:
    """Returns the machines on which the rows were measured, in words."""
    found = {
        f"{m['cores']} CPU cores ({m['architecture']}, {m['memory'] / 1e9:.0f} GB), OMP_NUM_THREADS={m['threads']}, "
        f"torch {m['torch']}"
        for m in (row["machine"] for row in results.values())
    }
    return f"Measured on {'; '.join(sorted(found))}."


if __name__ == "__main__":
    stored = json.loads((HERE / "results.json").read_text(encoding="utf-8"))
    page = HERE / "README.md"
    write_below("## Result", "\n".join([*lines(stored), "", machines(stored)]), page, page)
