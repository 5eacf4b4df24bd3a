"""Results of the comparison: what the tables, the figures and the HTML page show.

They are written to ``benchmark.json`` and ``edits.csv`` and can be read again, so that the pages can be rendered
without scoring the methods again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_inv.benchmark.quality.claims import CLAIMS, Claim, Verdict, judge
from stylegan_inv.benchmark.quality.compared_methods import BY_NAME, PER_IMAGE
from stylegan_inv.benchmark.quality.edits_table import EditCurves, edits_csv, read_edits
from stylegan_inv.benchmark.quality.method_scores import MethodScores, stack_seeds
from stylegan_inv.benchmark.quality.protocol_text import ComparisonProtocol
from stylegan_inv.benchmark.quality.significance import Difference, Estimate, estimate
from stylegan_inv.utils.regular_files import read_text

#: Method -> column -> estimate.
Table = dict[str, dict[str, Estimate]]
#: Method -> metric -> points (refinement step, or covered fraction of the face; estimate).
Curves = dict[str, dict[str, list[tuple[float, Estimate]]]]

JSON, EDITS = "benchmark.json", "edits.csv"
#: Size limit of the file.
_MOST_BYTES = 1 << 26
_BIN_EDGES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.6)
#: Fewest faces of a bin, and of all bins.
_BIN_FACES, _ALL_BINS_FACES = 5, 40
_REFINED = ("mse", "mse_interest")


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        title: Heading.
        higher: Whether higher values are better; None where neither is.
    """

    title: str
    higher: bool | None = False

    @property
    def head(self) -> str:
        """Heading with an arrow towards better values."""
        return self.title if self.higher is None else f"{self.title} {'↑' if self.higher else '↓'}"


COLUMNS = {
    "clear/mse": Column("MSE"),
    "clear/perceptual": Column("perceptual distance"),
    "clear/id": Column("identity", True),
    "clear/frechet_embedded": Column("Fréchet distance"),
    "covered/mse_interest": Column("MSE, visible region"),
    "covered/mse_hidden": Column("MSE, hidden region"),
    "clear/w_distance": Column("distance to W"),
    "clear/w_spread": Column("variation of w+"),
    "clear/nscd": Column("style distance"),
    "clear/lec_age": Column("editing consistency"),
    "edits/target": Column("edit: target", True),
    "edits/others": Column("edit: others"),
    "edits/identity": Column("edit: identity", True),
    "edits/frechet": Column("edit: Fréchet distance"),
    "seconds": Column("CPU s"),
}
#: The columns in two tables, each narrow enough for a page.
RECONSTRUCTION = (
    "clear/mse",
    "clear/perceptual",
    "clear/id",
    "clear/frechet_embedded",
    "covered/mse_interest",
    "covered/mse_hidden",
    "seconds",
)
LATENT_SPACE = tuple(key for key in COLUMNS if key not in RECONSTRUCTION)
#: Further columns for the pages of single methods.
_FURTHER = ("clear/psnr", "clear/ssim", "clear/mse_interest")


@dataclass(frozen=True)
class Results:
    """Results of all methods.

    Attributes:
        protocol: How the methods were compared.
        table: Method -> column -> estimate.
        verdicts: Verdicts on the claims of the papers.
        edits: Method -> attribute -> measure -> estimates by strength.
        refinement: Method -> metric -> estimates by refinement step.
        obstacles: Method -> metric -> estimates by the covered fraction of the face.
    """

    protocol: ComparisonProtocol
    table: Table
    verdicts: Sequence[Verdict]
    edits: EditCurves
    refinement: Curves
    obstacles: Curves


def compute_results(scores: Mapping[str, Sequence[MethodScores]], protocol: ComparisonProtocol) -> Results:
    """Computes estimates, verdicts and curves from the scores of each method and seed."""
    stacked = {name: stack_seeds(seeds) for name, seeds in scores.items()}
    columns = {name: found.all_columns() for name, found in stacked.items()}
    return Results(
        protocol,
        tabulate(columns),
        judge(columns),
        {name: _edit_curves(found) for name, found in stacked.items()},
        {name: curves for name, found in stacked.items() if (curves := _refinement_curves(found))},
        {name: curves for name, found in stacked.items() if (curves := _obstacle_curves(name, found.columns))},
    )


def tabulate(values: Mapping[str, Mapping[str, np.ndarray]]) -> Table:
    """Returns the estimate of each method and column that has values."""
    table: Table = {}
    for name, columns in values.items():
        keys = [key for key in (*COLUMNS, *_FURTHER) if key in columns and not np.isnan(columns[key]).all()]
        table[name] = {key: estimate(columns[key]) for key in keys}
    return table


def _edit_curves(scores: MethodScores) -> dict[str, dict[str, list[Estimate]]]:
    return {
        attribute: {
            measure: [estimate(values[:, row]) for row in range(values.shape[1])] for measure, values in edit.items()
        }
        for attribute, edit in scores.edits.items()
    }


def _refinement_curves(scores: MethodScores) -> dict[str, list[tuple[float, Estimate]]]:
    steps = {metric: sorted(scores.steps[metric].items()) for metric in _REFINED if metric in scores.steps}
    return {metric: [(float(step), estimate(values)) for step, values in found] for metric, found in steps.items()}


def _obstacle_curves(name: str, columns: Mapping[str, np.ndarray]) -> dict[str, list[tuple[float, Estimate]]]:
    if BY_NAME[name].kind == PER_IMAGE and columns["covered/fraction"].shape[1] < _ALL_BINS_FACES:
        return {}
    fraction = columns["covered/fraction"][0]
    curves: dict[str, list[tuple[float, Estimate]]] = {
        "mse_interest": [(0.0, estimate(columns["clear/mse_interest"]))],
        "mse_hidden": [],
    }
    for low, high in zip(_BIN_EDGES[:-1], _BIN_EDGES[1:], strict=True):
        inside = (fraction > low) & (fraction <= high)
        if inside.sum() < _BIN_FACES:
            continue
        for metric, curve in curves.items():
            binned = estimate(columns[f"covered/{metric}"][:, inside])
            if binned.faces:
                curve.append((float(fraction[inside].mean()), binned))
    return {metric: curve for metric, curve in curves.items() if curve}


def serialise(results: Results) -> dict[str, str]:
    """Returns the contents of ``benchmark.json`` and ``edits.csv``."""
    content = {
        "about": results.protocol.describe(),
        "protocol": asdict(results.protocol),
        "table": {name: {key: asdict(e) for key, e in row.items()} for name, row in results.table.items()},
        "claims": [
            {**asdict(v.claim), "difference": asdict(v.found), "p_holm": v.p, "verdict": v.word}
            for v in results.verdicts
        ],
        "refinement": _curves_to_json(results.refinement),
        "obstacles": _curves_to_json(results.obstacles),
    }
    return {JSON: json.dumps(content, indent=1) + "\n", EDITS: edits_csv(results.edits)}


def load_results(folder: Path) -> Results:
    """Reads ``benchmark.json`` and ``edits.csv`` of a folder; texts come from the code, so that they can be revised."""
    content = json.loads(read_text(folder / JSON, _MOST_BYTES))
    return Results(
        ComparisonProtocol(**content["protocol"]),
        read_table(folder / JSON),
        [_verdict(entry) for entry in content["claims"]],
        read_edits(folder / EDITS),
        _curves_from_json(content["refinement"]),
        _curves_from_json(content["obstacles"]),
    )


def read_table(file: Path) -> Table:
    """Reads the table of ``benchmark.json``."""
    content = json.loads(read_text(file, _MOST_BYTES))["table"]
    return {name: {key: Estimate(**e) for key, e in row.items()} for name, row in content.items()}


def _verdict(entry: Mapping[str, Any]) -> Verdict:
    stored = Claim(**{key: entry[key] for key in Claim.__dataclass_fields__})
    texts = {replace(claim, text=""): claim.text for claim in CLAIMS}
    claim = replace(stored, text=texts.get(replace(stored, text=""), stored.text))
    return Verdict(claim, Difference(**entry["difference"]), entry["p_holm"])


def _curves_to_json(curves: Curves) -> dict[str, Any]:
    return {
        name: {metric: [{"x": x, **asdict(e)} for x, e in points] for metric, points in found.items()}
        for name, found in curves.items()
    }


def _curves_from_json(content: Mapping[str, Any]) -> Curves:
    return {
        name: {
            metric: [(point["x"], Estimate(**{key: v for key, v in point.items() if key != "x"})) for point in points]
            for metric, points in found.items()
        }
        for name, found in content.items()
    }
