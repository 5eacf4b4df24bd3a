"""What the benchmark leaves: a table in Markdown, CSV and JSON, verdicts, trade-off curves, figures, one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from stylegan_inv.benchmark import figures as figures
from stylegan_inv.benchmark.claims import Verdict, judge
from stylegan_inv.benchmark.method_runs import BY_NAME, DESCENT, TRAINED, Budget
from stylegan_inv.benchmark.method_scores import CONSISTENCY, SHOWN, Faces, Scored
from stylegan_inv.benchmark.results import (
    CODES,
    PICTURES,
    STRENGTH,
    Table,
    as_json,
    edits_csv,
    markdown,
    stack,
    table_csv,
    table_rows,
    tabulate,
    verdict_rows,
)
from stylegan_inv.utils.files import atomic_write
from stylegan_inv.visualization.html_page import definitions, figure, table, write_page

#: File -> caption.
FIGURES = {
    "grid.png": "The same faces through all methods: clear above, covered below",
    "tradeoff.png": "Distortion, perception and editability against time, and against one another (95 % intervals)",
    "refinement.png": "Distortion along the way",
    "obstacles.png": "Robustness to obstacles: error against the covered share of the face",
    "edits.png": "Edits: what arrives of the wanted change against what else changes and against the identity",
}


def write_all(
    scored: Mapping[str, Sequence[Scored]], faces: Mapping[str, Faces], budget: Budget, seeds: Sequence[int], into: Path
) -> None:
    """Write ``table.md``, ``table.csv``, ``edits.csv``, ``benchmark.json``, the figures and ``report.html``."""
    into.mkdir(parents=True, exist_ok=True)
    values = stack(scored)
    rows, verdicts = tabulate(values), judge(values)
    about = protocol(scored, budget, seeds)
    texts = {
        "table.md": text(rows, verdicts, about),
        "table.csv": table_csv(rows),
        "edits.csv": edits_csv(values),
        "benchmark.json": as_json(rows, verdicts, about),
    }
    for name, content in texts.items():
        with atomic_write(into / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    shown = [row for row in SHOWN if row < budget.faces_of(BY_NAME["pti"])]
    figures.grid(scored, {name: f.batch["image"][shown] for name, f in faces.items()}, into / "grid.png")
    figures.tradeoff(rows, into / "tradeoff.png")
    figures.refinement(values, rows, into / "refinement.png")
    figures.obstacles(values, into / "obstacles.png")
    figures.edits(values, into / "edits.png")
    write_page(rows, verdicts, about, into)


def protocol(scored: Mapping[str, Sequence[Scored]], budget: Budget, seeds: Sequence[int]) -> dict[str, str]:
    """What was compared how, label -> text."""
    done = {name: len(columns) for name, columns in scored.items() if BY_NAME[name].kind == TRAINED}
    missing = [f"{BY_NAME[name].title}: {count} of {len(seeds)}" for name, count in done.items() if count < len(seeds)]
    few = budget.faces_of(next(entrant for entrant in BY_NAME.values() if entrant.kind == DESCENT))
    return {
        "budget": "each trained method: 16,000 passes of encoder and generator (equal passes: 2,000 steps of 8 images "
        "in one pass, or 400 steps of 8 images in five)" + ("; changed here" if budget.training else ""),
        "seeds of the trainings": ", ".join(map(str, seeds)) + (f"; {'; '.join(missing)}" if missing else ""),
        "faces": f"{budget.faces} held-out ones (seed 2), clear and covered; the first {few} of them for methods that "
        "optimise each face, which have nothing to train and one seed",
        "figures": "mean ± half the 95 % interval (bootstrap over seeds and faces); in brackets the standard deviation "
        "of the seeds' means",
        "MSE": "squared units of [-1, 1], reconstructions rounded to 8 bits, 64 px",
        "perceptual, identity, Fréchet": "by face_eval, which no method has met; not LPIPS, not FID. The Fréchet "
        "distance depends on the number of faces, so descents have none",
        "beside, behind obstacle": "of covered faces: error where the face is seen, and where the obstacle hides it, "
        "against the same face without it",
        "distance to W": "1: a fresh code of W",
        "editing consistency": f"distance of codes after editing ({CONSISTENCY[0]}, {CONSISTENCY[1]:g}), rendering, "
        "inverting and undoing the edit",
        "edits": f"strength {STRENGTH:g} towards the attribute's other end, mean of five directions, first "
        f"{budget.edited} faces at most: change of the wanted attribute and mean change of the others in standard "
        "deviations over the faces, and cosine of the identity before and after, read by face_eval",
        "true factors": "no method: the code of W that the generator's training gave to each face's true factors. No "
        "encoder sees them; where it is better, the generator is not the limit",
        "CPU s": "seconds of CPU for a face, one at a time where that is quick, else in the batch; no training",
        "p": "two-sided bootstrap, Holm's correction for all claims; a claim counts below 0.05, and 2 in 10,000 "
        "times the number of claims is the least that can be told",
        "computed by": f"torch {torch.__version__}, {torch.get_num_threads()} threads",
    }


def text(rows: Table, verdicts: Sequence[Verdict], about: Mapping[str, str]) -> str:
    """Table, verdicts and protocol as Markdown."""
    heads, cells = verdict_rows(verdicts)
    parts = [markdown(*table_rows(rows, keys)) for keys in (PICTURES, CODES)]
    parts.append(markdown(heads, cells) if cells else "")
    parts.append("\n".join(f"* {label}: {line}" for label, line in about.items()))
    return "\n\n".join(filter(None, parts)) + "\n"


def write_page(rows: Table, verdicts: Sequence[Verdict], about: Mapping[str, str], into: Path) -> None:
    """``report.html``."""
    claim_heads, claims = verdict_rows(verdicts)
    claims = [[text.strip("*") for text in line] for line in claims]
    write_page(
        "All methods in the embedded world",
        {
            "Faces": [figure(into / "grid.png", FIGURES["grid.png"])],
            "Pictures": [table(*table_rows(rows, PICTURES))],
            "Codes and edits": [table(*table_rows(rows, CODES))],
            "Claims of the papers": [table(claim_heads, claims)] if claims else [],
            "Figures": [figure(into / name, caption) for name, caption in FIGURES.items() if name != "grid.png"],
            "Protocol": [definitions(about)],
        },
        into / "report.html",
    )
