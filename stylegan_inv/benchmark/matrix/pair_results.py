"""Results of the matrix: estimates and verdicts, their tables, and the figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan_inv.benchmark.matrix.claims_beyond_codes import CLAIMS
from stylegan_inv.benchmark.matrix.pairs import EMBEDDERS, NONE, REFINERS, Pair, pair_of
from stylegan_inv.benchmark.quality.claims import REPRODUCED, Verdict, judge
from stylegan_inv.benchmark.quality.compared_methods import Budget
from stylegan_inv.benchmark.quality.held_out_faces import CLEAR, COVERED, Faces
from stylegan_inv.benchmark.quality.method_scores import STRENGTH, MethodScores, stack_seeds
from stylegan_inv.benchmark.quality.result_tables import cell, markdown, verdict_rows
from stylegan_inv.benchmark.quality.results import COLUMNS, Table, tabulate
from stylegan_inv.benchmark.quality.score_method import EDITED, SHOWN, SHOWN_EDITS
from stylegan_inv.data.images.image_files import from_uint8
from stylegan_inv.errors import UserError
from stylegan_inv.utils.files import atomic_write, check_output
from stylegan_inv.visualization.contact_sheet import contact_sheet

JSON, MARKDOWN, PARETO = "matrix.json", "matrix.md", "pareto.png"
#: Columns of the matrix, one table for each.
SHOWN_COLUMNS = (
    "clear/mse",
    "clear/perceptual",
    "clear/id",
    "clear/frechet_embedded",
    "covered/mse_interest",
    "covered/mse_hidden",
    "clear/nscd",
    "edits/target",
    "edits/others",
    "edits/identity",
    "edits/frechet",
    "seconds",
)
#: Colours of the refiners and markers of the embedders.
_COLOURS = (
    *("black", "tab:blue", "tab:cyan", "tab:purple", "tab:brown", "tab:orange", "tab:green", "tab:olive"),
    *("tab:red", "tab:pink", "tab:gray"),
)
_MARKERS = ("o", "s", "D", "P")


@dataclass(frozen=True)
class MatrixProtocol:
    """How the pairs were compared.

    Attributes:
        seeds: Training seeds.
        faces: Number of held-out faces.
        per_image_faces: Number of faces of pairs that optimise each face.
        edited_faces: Largest number of faces that are edited.
        default_budget: Whether the trainings are those of the recipes.
        torch_version: Version of PyTorch.
        threads: Number of threads.
    """

    seeds: Sequence[int]
    faces: int
    per_image_faces: int
    edited_faces: int
    default_budget: bool
    torch_version: str
    threads: int

    @staticmethod
    def of(budget: Budget, seeds: Sequence[int]) -> MatrixProtocol:
        """Returns the protocol of this process."""
        return MatrixProtocol(
            list(seeds),
            budget.faces,
            min(budget.faces, budget.per_image_faces),
            budget.edited_faces,
            not budget.training,
            torch.__version__,
            torch.get_num_threads(),
        )

    def describe(self) -> dict[str, str]:
        """Returns label -> text."""
        seeds = ", ".join(map(str, self.seeds))
        return {
            "faces": f"{self.faces} held-out faces (seed 2), without and with an obstacle; the first "
            f"{self.per_image_faces} of them where embedder or refiner optimise each face",
            "embedders": "the shipped encoders, and the projector with the settings of its config",
            "trained refiners": f"trained over the shipped e4e by their recipes with seeds {seeds}"
            + ("" if self.default_budget else "; shortened in this run")
            + ". Another embedder replaces e4e in the test alone, which its authors did not do",
            "cells": "mean ± half the 95 % confidence interval (bootstrap over seeds and faces); in brackets the "
            "standard deviation of the seeds' means",
            "columns": "as in the comparison of all methods (../benchmark/README.md)",
            "edits": f"strength {STRENGTH:g}, mean of five directions, at most {self.edited_faces} faces",
            "computed with": f"torch {self.torch_version}, {self.threads} thread{'s' if self.threads > 1 else ''}",
        }


@dataclass(frozen=True)
class Matrix:
    """Results of all pairs.

    Attributes:
        protocol: How they were compared.
        table: Pair -> column -> estimate.
        verdicts: Verdicts on the claims of the papers.
    """

    protocol: MatrixProtocol
    table: Table
    verdicts: Sequence[Verdict]


def compute(scores: Mapping[str, Sequence[MethodScores]], protocol: MatrixProtocol) -> Matrix:
    """Computes estimates and verdicts from the scores of each pair and seed."""
    columns = {name: stack_seeds(seeds).all_columns() for name, seeds in scores.items()}
    return Matrix(protocol, tabulate(columns), judge(columns, CLAIMS))


def check_target(into: Path) -> None:
    """Raises a UserError if results cannot be written to a folder, or would replace files that are no earlier results.

    Args:
        into: The folder; need not exist.
    """
    check_output(into, overwrite=True)
    if not (into / JSON).is_file() and (into / MARKDOWN).exists():
        raise UserError(f"--into {into}: has {MARKDOWN} and no {JSON}; give another folder")


def write(matrix: Matrix, into: Path) -> None:
    """Writes ``matrix.json``, ``matrix.md`` and ``pareto.png``."""
    content = {
        "about": matrix.protocol.describe(),
        "protocol": asdict(matrix.protocol),
        "table": {name: {key: asdict(e) for key, e in row.items()} for name, row in matrix.table.items()},
        "claims": [
            {**asdict(v.claim), "difference": asdict(v.found), "p_holm": v.p, "verdict": v.word}
            for v in matrix.verdicts
        ],
    }
    for name, text in {JSON: json.dumps(content, indent=1) + "\n", MARKDOWN: matrix_markdown(matrix)}.items():
        with atomic_write(into / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    pareto(matrix.table, into / PARETO)


def matrix_markdown(matrix: Matrix) -> str:
    """Returns a table for each column, embedders by refiners, then the verdicts and the protocol."""
    pairs = [pair_of(name) for name in matrix.table]
    embedders = [one for one in EMBEDDERS if any(pair.embedder == one for pair in pairs)]
    refiners = [one for one in REFINERS if any(pair.refiner == one for pair in pairs)]
    parts = []
    for key in SHOWN_COLUMNS:
        rows = [
            [own.title, *(cell(matrix.table.get(Pair(own, r).name, {}).get(key), key == "seconds") for r in refiners)]
            for own in embedders
        ]
        parts.append(f"### {COLUMNS[key].head}\n\n" + markdown(["embedder", *(r.title for r in refiners)], rows))
    heads, rows = verdict_rows(matrix.verdicts)
    if rows:
        bold = [[*row[:-1], row[-1] if row[-1] == REPRODUCED else f"**{row[-1]}**"] for row in rows]
        parts.append("### Claims\n\n" + markdown(heads, bold))
    parts.append("\n".join(f"* {label}: {text}" for label, text in matrix.protocol.describe().items()))
    return "\n\n".join(parts) + "\n"


def front(points: Sequence[Sequence[float]]) -> list[bool]:
    """Returns for each point whether no other is at least as small in all coordinates and smaller in one."""
    values = np.asarray(points, dtype=float)
    return [not bool(((values <= own).all(1) & (values < own).any(1)).any()) for own in values]


def pareto(table: Table, file: Path) -> None:
    """Plots distortion against editability and against time; filled markers are on the front of all three."""
    from matplotlib.figure import Figure  # slow to import
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(13, 6), layout="constrained")
    names = [name for name, row in table.items() if {"clear/mse", "edits/target", "seconds"} <= row.keys()]
    if not names:
        return
    best = front(
        [[table[n]["clear/mse"].mean, -table[n]["edits/target"].mean, table[n]["seconds"].mean] for n in names]
    )
    colours = {one.name: colour for one, colour in zip(REFINERS, _COLOURS, strict=True)}
    markers = {one.name: marker for one, marker in zip(EMBEDDERS, _MARKERS, strict=True)}
    left, right = figure.subplots(1, 2)
    for name, on_front in zip(names, best, strict=True):
        pair, row = pair_of(name), table[name]
        style: dict[str, Any] = {
            "marker": markers[pair.embedder.name],
            "color": colours[pair.refiner.name],
            "markerfacecolor": None if on_front else "none",
            "linestyle": "",
            "markersize": 9,
        }
        for axes, key in ((left, "edits/target"), (right, "seconds")):
            x, y = row[key], row["clear/mse"]
            error = {"xerr": [[x.mean - x.low], [x.high - x.mean]], "yerr": [[y.mean - y.low], [y.high - y.mean]]}
            axes.errorbar(x.mean, y.mean, **error, elinewidth=0.6, **style)
    left.set(xlabel="edit: change of the target attribute, std (more is better)", ylabel="MSE", yscale="log")
    right.set(xlabel="CPU seconds per face", ylabel="MSE", xscale="log", yscale="log")
    used = [pair_of(name) for name in names]
    handles = [
        *(Line2D([], [], color=colours[r.name], marker="o", linestyle="", label=r.title) for r in REFINERS
          if any(pair.refiner == r for pair in used)),
        *(Line2D([], [], color="0.4", marker=markers[e.name], markerfacecolor="none", linestyle="", label=e.title)
          for e in EMBEDDERS if any(pair.embedder == e for pair in used)),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=8, frameon=False, fontsize=9)
    figure.suptitle("Colour: refiner. Marker: embedder. Filled: no pair is better in MSE, edit and time together")
    for axes in (left, right):
        axes.grid(True, which="major", color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
    with atomic_write(file) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def draw(scores: Mapping[str, Sequence[MethodScores]], faces: Mapping[str, Faces], into: Path) -> None:
    """Draws for each embedder its reconstructions and edits with every refiner, ``reconstructions_<embedder>.png``."""
    first = SHOWN[0]
    for own in EMBEDDERS:
        columns = {
            "input": torch.stack(
                [faces[condition].batch["image"][first] for condition in (CLEAR, COVERED)]
                + [torch.ones_like(faces[CLEAR].batch["image"][first])] * len(SHOWN_EDITS)
            )
        }
        for refiner in REFINERS:
            found = scores.get(Pair(own, refiner).name)
            if found:
                images = found[0].images
                shown = np.concatenate([images[CLEAR][:1], images[COVERED][:1], images[EDITED]])
                columns["no refiner" if refiner.name == NONE else refiner.title] = from_uint8(torch.from_numpy(shown))
        if len(columns) > 1:
            captions = ["", "obstacle", *(f"edit: {name}" for name in SHOWN_EDITS)]
            sheet = contact_sheet(columns, row_captions=captions, cell=112)
            with atomic_write(into / f"reconstructions_{own.name}.png") as temporary:
                sheet.save(temporary, format="png")
