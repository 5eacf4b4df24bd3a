"""Features of the SynthFaces factors, as inputs of networks."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from stylegan_inv.data.synthfaces.factor_specs import SPECS, Choice, Uniform
from stylegan_inv.data.synthfaces.factors import factors_from_normals, normal_cdf


def factor_features(normals: Tensor) -> Tensor:
    """Converts normals (B, K) to features (B, 150): the factor vector, and cosines of the uniform factors.

    Hues, which are periodic, have sines too. The cosines make factors such as colours, which follow a circle or a ramp
    of several colours, linear functions of the features. All columns have mean 0 and variance 1, also those of discrete
    factors, so that rare choices weigh as much as frequent ones.
    """
    n = normals.detach().cpu().numpy().astype(np.float64)
    probabilities = [spec.probabilities if isinstance(spec, Choice) else (np.nan,) for spec in SPECS.values()]
    p = np.concatenate(probabilities)
    vector = factors_from_normals(n).to_vector()
    columns = [np.where(np.isnan(p), vector, (vector - p) / np.sqrt(p * (1 - p)))]
    uniform = normal_cdf(n)
    for i, (name, spec) in enumerate(SPECS.items()):
        if not isinstance(spec, Uniform):
            continue
        hue = name.endswith("_hue")
        for k in (2, 4) if hue else (1, 2, 3):
            angle = np.pi * k * uniform[:, i : i + 1]
            columns += [np.sqrt(2.0) * wave(angle) for wave in ((np.cos, np.sin) if hue else (np.cos,))]
    return torch.from_numpy(np.concatenate(columns, axis=1).astype(np.float32))


def factor_knots() -> list[tuple[int, float, float]]:
    """Returns ramps of the normals from which the factors can be approximated, as (column, position, slope).

    There is one gentle ramp for each normal, a pair of steep ramps at each cut between two choices, three ramps along
    each other uniform factor, and eight around the circle of a hue.
    """
    knots: list[tuple[int, float, float]] = []
    quantile = NormalDist().inv_cdf
    for column, (name, spec) in enumerate(SPECS.items()):
        knots.append((column, -1.5, 1.0))
        if isinstance(spec, Choice):
            cuts = np.cumsum(spec.probabilities)[:-1]
            knots += [(column, quantile(cut) + side, 3.0) for cut in cuts for side in (-0.12, 0.12)]
        elif isinstance(spec, Uniform):
            count = 8 if name.endswith("_hue") else 3
            knots += [(column, quantile((k + 1) / (count + 1)), 1.5) for k in range(count)]
    return knots
