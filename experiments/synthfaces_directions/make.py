"""Makes and scores the embedded directions: python experiments/synthfaces_directions/make.py [output folder].

Each direction is the mean difference of 4,000 pairs of codes of the embedded generator that differ in one factor of
SynthFaces. 500 other faces are edited and read by both face networks. Beside them, for comparison: plain differences of
means, and the boundaries of InterFaceGAN with and without conditional projection. Writes ``<attribute>.safetensors``
and ``scores.json``, and prints the tables of the card.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.encoders.face import load_face_network
from stylegan_inv.generators import Generator, load_generator
from stylegan_inv.latents.directions import ASSETS, Direction, save_direction
from stylegan_inv.latents.effect import Effect, EffectMeter
from stylegan_inv.latents.interfacegan import extreme_codes, project_away, train_boundary
from stylegan_inv.latents.means import difference_of_means
from stylegan_inv.latents.scores import factor_scores, with_factor
from stylegan_inv.latents.statistics import map_codes, sample_z

ATTRIBUTES = ("age", "eyeglasses", "gender", "pose", "smile")
PAIRS, SAMPLES, FACES = 4000, 20000, 500
#: Quantiles of a factor that the two codes of a pair get; for eyeglasses these are none and clear ones.
LOW, HIGH = 0.15, 0.85
READABLE = 0.25


def pair_direction(generator: Generator, attribute: str) -> Direction:
    """The mean difference of pairs; one unit is a standard deviation of the attribute."""
    z = sample_z(generator, PAIRS, seed=0)
    high, low = (with_factor(z, attribute, quantile) for quantile in (HIGH, LOW))
    scores, above, below = (factor_scores(codes)[attribute].double() for codes in (z, high, low))
    return difference_of_means(
        map_codes(generator, high),
        map_codes(generator, low),
        attribute,
        span=float((above - below).mean() / scores.std()),
        generator_hash=generator.source_hash,
        made={
            "by": "difference of means over pairs of codes that differ in this factor only",
            "pairs": str(PAIRS),
            "quantiles": f"{LOW} {HIGH}",
            "unit is": "one standard deviation of the attribute among SynthFaces",
            "command": "python experiments/synthfaces_directions/make.py",
        },
    )


def others(generator: Generator, target: Direction, boundaries: dict[str, Tensor]) -> dict[str, Direction]:
    """The same attribute by other methods, at the strength that goes equally far along `target`."""
    z = sample_z(generator, SAMPLES, seed=0)
    w, scores = map_codes(generator, z), factor_scores(z)[target.name]
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


def summary(effect: Effect, attribute: str, readable: list[str]) -> dict[str, object]:
    """The figures of one row: the wanted attribute, the four others, the worst of all readable ones, the identity."""
    most = max((name for name in readable if name != attribute), key=lambda name: abs(effect.mean[name]))
    most_of_four = max(abs(effect.mean[name]) for name in ATTRIBUTES if name != attribute)
    absolute_of_four = max(effect.absolute[name] for name in ATTRIBUTES if name != attribute)
    return {
        "strength": effect.strength,
        "mean": {name: round(effect.mean[name], 4) for name in ATTRIBUTES},
        "absolute": {name: round(effect.absolute[name], 4) for name in ATTRIBUTES},
        "times as much as the next of the five": round(effect.mean[attribute] / most_of_four, 2),
        "the same in absolute changes": round(effect.absolute[attribute] / absolute_of_four, 2),
        "most moved of all readable": [most, round(effect.mean[most], 4)],
        "identity": round(effect.identity, 4),
    }


def main() -> None:
    """Make, score, write."""
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else ASSETS
    generator = load_generator("synthfaces64")
    directions = {name: pair_direction(generator, name) for name in ATTRIBUTES}
    for name, direction in directions.items():
        save_direction(direction, output / f"{name}.safetensors")

    z = sample_z(generator, SAMPLES, seed=0)
    w, truth = map_codes(generator, z), factor_scores(z)
    trained = {name: train_boundary(w, truth[name], 0.05) for name in ATTRIBUTES}
    boundaries = {name: boundary.normal for name, boundary in trained.items()}
    z = sample_z(generator, FACES, seed=1)
    w, truth = map_codes(generator, z), factor_scores(z)
    half = torch.ones(FACES)
    half[::2] = -1  # every other face the other way, so that both ways count
    worn = 1 - 2 * truth["eyeglasses"]  # taken off where there are some

    result: dict[str, Any] = {"boundary accuracy": {n: b.accuracy for n, b in trained.items()}}
    for network in ("face_eval", "face_train"):
        meter = EffectMeter(generator, load_face_network(network), w)
        r2 = {
            name: float(torch.corrcoef(torch.stack([read, truth[name]]))[0, 1] ** 2)
            for name, read in meter.before.items()
        }
        readable = [name for name, value in r2.items() if value >= READABLE]
        result[f"{network}: share of variance read"] = {name: round(r2[name], 3) for name in ATTRIBUTES}
        for name, direction in directions.items():
            sign, step = (worn, float(1 / truth["eyeglasses"].std())) if name == "eyeglasses" else (half, 1.0)
            rows = {
                f"pairs, strength {factor * step:.2f}": summary(
                    meter.measure(direction, factor * step, sign), name, readable
                )
                for factor in (1, 2)
            }
            if network == "face_eval":
                for method, other in others(generator, direction, boundaries).items():
                    rows[method] = summary(meter.measure(other, step, sign), name, readable)
            result[f"{network}: {name}"] = rows
            print(network, name, json.dumps(rows, indent=1), flush=True)
    (Path(__file__).parent / "scores.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
