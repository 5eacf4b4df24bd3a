"""``python -m stylegan_inv.benchmark``: all methods in the embedded world, from training to table and figures."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from stylegan_inv.benchmark.comparison_report import write_all
from stylegan_inv.benchmark.method_runs import (
    BY_NAME,
    DESCENT,
    ENTRANTS,
    QUICK,
    REFERENCE,
    TRAINED,
    Budget,
    Entrant,
    TrueFactors,
    train,
)
from stylegan_inv.benchmark.method_scores import CONDITIONS, Faces, Scored, load, save, score
from stylegan_inv.errors import UserError
from stylegan_inv.generators import load_generator
from stylegan_inv.loading import load_inverter
from stylegan_inv.runtime.run_folder import RunFolder

#: Method of conf/method and overrides -> the method, built; the entry point composes it.
Build = Callable[[str, Sequence[str]], Any]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the trainings")
    parser.add_argument(
        "--runs", type=Path, default=Path("outputs/benchmark"), help="<runs>/seed<k>/<recipe> is trained where absent"
    )
    parser.add_argument("--into", type=Path, help="folder of table, figures and report; <runs>/report if left out")
    parser.add_argument("--only", nargs="+", choices=list(BY_NAME), metavar="ENTRANT", help="some of them")
    parser.add_argument("--no-training", action="store_true", help="leave out what has not been trained")
    parser.add_argument("--faces", type=int, help=f"held-out faces, {Budget.faces} if left out")
    parser.add_argument(
        "--descent-faces", type=int, help=f"the first so many, for per-image methods, {Budget.descent_faces}"
    )
    parser.add_argument("--quick", action="store_true", help="a few steps and faces: runs every part, measures nothing")


def run(options: argparse.Namespace, build: Build) -> Path:
    """Train, score and compare; returns the folder of the results.

    Raises:
        UserError: Impossible options, a training that failed, or nothing to compare.
    """
    budget = _budget(options)
    chosen = [entrant for entrant in ENTRANTS if options.only is None or entrant.name in options.only]
    faces = {condition: Faces.of(budget.faces, share) for condition, share in CONDITIONS.items()}
    scored: dict[str, list[Scored]] = {entrant.name: [] for entrant in chosen}
    for number, seed in enumerate(options.seeds):
        for entrant in chosen:
            if number and entrant.kind != TRAINED:
                continue  # nothing is trained, so there is one of it
            run_folder = options.runs / f"seed{seed}" / entrant.name
            if entrant.kind == TRAINED and options.no_training and not RunFolder(run_folder).metrics_file.is_file():
                print(f"left out: {run_folder} has not been trained", flush=True)
                continue
            if entrant.kind == TRAINED:
                train(entrant, seed, run_folder, budget)
            file = run_folder.with_name(f"{entrant.name}.npz")
            scored[entrant.name].append(_scored(file, entrant, seed, run_folder, faces, budget, build))
    results = {name: columns for name, columns in scored.items() if columns}
    if not results:
        raise UserError(f"{options.runs}: nothing has been trained there, so there is nothing to compare")
    into = options.into or options.runs / "report"
    write_all(results, faces, budget, options.seeds, into)
    return into


def _budget(options: argparse.Namespace) -> Budget:
    changes = {"faces": options.faces, "descent_faces": options.descent_faces}
    for key, value in changes.items():
        if value is not None and value < 1:
            raise UserError(f"--{key.replace('_', '-')} {value}: expected a whole number of at least 1")
    if len(set(options.seeds)) != len(options.seeds) or min(options.seeds) < 0:
        raise UserError(f"--seeds {' '.join(map(str, options.seeds))}: expected different whole numbers from 0 on")
    given = {key: value for key, value in changes.items() if value is not None}
    return replace(QUICK if options.quick else Budget(), **given)


def _scored(
    file: Path, entrant: Entrant, seed: int, run_folder: Path, faces: Mapping[str, Faces], budget: Budget, build: Build
) -> Scored:
    """What the file holds, if it is of so many faces; else measured now."""
    if file.is_file() and len((kept := load(file))["clear/mse"]) == budget.faces_of(entrant):
        return kept
    started = time.perf_counter()
    torch.manual_seed(seed)
    columns = score(entrant, _method(entrant, seed, run_folder, budget, build), faces, budget)
    save(file, columns)
    print(f"{file}: {budget.faces_of(entrant)} faces, {time.perf_counter() - started:.0f} s", flush=True)
    return columns


def _method(entrant: Entrant, seed: int, run_folder: Path, budget: Budget, build: Build) -> Any:
    if entrant.kind == DESCENT:
        return build(entrant.name, [f"seed={seed}", *budget.descents.get(entrant.name, ())])
    if entrant.kind == REFERENCE:
        return TrueFactors(load_generator("synthfaces64"))
    return load_inverter(run_folder)
