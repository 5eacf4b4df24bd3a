"""The results as tables: Markdown and CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO

import numpy as np

from stylegan_inv.benchmark.quality.claims import REPRODUCED, Verdict
from stylegan_inv.benchmark.quality.compared_methods import BY_NAME
from stylegan_inv.benchmark.quality.method_scores import step_column
from stylegan_inv.benchmark.quality.results import COLUMNS, LATENT_SPACE, RECONSTRUCTION, Results, Table
from stylegan_inv.benchmark.quality.significance import Estimate


def method_rows(table: Table, keys: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Returns headings and cells: one row for each method."""
    heads = ["method", *(COLUMNS[key].head for key in keys), "faces", "seeds"]
    rows = []
    for name, estimates in table.items():
        mse = estimates["clear/mse"]
        cells = [cell(estimates.get(key), key == "seconds") for key in keys]
        rows.append([BY_NAME[name].title, *cells, str(mse.faces), str(mse.seeds)])
    return heads, rows


def verdict_rows(verdicts: Sequence[Verdict]) -> tuple[list[str], list[list[str]]]:
    """Returns headings and cells: one row for each claim."""
    heads = ["paper", "claim", "difference (95 %)", "p", "faces on which it holds", "seeds, faces", "verdict"]
    rows = []
    for verdict in verdicts:
        d = verdict.found
        cells = [
            verdict.claim.paper,
            verdict.claim.text,
            f"{d.mean:+.3g} ({d.low:+.3g} to {d.high:+.3g})",
            f"{verdict.p:.2g}",
            f"{verdict.share:.0%}",
            f"{d.seeds}, {d.faces}",
            verdict.word,
        ]
        rows.append(cells)
    return heads, rows


def results_markdown(results: Results) -> str:
    """Returns tables, verdicts and protocol as Markdown; other verdicts than "reproduced" are bold."""
    parts = [markdown(*method_rows(results.table, keys)) for keys in (RECONSTRUCTION, LATENT_SPACE)]
    heads, rows = verdict_rows(results.verdicts)
    if rows:
        parts.append(
            markdown(heads, [[*row[:-1], row[-1] if row[-1] == REPRODUCED else f"**{row[-1]}**"] for row in rows])
        )
    parts.append("\n".join(f"* {label}: {text}" for label, text in results.protocol.describe().items()))
    return "\n\n".join(parts) + "\n"


def results_csv(results: Results) -> str:
    """Returns one row for each method and column, including the refinement steps."""
    out = StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["method", "column", "mean", "low", "high", "seed_std", "seeds", "faces"])
    for name, estimates in results.table.items():
        curves = results.refinement.get(name, {})
        steps = {step_column(metric, int(x)): e for metric, points in curves.items() for x, e in points}
        for key, e in {**estimates, **steps}.items():
            spread = "" if e.seed_std is None else f"{e.seed_std:.6g}"
            rows.writerow([name, key, *(f"{v:.6g}" for v in (e.mean, e.low, e.high)), spread, e.seeds, e.faces])
    return out.getvalue()


def cell(e: Estimate | None, short: bool = False) -> str:
    """Returns the mean, half the interval, and in brackets the spread over seeds if there are several."""
    if e is None:
        return "–"
    if short:
        return f"{e.mean:.2g}"
    if abs(e.mean) < 1e-6:  # zero except for rounding
        return "0"
    digits = max(0, 2 - int(np.floor(np.log10(abs(e.mean)))))
    spread = "" if e.seed_std is None else f" ({e.seed_std:.{digits}f})"
    half = "" if e.half == 0 else f" ± {e.half:.{digits}f}"
    return f"{e.mean:.{digits}f}{half}{spread}"


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))
