"""Trains and scores all methods on SynthFaces and writes tables and figures."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from stylegan_inv.benchmark.quality.compared_methods import (
    BY_NAME,
    METHODS,
    PER_IMAGE,
    QUICK,
    REFERENCE,
    TRAINED,
    Budget,
    ComparedMethod,
    train,
)
from stylegan_inv.benchmark.quality.comparison_report import check_target, draw_reconstructions, write_results
from stylegan_inv.benchmark.quality.held_out_faces import CONDITIONS, Faces
from stylegan_inv.benchmark.quality.method_scores import MethodScores, load_scores, save_scores
from stylegan_inv.benchmark.quality.protocol_text import ComparisonProtocol
from stylegan_inv.benchmark.quality.results import compute_results
from stylegan_inv.benchmark.quality.score_method import score_method
from stylegan_inv.benchmark.quality.true_factors import TrueFactors
from stylegan_inv.errors import UserError
from stylegan_inv.generators import load_generator
from stylegan_inv.loading import load_inverter
from stylegan_inv.runtime.run_folder import RunFolder
from stylegan_inv.utils.checks import LARGEST_SEED
from stylegan_inv.utils.command_line import whole
from stylegan_inv.utils.domains import check_domains

#: Builds a method of ``conf/method`` from its name and overrides; the command composes the config.
BuildMethod = Callable[[str, Sequence[str]], Any]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the comparison."""
    parser.add_argument("--seeds", **whole(0, LARGEST_SEED), nargs="+", default=[0, 1, 2], help="training seeds")
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("outputs/benchmark"),
        help="folder of the trainings; <runs>/seed<k>/<recipe> is trained if it does not exist",
    )
    parser.add_argument("--into", type=Path, help="folder of tables, figures and report; default: <runs>/report")
    parser.add_argument("--only", nargs="+", choices=list(BY_NAME), metavar="METHOD", help="compare these methods only")
    parser.add_argument("--no-training", action="store_true", help="omit methods that have not been trained")
    parser.add_argument("--faces", **whole(1, 1_000_000), help=f"number of held-out faces; default: {Budget.faces}")
    parser.add_argument(
        "--per-image-faces",
        **whole(1, 1_000_000),
        help=f"number of faces for methods that optimise each face; default: {Budget.per_image_faces}",
    )
    parser.add_argument("--any-domain", action="store_true", help="also score runs of another domain than SynthFaces")
    parser.add_argument("--quick", action="store_true", help="test run of every part with few steps and faces")


def run(options: argparse.Namespace, build: BuildMethod) -> Path:
    """Trains, scores and compares the methods.

    Args:
        options: The options of :func:`arguments`.
        build: Builds the methods that optimise each face.

    Returns:
        The folder of the results.

    Raises:
        UserError: If an option is invalid, a training fails, or there is nothing to compare.
    """
    budget = _budget(options)
    into = options.into or options.runs / "report"
    check_target(into)
    chosen = [method for method in METHODS if options.only is None or method.name in options.only]
    faces = {condition: Faces.of(budget.faces, obstacles) for condition, obstacles in CONDITIONS.items()}
    scores: dict[str, list[MethodScores]] = {method.name: [] for method in chosen}
    for number, seed in enumerate(options.seeds):
        for compared in chosen:
            if number and compared.kind != TRAINED:
                continue  # a method without training has one seed
            run_folder = options.runs / f"seed{seed}" / compared.name
            if compared.kind == TRAINED and options.no_training and not RunFolder(run_folder).metrics_file.is_file():
                print(f"omitted: {run_folder} has not been trained", flush=True)
                continue
            if compared.kind == TRAINED:
                train(compared, seed, run_folder, budget)
            found = _load_or_score(compared, seed, run_folder, faces, budget, build, options.any_domain)
            scores[compared.name].append(found)
    measured = {name: found for name, found in scores.items() if found}
    if not measured:
        raise UserError(f"{options.runs}: no trained methods found, nothing to compare")
    into.mkdir(parents=True, exist_ok=True)
    draw_reconstructions(measured, faces, budget, into)
    protocol = ComparisonProtocol.of(budget, options.seeds, {name: len(found) for name, found in measured.items()})
    write_results(compute_results(measured, protocol), into)
    return into


def _budget(options: argparse.Namespace) -> Budget:
    changes: dict[str, int] = {}
    for name, value in {"faces": options.faces, "per_image_faces": options.per_image_faces}.items():
        if value is not None:
            changes[name] = value
    if len(set(options.seeds)) != len(options.seeds):
        raise UserError(f"--seeds {' '.join(map(str, options.seeds))}: expected different whole numbers")
    budget = QUICK if options.quick else Budget()
    return replace(
        budget,
        faces=changes.get("faces", budget.faces),
        per_image_faces=changes.get("per_image_faces", budget.per_image_faces),
    )


def _load_or_score(
    compared: ComparedMethod,
    seed: int,
    run_folder: Path,
    faces: Mapping[str, Faces],
    budget: Budget,
    build: BuildMethod,
    any_domain: bool,
) -> MethodScores:
    """Returns stored scores if they are of the same number of faces, else scores the method."""
    file, count = run_folder.with_name(f"{compared.name}.pt"), budget.faces_of(compared)
    if file.is_file() and len((stored := load_scores(file)).columns["clear/mse"]) == count:
        return stored
    started = time.perf_counter()
    torch.manual_seed(seed)
    scores = score_method(compared, _method(compared, seed, run_folder, budget, build, any_domain), faces, budget)
    save_scores(file, scores)
    print(f"{file}: {count} faces, {time.perf_counter() - started:.0f} s", flush=True)
    return scores


def _method(
    compared: ComparedMethod, seed: int, run_folder: Path, budget: Budget, build: BuildMethod, any_domain: bool
) -> Any:
    if compared.kind == PER_IMAGE:
        return build(compared.name, [f"seed={seed}", *budget.per_image.get(compared.name, ())])
    if compared.kind == REFERENCE:
        return TrueFactors(load_generator("synthfaces64"))
    method = load_inverter(run_folder)
    check_domains("the held-out faces are", "synthfaces", {f"run {run_folder}": method}, any_domain, flags=True)
    return method
