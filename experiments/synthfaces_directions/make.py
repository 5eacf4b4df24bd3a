"""Makes and measures the embedded directions: python experiments/synthfaces_directions/make.py [output folder].

Each direction is the mean difference of 4,000 pairs of codes of the embedded generator that differ in one factor of
SynthFaces. Its effect is measured on 500 other faces with both face networks. Baselines are differences of means over
random codes, and the boundaries of InterFaceGAN with and without conditional projection. Writes
``<attribute>.safetensors`` and ``scores.json``, and prints the tables of the card.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.encoders.face_network import load_face_network
from stylegan_inv.generators import Generator, load_generator
from stylegan_inv.latents.directions import ASSETS, Direction, save_direction
from stylegan_inv.latents.discovery.difference_of_means import difference_of_means
from stylegan_inv.latents.discovery.effect import Effect, EffectMeter
from stylegan_inv.latents.discovery.interfacegan import extreme_codes, project_away, train_boundary
from stylegan_inv.latents.discovery.scores import factor_scores, with_factor
from stylegan_inv.latents.statistics import map_codes, sample_z

ATTRIBUTES = ("age", "eyeglasses", "gender", "pose", "smile")
#: Quantiles of the factor in the two codes of a pair; for eyeglasses these are none and clear glasses.
LOW, HIGH = 0.15, 0.85
#: Attributes whose predictions explain a smaller fraction of the variance are excluded from the worst of all.
PREDICTABLE = 0.25
#: Strength that adds clear glasses to a face without glasses.
GLASSES = 2.0


def pair_direction(generator: Generator, attribute: str, w: Tensor, pairs: int) -> Direction:
    """Returns the mean difference of pairs; one unit is a standard deviation of codes ``w`` (N, D) along it."""
    z = sample_z(generator, pairs, seed=0)
    high, low = (map_codes(generator, with_factor(z, attribute, quantile)) for quantile in (HIGH, LOW))
    direction = difference_of_means(high, low, attribute, generator_hash=generator.source_hash)
    made = {
        "by": "difference of means over pairs of codes that differ in this factor only",
        "pairs": str(pairs),
        "quantiles": f"{LOW} {HIGH}",
        "unit is": "a standard deviation of codes along the direction",
        "command": "python experiments/synthfaces_directions/make.py",
    }
    return replace(direction, unit=float((w @ direction.vector).std()), made=made)


def baselines(target: Direction, w: Tensor, scores: Tensor, boundaries: dict[str, Tensor]) -> dict[str, Direction]:
    """Returns directions of other methods, with units that move equally far along ``target``."""
    top, bottom = extreme_codes(scores, 0.05 if target.name == "eyeglasses" else 0.2)
    rest = [normal for name, normal in boundaries.items() if name != target.name]
    vectors = {
        "difference of means": difference_of_means(w[top], w[bottom], target.name).vector,
        "InterFaceGAN": boundaries[target.name],
        "InterFaceGAN, conditional": project_away(boundaries[target.name], rest),
    }
    return {
        name: Direction(vector, target.name, unit=target.unit / float(vector @ target.vector))
        for name, vector in vectors.items()
    }


def summary(effect: Effect, attribute: str, predictable: list[str]) -> dict[str, object]:
    """Returns a table row: the wanted attribute, the four others, the worst of all predictable ones, the identity."""
    most = max((name for name in predictable if name != attribute), key=lambda name: abs(effect.mean[name]))
    most_of_four = max(abs(effect.mean[name]) for name in ATTRIBUTES if name != attribute)
    absolute_of_four = max(effect.absolute[name] for name in ATTRIBUTES if name != attribute)
    return {
        "strength": effect.strength,
        "mean": {name: round(effect.mean[name], 4) for name in ATTRIBUTES},
        "absolute": {name: round(effect.absolute[name], 4) for name in ATTRIBUTES},
        "ratio to the next of the five": round(effect.mean[attribute] / most_of_four, 2),
        "ratio of absolute changes": round(effect.absolute[attribute] / absolute_of_four, 2),
        "largest change of all predictable": [most, round(effect.mean[most], 4)],
        "identity": round(effect.identity, 4),
    }


def main() -> None:
    """Makes, measures and writes the directions."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", nargs="?", type=Path, default=ASSETS, help="folder of the directions")
    parser.add_argument("--pairs", type=int, default=4000, help="pairs of codes for each direction")
    parser.add_argument("--samples", type=int, default=20000, help="codes for the baselines and units")
    parser.add_argument("--faces", type=int, default=500, help="faces on which the directions are measured")
    options = parser.parse_args()
    output, faces = options.output, options.faces
    generator = load_generator("synthfaces64")
    z = sample_z(generator, options.samples, seed=0)
    w, truth = map_codes(generator, z), factor_scores(z)
    directions = {name: pair_direction(generator, name, w, options.pairs) for name in ATTRIBUTES}
    for name, direction in directions.items():
        save_direction(direction, output / f"{name}.safetensors")
    trained = {name: train_boundary(w, truth[name], 0.05) for name in ATTRIBUTES}
    boundaries = {name: boundary.normal for name, boundary in trained.items()}

    z = sample_z(generator, faces, seed=1)
    networks = {name: load_face_network(name) for name in ("face_eval", "face_train")}
    meter = EffectMeter(generator, networks, map_codes(generator, z))
    factors = factor_scores(z)
    r2 = {name: explained_variance(before, factors) for name, before in meter.before.items()}
    predictable = {name: [key for key, value in of.items() if value >= PREDICTABLE] for name, of in r2.items()}
    alternating = torch.ones(faces)
    alternating[::2] = -1  # every other face in the opposite direction
    remove_present = 1 - 2 * factors["eyeglasses"]  # removes glasses that are present

    result: dict[str, Any] = {
        "boundary accuracy": {name: boundary.accuracy for name, boundary in trained.items()},
        "explained variance": {name: {key: of[key] for key in ATTRIBUTES} for name, of in r2.items()},
    }
    for name, direction in directions.items():
        sign, step = (remove_present, GLASSES) if name == "eyeglasses" else (alternating, 1.0)
        directions_of = {
            f"pairs, strength {step:g}": (direction, step),
            f"pairs, strength {2 * step:g}": (direction, 2 * step),
        }
        directions_of.update(
            {key: (other, step) for key, other in baselines(direction, w, truth[name], boundaries).items()}
        )
        for key, (other, strength) in directions_of.items():
            for network, effect in meter.measure(other, strength, sign).items():
                row = summary(effect, name, predictable[network])
                result.setdefault(network, {}).setdefault(name, {})[key] = row
                print(network, name, key, json.dumps(row), flush=True)
    (Path(__file__).parent / "scores.json").write_text(json.dumps(result, indent=1) + "\n")


def explained_variance(predicted: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, float]:
    """Returns the squared correlation of the predictions with the true factors, by attribute."""
    pairs = {name: torch.stack([value, truth[name]]) for name, value in predicted.items()}
    return {name: round(float(torch.corrcoef(pair)[0, 1] ** 2), 3) for name, pair in pairs.items()}


if __name__ == "__main__":
    main()
