"""SynthFaces: procedural face portraits with ground truth, so that everything here can be tried offline.

Image *i* is a pure function of ``(seed, i)``: a keyed Philox counter gives ``NUM_NORMALS`` standard normals, the
normals give the :class:`Factors` (pose, expression, age, hair, light, ...) and the factors give the picture, the label
map and the masks (:func:`render`). No file is read. The factors are independent unless correlations are asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from stylegan_inv.errors import UserError

if TYPE_CHECKING:
    from stylegan_inv.data.synthfaces_render import Rendered

LABELS = ("background", "skin", "hair", "eyes", "brows", "mouth", "glasses", "clothes")
OBSTACLES = ("microphone", "hand", "scarf", "text", "flat")
RESOLUTIONS = (32, 512)


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
_INDEX = {name: i for i, name in enumerate(FACTORS)}


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


def _phi(x: np.ndarray) -> np.ndarray:
    """Normal distribution function (Abramowitz and Stegun 7.1.26, error < 1e-7); numpy has no erf."""
    a = np.abs(x) / np.sqrt(2.0)
    t = 1.0 / (1.0 + 0.3275911 * a)
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = 1.0 - poly * np.exp(-a * a)
    return 0.5 * (1.0 + np.sign(x) * erf)


def _philox_normals(seed: int, stream: int, index: int, count: int) -> np.ndarray:
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
    rows = [_philox_normals(seed, 0, int(i), even)[:NUM_NORMALS] for i in indices]
    n = np.stack(rows) if rows else np.zeros((0, NUM_NORMALS))
    if identity_groups > 1:
        columns = [_INDEX[name] for name in IDENTITY_FACTORS]
        for row, index in zip(n, indices, strict=True):
            row[columns] = _philox_normals(seed, 1, int(index) // identity_groups, even)[columns]
    return n


def correlate(n: np.ndarray, correlations: Mapping[Any, float]) -> np.ndarray:
    """Mixes the normals so that pairs of factors are correlated (Gaussian copula; `{("age", "eyeglasses"): 0.6}`)."""
    matrix = np.eye(NUM_NORMALS)
    for pair, rho in correlations.items():
        # "age,eyeglasses" is how a YAML key says the pair.
        names = tuple(part.strip() for part in pair.split(",")) if isinstance(pair, str) else tuple(pair)
        if len(names) != 2 or names[0] == names[1] or any(name not in _INDEX for name in names):
            raise UserError(
                f"SynthFaces correlations: got the pair {pair!r}, expected two different factors out of "
                f"{', '.join(FACTORS)}."
            )
        if not -1.0 < rho < 1.0:
            raise UserError(f"SynthFaces correlations: got {rho} for {pair!r}, expected a number inside (-1, 1).")
        a, b = _INDEX[names[0]], _INDEX[names[1]]
        matrix[a, b] = matrix[b, a] = rho
    try:
        lower = np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        raise UserError(
            "SynthFaces correlations: together they are impossible (not positive definite); use smaller numbers."
        ) from None
    return n @ lower.T


def factors_from_normals(n: np.ndarray) -> Factors:
    """Normals (B, K) -> factors; continuous wherever the factor is."""
    n = np.asarray(n, dtype=np.float64)
    if n.ndim != 2 or n.shape[1] != NUM_NORMALS:
        raise UserError(f"SynthFaces: got normals of shape {n.shape}, expected (B, {NUM_NORMALS}).")
    values: dict[str, np.ndarray] = {}
    uniform = _phi(n)
    for i, (name, spec) in enumerate(SPECS.items()):
        if isinstance(spec, Choice):
            cuts = np.cumsum(spec.probabilities)[:-1]
            values[name] = np.searchsorted(cuts, uniform[:, i], side="right").astype(np.int64)
        elif isinstance(spec, Uniform):
            values[name] = (spec.low + (spec.high - spec.low) * uniform[:, i]).astype(np.float32)
        else:
            values[name] = (spec.mean + spec.std * 2.5 * np.tanh(n[:, i] / 2.5)).astype(np.float32)
    return Factors(values)


def factor_features(normals: Tensor) -> Tensor:
    """Normals (B, K) -> (B, 150): the factor vector, and cosines (for hues sines too) of uniform factors.

    What a network needs to read a factor linearly: colours run round a circle or along a ramp of several colours. All
    columns have mean 0 and variance 1, those of discrete factors too: a rare choice is worth as much as a common one.
    """
    n = normals.detach().cpu().numpy().astype(np.float64)
    shares = [spec.probabilities if isinstance(spec, Choice) else (np.nan,) for spec in SPECS.values()]
    p = np.concatenate(shares)
    vector = factors_from_normals(n).to_vector()
    columns = [np.where(np.isnan(p), vector, (vector - p) / np.sqrt(p * (1 - p)))]
    uniform = _phi(n)
    for i, (name, spec) in enumerate(SPECS.items()):
        if not isinstance(spec, Uniform):
            continue
        hue = name.endswith("_hue")
        for k in (2, 4) if hue else (1, 2, 3):
            angle = np.pi * k * uniform[:, i : i + 1]
            columns += [np.sqrt(2.0) * wave(angle) for wave in ((np.cos, np.sin) if hue else (np.cos,))]
    return torch.from_numpy(np.concatenate(columns, axis=1).astype(np.float32))


def factor_knots() -> list[tuple[int, float, float]]:
    """Where the factors bend as functions of the normals: (column, position, slope) of ramps that can describe them.

    One gentle ramp for each normal, a steep pair at each cut between two choices, a few along uniform factors and more
    round the circle of a hue.
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


def obstacle_parameters(seed: int, indices: Sequence[int] | np.ndarray, probability: float) -> np.ndarray:
    """(B, 10) float32 for `render`: column 0 the kind (-1: none), the others standard normals.

    Drawn from their own stream: the face below an obstacle is the same with and without it.
    """
    if not 0.0 <= probability <= 1.0:
        raise UserError(f"SynthFaces: got obstacles={probability}, expected a probability in [0, 1].")
    out = np.full((len(indices), 10), -1.0, dtype=np.float32)
    for row, index in zip(out, indices, strict=True):
        n = _philox_normals(seed, 2, int(index), 12)
        chance, kind = _phi(n[:2])
        row[0] = int(kind * len(OBSTACLES)) if chance < probability else -1
        row[1:] = n[2:11]
    return out


def render(factors: Factors, resolution: int, obstacles: np.ndarray | None = None) -> Rendered:
    """Draws faces: see `synthfaces_render.render` (imported here on the first use, since it imports this module)."""
    from stylegan_inv.data import synthfaces_render

    return synthfaces_render.render(factors, resolution, obstacles)


class SynthFaces(Dataset[dict[str, Any]]):
    """Procedural portraits as a map-style dataset; no state, so any worker renders the same image i.

    Args:
        resolution: side in pixels, 32 to 512.
        seed: 0 is the training set, 1 validation, 2 test (by convention of this project).
        size: number of images.
        start: index of the first one.
        obstacles: probability that something (microphone, hand, scarf, text, flat shape) is in front of the face.
        overrides: factors to fix, in natural units, e.g. ``{"yaw": 0.0, "eyeglasses": "clear"}``.
        correlations: pairs of factors and the correlation of their normals, e.g. ``{("age", "eyeglasses"): 0.6}``.
        identity_groups: that many consecutive images show the same person.
    """

    def __init__(
        self,
        resolution: int = 64,
        seed: int = 0,
        size: int = 70000,
        start: int = 0,
        obstacles: float = 0.0,
        overrides: Mapping[str, Any] | None = None,
        correlations: Mapping[Any, float] | None = None,
        identity_groups: int = 1,
    ) -> None:
        check_resolution(resolution)
        for name, value, least in (
            ("seed", seed, 0),
            ("size", size, 1),
            ("start", start, 0),
            ("identity_groups", identity_groups, 1),
        ):
            if int(value) != value or value < least:
                raise UserError(f"SynthFaces: got {name}={value}, expected an integer >= {least}.")
        self.resolution, self.seed, self.size, self.start = int(resolution), int(seed), int(size), int(start)
        self.obstacles, self.identity_groups = float(obstacles), int(identity_groups)
        self.overrides, self.correlations = dict(overrides or {}), dict(correlations or {})
        self.factors([0])  # a wrong override, correlation or probability is said now, not in a worker
        obstacle_parameters(self.seed, [], self.obstacles)

    def __len__(self) -> int:
        return self.size

    def normals(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The (B, K) normals of some images, correlations included."""
        n = normals(self.seed, np.asarray(indices) + self.start, self.identity_groups)
        return correlate(n, self.correlations) if self.correlations else n

    def factors(self, indices: Sequence[int] | np.ndarray) -> Factors:
        """The factors of some images, overrides included."""
        return override_factors(factors_from_normals(self.normals(indices)), self.overrides)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        index = np.array([int(i) + self.size if i < 0 else int(i) for i in indices], dtype=np.int64)
        if index.size and (index.min() < 0 or index.max() >= self.size):
            raise IndexError(f"SynthFaces: got indices {index.min()} to {index.max()}, expected below {self.size}.")
        n = self.normals(index)
        factors = override_factors(factors_from_normals(n), self.overrides)
        obstacles = obstacle_parameters(self.seed, index + self.start, self.obstacles) if self.obstacles > 0 else None
        out = render(factors, self.resolution, obstacles)
        image = torch.from_numpy(np.ascontiguousarray(out.image.transpose(0, 3, 1, 2))).float() / 127.5 - 1.0
        label = torch.from_numpy(out.label).long()
        mask, obstacle = torch.from_numpy(out.mask)[:, None], torch.from_numpy(out.obstacle)[:, None]
        vector, normal = torch.from_numpy(factors.to_vector()), torch.from_numpy(n.astype(np.float32))
        items: list[dict[str, Any]] = []
        for row, i in enumerate(index.tolist()):
            items.append(
                {
                    "image": image[row],
                    "mask": mask[row],
                    "label": label[row],
                    "obstacle": obstacle[row],
                    "normals": normal[row],
                    "factors": vector[row],
                    "identity": (i + self.start) // self.identity_groups,
                    "index": i,
                }
            )
        return items

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]


def sample_identity_pairs(seed: int, count: int, resolution: int = 64) -> tuple[Tensor, Tensor]:
    """Two pictures each of `count` people: images (count, 3, R, R) twice."""
    items = SynthFaces(resolution, seed, 2 * count, identity_groups=2).__getitems__(range(2 * count))
    images = torch.stack([item["image"] for item in items])
    return images[0::2], images[1::2]


def check_resolution(resolution: int) -> None:
    """Raises UserError for a side the renderer does not support."""
    low, high = RESOLUTIONS
    if int(resolution) != resolution or not low <= resolution <= high:
        raise UserError(f"SynthFaces: got resolution={resolution}, expected an integer from {low} to {high}.")
