"""Results of all entrants and seeds side by side: as arrays, and as the table."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_inv.benchmark.claims import Verdict
from stylegan_inv.benchmark.editability import MEASURES, STRENGTHS, attributes
from stylegan_inv.benchmark.method_runs import BY_NAME
from stylegan_inv.benchmark.method_scores import Scored
from stylegan_inv.benchmark.significance import Estimate, estimate

#: Of the table and the claims.
STRENGTH = 2.0
Table = dict[str, dict[str, Estimate]]


@dataclass(frozen=True)
class Column:
    """Of the table: its title, and whether higher is better (None where neither is)."""

    title: str
    higher: bool | None = False


COLUMNS = {
    "clear/mse": Column("MSE"),
    "clear/perceptual": Column("perceptual"),
    "clear/id": Column("identity", True),
    "clear/frechet_embedded": Column("Fréchet"),
    "covered/mse_interest": Column("MSE beside obstacle"),
    "covered/mse_hidden": Column("MSE behind obstacle"),
    "clear/w_distance": Column("distance to W"),
    "clear/w_spread": Column("spread of w+"),
    "clear/lec_age": Column("editing consistency"),
    "edits/wanted": Column("edit: wanted", True),
    "edits/others": Column("edit: others"),
    "edits/identity": Column("edit: identity", True),
    "seconds": Column("CPU s"),
}
#: The table in two parts, each narrow enough for a page.
_SEEN = ("clear/mse", "clear/perceptual", "clear/id", "clear/frechet_embedded")
PICTURES = (*_SEEN, "covered/mse_interest", "covered/mse_hidden", "seconds")
CODES = tuple(key for key in COLUMNS if key not in PICTURES)
#: Known beside the table, for the pages of single methods.
_FURTHER = ("clear/psnr", "clear/ssim", "clear/mse_interest")


def stack(scored: Mapping[str, Sequence[Scored]]) -> dict[str, dict[str, np.ndarray]]:
    """Entrant -> column -> (seeds, ...); the edits at ``STRENGTH`` get short names, single numbers a row of faces."""
    stacked: dict[str, dict[str, np.ndarray]] = {}
    for name, seeds in scored.items():
        columns = {key: np.stack([one[key] for one in seeds]) for key in seeds[0]}
        columns = {key: value[:, None] if value.ndim == 1 else value for key, value in columns.items()}
        for measure in MEASURES:
            columns[f"edits/{measure}"] = columns[f"edits/all/{measure}"][:, STRENGTHS.index(STRENGTH)]
        stacked[name] = columns
    return stacked


def tabulate(values: Mapping[str, Mapping[str, np.ndarray]]) -> Table:
    """Entrant -> column -> estimate, where there is one."""
    table: Table = {}
    for name, columns in values.items():
        steps = [key for key in columns if key.startswith("clear/mse_step")]
        keys = [key for key in (*COLUMNS, *_FURTHER, *steps) if key in columns and not np.isnan(columns[key]).all()]
        table[name] = {key: estimate(columns[key]) for key in keys}
    return table


def table_rows(table: Table, keys: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells: a row for each entrant that has one of the columns."""
    heads = ["method", *(_head(COLUMNS[key]) for key in keys), "faces", "seeds"]
    rows = []
    for name, estimates in table.items():
        first = estimates["clear/mse"]
        cells = [cell(estimates.get(key), key == "seconds") for key in keys]
        rows.append([BY_NAME[name].title, *cells, str(first.faces), str(first.seeds)])
    return heads, rows


def table_csv(table: Table) -> str:
    """One row an entrant and column."""
    out = StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["entrant", "column", "mean", "low", "high", "seed_std", "seeds", "faces"])
    for name, estimates in table.items():
        for key, e in estimates.items():
            spread = "" if e.seed_std is None else f"{e.seed_std:.6g}"
            rows.writerow([name, key, *(f"{v:.6g}" for v in (e.mean, e.low, e.high)), spread, e.seeds, e.faces])
    return out.getvalue()


def edits_csv(values: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """The trade-off: one row an entrant, edit and strength."""
    out = StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["entrant", "edit", "strength", *(f"{m}{end}" for m in MEASURES for end in ("", "_low", "_high"))])
    for name, columns in values.items():
        for edit in attributes(columns):
            for row, strength in enumerate(STRENGTHS):
                found = [estimate(columns[f"edits/{edit}/{measure}"][:, row]) for measure in MEASURES]
                cells = [f"{v:.5g}" for e in found for v in (e.mean, e.low, e.high)]
                rows.writerow([name, edit, strength, *cells])
    return out.getvalue()


def verdict_rows(verdicts: Sequence[Verdict]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells."""
    heads = ["paper", "claim", "difference (95 %)", "p", "faces on which it holds", "seeds, faces", "in this world"]
    rows = []
    for v in verdicts:
        d = v.found
        rows.append(
            [
                v.claim.paper,
                v.claim.text,
                f"{d.mean:+.3g} ({d.low:+.3g} to {d.high:+.3g})",
                f"{v.p:.2g}",
                f"{v.share:.0%}",
                f"{d.seeds}, {d.faces}",
                v.word if v.word == "reproduced" else f"**{v.word}**",
            ]
        )
    return heads, rows


def as_json(table: Table, verdicts: Sequence[Verdict], about: Mapping[str, Any]) -> str:
    """Everything but the values of single faces."""
    content = {
        "about": dict(about),
        "table": {name: {key: asdict(e) for key, e in row.items()} for name, row in table.items()},
        "claims": [
            {**asdict(v.claim), "difference": asdict(v.found), "p_holm": v.p, "verdict": v.word} for v in verdicts
        ],
    }
    return json.dumps(content, indent=1) + "\n"


def read_table(file: Path) -> Table:
    """The table of what `as_json` has written."""
    content = json.loads(file.read_text(encoding="utf-8"))["table"]
    return {name: {key: Estimate(**e) for key, e in row.items()} for name, row in content.items()}


def cell(e: Estimate | None, short: bool = False) -> str:
    """Mean and half the interval; the spread over seeds in brackets where there is one."""
    if e is None:
        return "–"
    if short:
        return f"{e.mean:.2g}"
    if abs(e.mean) < 1e-6:  # rows that are equal but for rounding
        return "0"
    digits = max(0, 2 - int(np.floor(np.log10(abs(e.mean)))))
    spread = "" if e.seed_std is None else f" ({e.seed_std:.{digits}f})"
    half = "" if e.half == 0 else f" ± {e.half:.{digits}f}"
    return f"{e.mean:.{digits}f}{half}{spread}"


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))


def _head(column: Column) -> str:
    return column.title if column.higher is None else f"{column.title} {'↑' if column.higher else '↓'}"
