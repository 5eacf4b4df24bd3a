"""Writes the results of the comparison: tables, figures and an HTML page."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from stylegan_inv.benchmark.quality import figures
from stylegan_inv.benchmark.quality.compared_methods import BY_NAME, Budget
from stylegan_inv.benchmark.quality.held_out_faces import Faces
from stylegan_inv.benchmark.quality.method_scores import MethodScores
from stylegan_inv.benchmark.quality.result_tables import method_rows, results_csv, results_markdown, verdict_rows
from stylegan_inv.benchmark.quality.results import (
    EDITS,
    JSON,
    LATENT_SPACE,
    RECONSTRUCTION,
    Results,
    load_results,
    serialise,
)
from stylegan_inv.benchmark.quality.score_method import SHOWN
from stylegan_inv.errors import UserError
from stylegan_inv.report.folder_reader import FolderReader
from stylegan_inv.utils.files import atomic_write, check_output
from stylegan_inv.visualization.html_page import definitions, figure, table, write_page

GRID, PAGE, MARKDOWN, CSV = "grid.png", "report.html", "table.md", "table.csv"
#: Files besides ``benchmark.json`` and the figures.
TEXTS = (EDITS, MARKDOWN, CSV, PAGE)
#: File -> caption.
FIGURES = {
    GRID: "Reconstructions of the same faces by all methods: without an obstacle (top) and with an obstacle (bottom)",
    "tradeoff.png": "Distortion, perceptual distance and editability against time and against each other (95 % "
    "confidence intervals)",
    "refinement.png": "Distortion over the refinement steps of encoders and over the time of per-image optimisation",
    "obstacles.png": "Robustness to obstacles: error against the covered fraction of the face",
    "edits.png": "Edits: change of the target attribute against the change of other attributes and the identity",
}


def draw_reconstructions(
    scores: Mapping[str, Sequence[MethodScores]], faces: Mapping[str, Faces], budget: Budget, into: Path
) -> None:
    """Draws ``grid.png``: the first faces of each condition, reconstructed by the first seed of each method."""
    shown = [index for index in SHOWN if index < budget.faces_of(BY_NAME["pti"])]
    images = {name: seeds[0].images for name, seeds in scores.items()}
    figures.grid(images, {name: held_out.batch["image"][shown] for name, held_out in faces.items()}, into / GRID)


def check_target(into: Path) -> None:
    """Raises a UserError if results cannot be written to a folder, or would replace files that are no earlier results.

    Args:
        into: The folder; need not exist.
    """
    check_output(into, overwrite=True)
    # Results begin with benchmark.json, so that an interrupted command can be repeated.
    if not (into / JSON).is_file() and (there := [name for name in TEXTS if (into / name).exists()]):
        raise UserError(f"--into {into}: has {', '.join(there)} and no {JSON}; give another folder")


def write_results(results: Results, into: Path) -> None:
    """Writes ``table.md``, ``table.csv``, ``edits.csv``, ``benchmark.json``, the other figures and ``report.html``."""
    texts = {**serialise(results), MARKDOWN: results_markdown(results), CSV: results_csv(results)}
    for name, text in texts.items():
        with atomic_write(into / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    figures.tradeoff(results, into / "tradeoff.png")
    # Results of version 0.1 do not hold these curves; their figures stay as they are.
    if any("mse_interest" in curves for curves in results.refinement.values()):
        figures.refinement(results, into / "refinement.png")
    if results.obstacles:
        figures.obstacles(results, into / "obstacles.png")
    figures.edits(results, into / "edits.png")
    _write_page(results, into)


def render_again(folder: Path) -> None:
    """Writes tables, figures and page again from ``benchmark.json`` and ``edits.csv``; no method is scored.

    Raises:
        UserError: If the folder holds no results.
    """
    try:
        results = load_results(folder)
    except UserError as error:
        raise UserError(f"{folder}: expected the folder of a report ({error})") from error
    except (AttributeError, csv.Error, KeyError, RecursionError, TypeError, ValueError) as error:
        raise UserError(f"{folder}: its benchmark.json or edits.csv is damaged ({error!r}); copy them again") from error
    write_results(results, folder)


def _figure(reader: FolderReader, name: str, caption: str) -> list[Markup]:
    picture = reader.picture(name)
    return [] if picture is None else [figure(picture, caption)]


def _write_page(results: Results, into: Path) -> None:
    heads, claims = verdict_rows(results.verdicts)
    reader = FolderReader(into)
    pictures = {name: _figure(reader, name, caption) for name, caption in FIGURES.items()}
    write_page(
        "All methods on SynthFaces",
        {
            "Reconstructions": pictures[GRID],
            "Reconstruction quality": [table(*method_rows(results.table, RECONSTRUCTION))],
            "Latent codes and edits": [table(*method_rows(results.table, LATENT_SPACE))],
            "Claims of the papers": [table(heads, claims)] if claims else [],
            "Figures": [part for name, parts in pictures.items() if name != GRID for part in parts],
            "Protocol": [definitions(results.protocol.describe())],
        },
        into / PAGE,
    )
