"""Factors of SynthFaces faces: their computation from normals, and overrides."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stylegan_inv.data.synthfaces.factor_specs import (
    FACTORS,
    GEOMETRY,
    NUM_NORMALS,
    SPECS,
    VECTOR_NAMES,
    Choice,
    Uniform,
)
from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import one_of, real_number, whole_number


@dataclass
class Factors:
    """The factors of B faces in natural units; each factor is also an attribute, e.g. ``factors.yaw``.

    Units: degrees for yaw (positive: nose to the image's right) and pitch (positive: up); years for age; standard
    deviations for geometry and light; [-1, 1] for gender expression (feminine to masculine); [0, 1] or [-1, 1] for the
    others. Discrete factors are indices of ``SPECS[name].names``.

    Attributes:
        values: Array (B,) of each factor by name, float32, or int64 for discrete factors.
    """

    values: dict[str, np.ndarray]

    names = FACTORS
    vector_names = VECTOR_NAMES

    def __getattr__(self, name: str) -> np.ndarray:
        try:
            return self.__dict__["values"][name]
        except KeyError:
            raise AttributeError(name) from None

    def __getitem__(self, name: str) -> np.ndarray:
        return self.values[name]

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    @property
    def identity(self) -> np.ndarray:
        """Geometry of the faces, (B, 16)."""
        return np.stack([self.values[name] for name in GEOMETRY], axis=1)

    def take(self, rows: slice | np.ndarray) -> Factors:
        """Returns the factors of some of the faces."""
        return Factors({name: value[rows] for name, value in self.values.items()})

    def to_vector(self) -> np.ndarray:
        """Returns the factors as vectors (B, F) float32, with the columns ``vector_names``.

        Continuous factors are standardised; discrete ones are one-hot.
        """
        columns: list[np.ndarray] = []
        for name, spec in SPECS.items():
            value = self.values[name]
            if isinstance(spec, Choice):
                columns += [(value == k).astype(np.float32) for k in range(len(spec.names))]
            else:
                columns.append(((value - spec.mean) / spec.std).astype(np.float32))
        return np.stack(columns, axis=1)


def normal_cdf(x: np.ndarray) -> np.ndarray:
    """Returns the normal cumulative distribution function, with an error below 1e-7.

    Uses formula 7.1.26 of Abramowitz and Stegun, as NumPy has no error function.
    """
    a = np.abs(x) / np.sqrt(2.0)
    t = 1.0 / (1.0 + 0.3275911 * a)
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = 1.0 - poly * np.exp(-a * a)
    return 0.5 * (1.0 + np.sign(x) * erf)


def factors_from_normals(n: np.ndarray) -> Factors:
    """Converts normals (B, K) to factors; continuous factors are continuous functions of the normals.

    Raises:
        UserError: The normals have another shape.
    """
    n = np.asarray(n, dtype=np.float64)
    if n.ndim != 2 or n.shape[1] != NUM_NORMALS:
        raise UserError(f"SynthFaces: got normals of shape {n.shape}, expected (B, {NUM_NORMALS})")
    values: dict[str, np.ndarray] = {}
    uniform = normal_cdf(n)
    for i, (name, spec) in enumerate(SPECS.items()):
        if isinstance(spec, Choice):
            cuts = np.cumsum(spec.probabilities)[:-1]
            values[name] = np.searchsorted(cuts, uniform[:, i], side="right").astype(np.int64)
        elif isinstance(spec, Uniform):
            values[name] = (spec.low + (spec.high - spec.low) * uniform[:, i]).astype(np.float32)
        else:
            values[name] = (spec.mean + spec.std * 2.5 * np.tanh(n[:, i] / 2.5)).astype(np.float32)
    return Factors(values)


def override_factors(factors: Factors, overrides: Mapping[str, Any]) -> Factors:
    """Returns factors of which some have fixed values.

    Args:
        factors: Factors of B faces.
        overrides: Values in natural units by name; a discrete factor is given by name or index.

    Raises:
        UserError: A factor is unknown, or its value is out of range.
    """
    values = dict(factors.values)
    for name, value in overrides.items():
        spec = SPECS[one_of("SynthFaces overrides: factor", name, SPECS)]
        option = f"SynthFaces overrides: {name}"
        if isinstance(spec, Choice):
            # In YAML, `eyeglasses: null` is None and `eyeglasses: false` a bool; both mean "none".
            if (value is None or value is False) and "none" in spec.names:
                value = "none"
            if isinstance(value, str):
                value = spec.names.index(one_of(option, value, spec.names))
            index = whole_number(option, value, 0, len(spec.names) - 1)
            values[name] = np.full(len(factors), index, dtype=np.int64)
        else:
            number = real_number(option, value, spec.low, spec.high)
            values[name] = np.full(len(factors), number, dtype=np.float32)
    return dataclasses.replace(factors, values=values)
