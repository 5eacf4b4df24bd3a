"""Trains and scores every embedder with every refiner on SynthFaces and writes tables and figures."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from stylegan_inv.benchmark.matrix.pair_results import MatrixProtocol, check_target, compute, draw, write
from stylegan_inv.benchmark.matrix.pairs import (
    EMBEDDER_BY_NAME,
    EMBEDDERS,
    NONE,
    REFINER_BY_NAME,
    REFINERS,
    BuildMethod,
    Pair,
    build_pair,
)
from stylegan_inv.benchmark.quality.compared_methods import QUICK, Budget, train
from stylegan_inv.benchmark.quality.held_out_faces import CONDITIONS, Faces
from stylegan_inv.benchmark.quality.method_scores import MethodScores, load_scores, save_scores
from stylegan_inv.benchmark.quality.score_method import score_method
from stylegan_inv.errors import UserError
from stylegan_inv.runtime.run_folder import RunFolder
from stylegan_inv.utils.checks import LARGEST_SEED
from stylegan_inv.utils.command_line import whole

#: The faces of a test: a pass through the networks takes milliseconds, an optimisation seconds.
FACES, PER_IMAGE_FACES, EDITED_FACES = 200, 12, 50


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the matrix."""
    names = {"metavar": "NAME", "nargs": "+"}
    parser.add_argument("--embedders", choices=list(EMBEDDER_BY_NAME), help="these embedders only", **names)  # type: ignore[arg-type]
    parser.add_argument("--refiners", choices=list(REFINER_BY_NAME), help="these refiners only", **names)  # type: ignore[arg-type]
    parser.add_argument("--seeds", **whole(0, LARGEST_SEED), nargs="+", default=[0, 1, 2], help="training seeds")
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("outputs/benchmark"),
        help="folder of the trainings; <runs>/seed<k>/<recipe> is trained if it does not exist",
    )
    parser.add_argument("--into", type=Path, help="folder of tables and figures; default: <runs>/matrix")
    parser.add_argument("--no-training", action="store_true", help="omit refiners that have not been trained")
    parser.add_argument("--faces", **whole(1, 1_000_000), help=f"number of held-out faces; default: {FACES}")
    parser.add_argument(
        "--per-image-faces",
        **whole(1, 1_000_000),
        help=f"number of faces of pairs that optimise each face; default: {PER_IMAGE_FACES}",
    )
    parser.add_argument("--quick", action="store_true", help="test run of every part with few steps and faces")


def run(options: argparse.Namespace, build: BuildMethod) -> Path:
    """Trains the refiners, scores all pairs and writes the results.

    Args:
        options: The options of :func:`arguments`.
        build: Builds the methods that optimise each face.

    Returns:
        The folder of the results.

    Raises:
        UserError: If an option is invalid, a training fails, or there is nothing to compare.
    """
    if len(set(options.seeds)) != len(options.seeds):
        raise UserError(f"--seeds {' '.join(map(str, options.seeds))}: expected different whole numbers")
    budget = QUICK if options.quick else Budget(FACES, PER_IMAGE_FACES, EDITED_FACES)
    budget = replace(
        budget,
        faces=options.faces or budget.faces,
        per_image_faces=options.per_image_faces or budget.per_image_faces,
    )
    into = options.into or options.runs / "matrix"
    check_target(into)
    embedders = [one for one in EMBEDDERS if options.embedders is None or one.name in options.embedders]
    refiners = [one for one in REFINERS if options.refiners is None or one.name in (NONE, *options.refiners)]
    faces = {condition: Faces.of(budget.faces, obstacles) for condition, obstacles in CONDITIONS.items()}
    scores: dict[str, list[MethodScores]] = {}
    for refiner in refiners:  # a training is followed by the pairs that need it
        for embedder in embedders:
            pair = Pair(embedder, refiner)
            for seed in options.seeds if pair.trains else options.seeds[:1]:
                run_folder = options.runs / f"seed{seed}" / (refiner.source or NONE)
                if pair.trains and options.no_training and not RunFolder(run_folder).metrics_file.is_file():
                    print(f"omitted: {run_folder} has not been trained", flush=True)
                    continue
                if pair.trains:
                    train(pair.training(), seed, run_folder, budget)
                found = _load_or_score(pair, seed, run_folder, options.runs / "pairs", faces, budget, build)
                scores.setdefault(pair.name, []).append(found)
    into.mkdir(parents=True, exist_ok=True)
    draw(scores, faces, into)
    write(compute(scores, MatrixProtocol.of(budget, options.seeds)), into)
    return into


def _load_or_score(
    pair: Pair,
    seed: int,
    run_folder: Path,
    folder: Path,
    faces: Mapping[str, Faces],
    budget: Budget,
    build: BuildMethod,
) -> MethodScores:
    """Returns stored scores if they are of the same number of faces, else scores the pair."""
    file = folder / f"seed{seed}" / f"{pair.name}.pt"
    compared = pair.compared()
    count = budget.faces_of(compared)
    if file.is_file() and len((stored := load_scores(file)).columns["clear/mse"]) == count:
        return stored
    started = time.perf_counter()
    torch.manual_seed(seed)
    scores = score_method(compared, build_pair(pair, seed, run_folder, budget, build), faces, budget)
    save_scores(file, scores)
    print(f"{file}: {count} faces, {time.perf_counter() - started:.0f} s", flush=True)
    return scores
