"""The estimates of all edits as CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path

from stylegan_inv.benchmark.quality.editability import MEASURES, STRENGTHS
from stylegan_inv.benchmark.quality.significance import Estimate
from stylegan_inv.utils.regular_files import read_text

#: Size limit of the file.
_MOST_BYTES = 1 << 26
#: Method -> attribute -> measure -> estimates by strength.
EditCurves = Mapping[str, Mapping[str, Mapping[str, Sequence[Estimate]]]]


def edits_csv(edits: EditCurves) -> str:
    """Returns one row for each method, edit and strength, with mean, low and high of each measure."""
    out = StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["method", "edit", "strength", *(f"{m}{end}" for m in MEASURES for end in ("", "_low", "_high"))])
    for name, attributes in edits.items():
        for attribute, measures in attributes.items():
            for row, strength in enumerate(STRENGTHS):
                found = [measures[measure][row] for measure in MEASURES]
                cells = [f"{v:.5g}" for e in found for v in (e.mean, e.low, e.high)]
                rows.writerow([name, attribute, strength, *cells])
    return out.getvalue()


def read_edits(file: Path) -> EditCurves:
    """Reads what `edits_csv` has written; the numbers of seeds and faces are not stored."""
    edits: dict[str, dict[str, dict[str, list[Estimate]]]] = {}
    for row in csv.DictReader(StringIO(read_text(file, _MOST_BYTES), newline="")):
        measures = edits.setdefault(row["method"], {}).setdefault(row["edit"], {})
        for measure in MEASURES:
            mean, low, high = (float(row[f"{measure}{end}"]) for end in ("", "_low", "_high"))
            measures.setdefault(measure, []).append(Estimate(mean, low, high))
    return edits
