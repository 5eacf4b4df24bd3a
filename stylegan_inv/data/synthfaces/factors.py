"""The factors of SynthFaces: what they are, how they follow from normals, how to fix some of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stylegan_inv.errors import UserError


@dataclass(frozen=True)
class Uniform:
    """A continuous factor, uniform on [low, high]: Phi(normal) rescaled."""

    low: float
    high: float

    @property
    def mean(self) -> float:
        """Of the distribution."""
        return (self.low + self.high) / 2

    @property
    def std(self) -> float:
        """Standard deviation."""
        return (self.high - self.low) / 12**0.5


@dataclass(frozen=True)
class Gaussian:
    """A continuous factor, normal but smoothly limited to mean +- 2.5 std (no unseen extremes)."""

    mean: float
    std: float

    @property
    def low(self) -> float:
        """Least possible value."""
        return self.mean - 2.5 * self.std

    @property
    def high(self) -> float:
        """Greatest possible value."""
        return self.mean + 2.5 * self.std


@dataclass(frozen=True)
class Choice:
    """A discrete factor: one normal cut at the quantiles of `probabilities`."""

    names: tuple[str, ...]
    probabilities: tuple[float, ...]


Spec = Uniform | Gaussian | Choice
_UNIT = Uniform(0.0, 1.0)
_SIGNED = Uniform(-1.0, 1.0)
_SHAPE = Gaussian(0.0, 1.0)

GEOMETRY = (
    "face_width",
    "face_length",
    "jaw_width",
    "chin",
    "cheekbones",
    "eye_size",
    "eye_spacing",
    "eye_tilt",
    "brow_height",
    "brow_thickness",
    "nose_length",
    "nose_width",
    "nose_bridge",
    "mouth_width",
    "lip_fullness",
    "forehead",
)

# One normal each, in this order. The order is part of the dataset: append only, or every image changes.
SPECS: dict[str, Spec] = {
    **dict.fromkeys(GEOMETRY, _SHAPE),
    "yaw": Gaussian(0.0, 13.0),
    "pitch": Gaussian(0.0, 5.0),
    "smile": _UNIT,
    "mouth_open": _UNIT,
    "age": Uniform(18.0, 80.0),
    "gender": _SIGNED,
    "eyeglasses": Choice(("none", "clear", "sunglasses"), (0.72, 0.21, 0.07)),
    "glasses_shape": _UNIT,
    "glasses_thickness": _UNIT,
    "glasses_colour": _UNIT,
    "skin_tone": _UNIT,
    "skin_undertone": _SIGNED,
    "eye_colour": _UNIT,
    "hair_style": Choice(
        ("bald", "buzz", "short", "side_part", "fringe", "bob", "long", "curly", "bun"),
        (0.06, 0.09, 0.17, 0.15, 0.11, 0.11, 0.14, 0.09, 0.08),
    ),
    "hair_length": _UNIT,
    "hair_colour": _UNIT,
    "hair_redness": _UNIT,
    "hair_wave": _SIGNED,
    "hair_part": _SIGNED,
    "beard": Choice(("none", "stubble", "moustache", "goatee", "full"), (0.62, 0.12, 0.07, 0.08, 0.11)),
    "beard_length": _UNIT,
    "light_x": _SHAPE,
    "light_y": _SHAPE,
    "light_warmth": _SHAPE,
    "light_contrast": _UNIT,
    "background": Choice(
        ("plain", "gradient", "studio", "bokeh", "outdoor", "wall", "window"),
        (0.14, 0.16, 0.16, 0.15, 0.17, 0.11, 0.11),
    ),
    "background_hue": _UNIT,
    "background_value": _UNIT,
    "background_a": _SIGNED,
    "background_b": _SIGNED,
    "clothes": Choice(("crew", "collar", "v_neck", "stripes"), (0.34, 0.26, 0.22, 0.18)),
    "clothes_hue": _UNIT,
    "clothes_value": _UNIT,
    "gaze": _SHAPE,
    "makeup": _UNIT,
    "eye_open": _SHAPE,
    "brow_raise": _SHAPE,
}
FACTORS: tuple[str, ...] = tuple(SPECS)
NUM_NORMALS = len(FACTORS)
#: What two photographs of one person share; the rest is drawn anew for each picture.
IDENTITY_FACTORS: tuple[str, ...] = (
    *GEOMETRY,
    "gender",
    "skin_tone",
    "skin_undertone",
    "eye_colour",
    "hair_colour",
    "hair_redness",
)
FACTOR_INDEX = {name: i for i, name in enumerate(FACTORS)}


def _vector_names() -> tuple[str, ...]:
    names: list[str] = []
    for name, spec in SPECS.items():
        names += [f"{name}={n}" for n in spec.names] if isinstance(spec, Choice) else [name]
    return tuple(names)


VECTOR_NAMES: tuple[str, ...] = _vector_names()


@dataclass
class Factors:
    """The factors of B faces in natural units: one array (B,) a factor, float32, or int64 for the discrete ones.

    Units: yaw (positive: nose to the image's right) and pitch (positive: up) in degrees, age in years, identity
    geometry and light in standard deviations, gender expression in [-1, 1] (feminine to masculine), the others in
    [0, 1] or [-1, 1]; discrete factors are indices into ``SPECS[name].names``.
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
        """The (B, 16) identity geometry."""
        return np.stack([self.values[name] for name in GEOMETRY], axis=1)

    def take(self, rows: slice | np.ndarray) -> Factors:
        """The factors of some rows."""
        return Factors({name: value[rows] for name, value in self.values.items()})

    def to_vector(self) -> np.ndarray:
        """(B, F) float32: continuous factors standardised, discrete ones one-hot; columns are `vector_names`."""
        columns: list[np.ndarray] = []
        for name, spec in SPECS.items():
            value = self.values[name]
            if isinstance(spec, Choice):
                columns += [(value == k).astype(np.float32) for k in range(len(spec.names))]
            else:
                columns.append(((value - spec.mean) / spec.std).astype(np.float32))
        return np.stack(columns, axis=1)


def normal_cdf(x: np.ndarray) -> np.ndarray:
    """Normal distribution function (Abramowitz and Stegun 7.1.26, error < 1e-7); numpy has no erf."""
    a = np.abs(x) / np.sqrt(2.0)
    t = 1.0 / (1.0 + 0.3275911 * a)
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = 1.0 - poly * np.exp(-a * a)
    return 0.5 * (1.0 + np.sign(x) * erf)


def factors_from_normals(n: np.ndarray) -> Factors:
    """Normals (B, K) -> factors; continuous wherever the factor is."""
    n = np.asarray(n, dtype=np.float64)
    if n.ndim != 2 or n.shape[1] != NUM_NORMALS:
        raise UserError(f"SynthFaces: got normals of shape {n.shape}, expected (B, {NUM_NORMALS}).")
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
    """Factors with some fixed, in natural units (a discrete one by name or index)."""
    values = dict(factors.values)
    for name, value in overrides.items():
        spec = SPECS.get(name)
        if spec is None:
            raise UserError(f"SynthFaces overrides: got the factor {name!r}, expected one of {', '.join(FACTORS)}.")
        if isinstance(spec, Choice):
            # YAML reads `none` as a string, but `null` as None and `eyeglasses: false` as a bool: both mean "none".
            if (value is None or value is False) and "none" in spec.names:
                value = "none"
            if isinstance(value, str):
                if value not in spec.names:
                    raise UserError(
                        f"SynthFaces overrides: got {name}={value!r}, expected one of {', '.join(spec.names)}."
                    )
                value = spec.names.index(value)
            if not 0 <= int(value) < len(spec.names):
                raise UserError(f"SynthFaces overrides: got {name}={value}, expected 0 to {len(spec.names) - 1}.")
            values[name] = np.full(len(factors), int(value), dtype=np.int64)
        else:
            if not spec.low <= float(value) <= spec.high:
                raise UserError(
                    f"SynthFaces overrides: got {name}={value}, expected a number in [{spec.low:g}, {spec.high:g}]."
                )
            values[name] = np.full(len(factors), float(value), dtype=np.float32)
    return dataclasses.replace(factors, values=values)
