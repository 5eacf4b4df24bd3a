"""The random numbers behind SynthFaces: everything of image i is a pure function of a seed and i."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stylegan_inv.data.synthfaces.factors import FACTOR_INDEX, FACTORS, IDENTITY_FACTORS, NUM_NORMALS, normal_cdf
from stylegan_inv.errors import UserError

OBSTACLES = ("microphone", "hand", "scarf", "text", "flat")


def philox_normals(seed: int, stream: int, index: int, count: int) -> np.ndarray:
    """`count` (even) normals keyed by (seed, stream, index); Box-Muller, so no numpy version can change them."""
    bits = np.random.Philox(
        key=np.array([seed, stream], dtype=np.uint64), counter=np.array([0, index, 0, 0], dtype=np.uint64)
    ).random_raw(count)
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log(uniform[: count // 2]))
    angle = 2.0 * np.pi * uniform[count // 2 :]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])


def normals(seed: int, indices: Sequence[int] | np.ndarray, identity_groups: int = 1) -> np.ndarray:
    """Standard normals (B, K) float64; row i is a pure function of (seed, indices[i]).

    With `identity_groups` = k > 1, indices k*j ... k*j + k - 1 share the identity columns (one person, k pictures).
    """
    even = NUM_NORMALS + NUM_NORMALS % 2
    indices = np.asarray(indices, dtype=np.int64)
    if indices.size and indices.min() < 0:
        raise UserError(f"SynthFaces: got index {indices.min()}, expected indices >= 0.")
    rows = [philox_normals(seed, 0, int(i), even)[:NUM_NORMALS] for i in indices]
    n = np.stack(rows) if rows else np.zeros((0, NUM_NORMALS))
    if identity_groups > 1:
        columns = [FACTOR_INDEX[name] for name in IDENTITY_FACTORS]
        for row, index in zip(n, indices, strict=True):
            row[columns] = philox_normals(seed, 1, int(index) // identity_groups, even)[columns]
    return n


def correlate(n: np.ndarray, correlations: Mapping[Any, float]) -> np.ndarray:
    """Mixes the normals so that pairs of factors are correlated (Gaussian copula; `{("age", "eyeglasses"): 0.6}`)."""
    matrix = np.eye(NUM_NORMALS)
    for pair, rho in correlations.items():
        # "age,eyeglasses" is how a YAML key says the pair.
        names = tuple(part.strip() for part in pair.split(",")) if isinstance(pair, str) else tuple(pair)
        if len(names) != 2 or names[0] == names[1] or any(name not in FACTOR_INDEX for name in names):
            raise UserError(
                f"SynthFaces correlations: got the pair {pair!r}, expected two different factors out of "
                f"{', '.join(FACTORS)}."
            )
        if not -1.0 < rho < 1.0:
            raise UserError(f"SynthFaces correlations: got {rho} for {pair!r}, expected a number inside (-1, 1).")
        a, b = FACTOR_INDEX[names[0]], FACTOR_INDEX[names[1]]
        matrix[a, b] = matrix[b, a] = rho
    try:
        lower = np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        raise UserError(
            "SynthFaces correlations: together they are impossible (not positive definite); use smaller numbers."
        ) from None
    return n @ lower.T


def obstacle_parameters(seed: int, indices: Sequence[int] | np.ndarray, probability: float) -> np.ndarray:
    """(B, 10) float32 for `render`: column 0 the kind (-1: none), the others standard normals.

    Drawn from their own stream: the face below an obstacle is the same with and without it.
    """
    if not 0.0 <= probability <= 1.0:
        raise UserError(f"SynthFaces: got obstacles={probability}, expected a probability in [0, 1].")
    out = np.full((len(indices), 10), -1.0, dtype=np.float32)
    for row, index in zip(out, indices, strict=True):
        n = philox_normals(seed, 2, int(index), 12)
        chance, kind = normal_cdf(n[:2])
        row[0] = int(kind * len(OBSTACLES)) if chance < probability else -1
        row[1:] = n[2:11]
    return out
