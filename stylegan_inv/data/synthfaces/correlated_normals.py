"""The random numbers of SynthFaces: those of image i are a pure function of a seed and i."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stylegan_inv.data.synthfaces.factor_specs import FACTOR_INDEX, FACTORS, IDENTITY_FACTORS, NUM_NORMALS
from stylegan_inv.data.synthfaces.factors import normal_cdf
from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import real_number

OBSTACLES = ("microphone", "hand", "scarf", "text", "flat")


def philox_normals(seed: int, stream: int, index: int, count: int) -> np.ndarray:
    """Returns standard normals that are a pure function of (seed, stream, index).

    Uses the Box-Muller transform, as NumPy's own normals may differ between versions.

    Args:
        seed: Seed of the dataset.
        stream: Number of an independent stream of the seed.
        index: Index of the image.
        count: Number of normals, even.
    """
    bits = np.random.Philox(
        key=np.array([seed, stream], dtype=np.uint64), counter=np.array([0, index, 0, 0], dtype=np.uint64)
    ).random_raw(count)
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log(uniform[: count // 2]))
    angle = 2.0 * np.pi * uniform[count // 2 :]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])


def normals(seed: int, indices: Sequence[int] | np.ndarray, identity_groups: int = 1) -> np.ndarray:
    """Returns standard normals (B, K) float64; row i is a pure function of (seed, indices[i]).

    Args:
        seed: Seed of the dataset.
        indices: Indices of B images.
        identity_groups: Number k of consecutive images that show one person: the images k j to k j + k - 1 share the
            columns of the identity factors.

    Raises:
        UserError: An index is negative.
    """
    even = NUM_NORMALS + NUM_NORMALS % 2
    indices = np.asarray(indices, dtype=np.int64)
    if indices.size and indices.min() < 0:
        raise UserError(f"SynthFaces: got index {indices.min()}, expected indices of at least 0")
    rows = [philox_normals(seed, 0, int(i), even)[:NUM_NORMALS] for i in indices]
    n = np.stack(rows) if rows else np.zeros((0, NUM_NORMALS))
    if identity_groups > 1:
        columns = [FACTOR_INDEX[name] for name in IDENTITY_FACTORS]
        for row, index in zip(n, indices, strict=True):
            row[columns] = philox_normals(seed, 1, int(index) // identity_groups, even)[columns]
    return n


def correlate(n: np.ndarray, correlations: Mapping[Any, float]) -> np.ndarray:
    """Mixes normals so that pairs of factors are correlated (Gaussian copula).

    Args:
        n: Independent standard normals (B, K).
        correlations: Correlations of pairs of factors, e.g. ``{("age", "eyeglasses"): 0.6}``; in YAML a pair is
            ``"age,eyeglasses"``.

    Raises:
        UserError: A pair does not name two factors, or the correlations are out of range or contradict each other.
    """
    matrix = np.eye(NUM_NORMALS)
    for pair, rho in correlations.items():
        names = tuple(part.strip() for part in pair.split(",")) if isinstance(pair, str) else tuple(pair)
        if len(names) != 2 or names[0] == names[1] or any(name not in FACTOR_INDEX for name in names):
            raise UserError(
                f"SynthFaces correlations: got the pair {pair!r}, expected two different factors out of "
                f"{', '.join(FACTORS)}"
            )
        if not -1.0 < rho < 1.0:
            raise UserError(f"SynthFaces correlations: got {rho} for {pair!r}, expected a number inside (-1, 1)")
        a, b = FACTOR_INDEX[names[0]], FACTOR_INDEX[names[1]]
        matrix[a, b] = matrix[b, a] = rho
    try:
        lower = np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        raise UserError(
            "SynthFaces correlations: together they are impossible (not positive definite); give smaller numbers"
        ) from None
    return n @ lower.T


def obstacle_parameters(seed: int, indices: Sequence[int] | np.ndarray, probability: float) -> np.ndarray:
    """Returns the parameters of the obstacles of images, for :func:`.render`.

    They have their own stream of random numbers, so that a face is the same with and without an obstacle.

    Args:
        seed: Seed of the dataset.
        indices: Indices of B images.
        probability: Probability of an obstacle.

    Returns:
        Array (B, 10) float32: the index in ``OBSTACLES`` (-1 for no obstacle), and standard normals.

    Raises:
        UserError: The probability is out of range.
    """
    real_number("SynthFaces: obstacles", probability, 0, 1)
    out = np.full((len(indices), 10), -1.0, dtype=np.float32)
    for row, index in zip(out, indices, strict=True):
        n = philox_normals(seed, 2, int(index), 12)
        chance, kind = normal_cdf(n[:2])
        row[0] = int(kind * len(OBSTACLES)) if chance < probability else -1
        row[1:] = n[2:11]
    return out
