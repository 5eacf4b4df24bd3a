"""The factors of SynthFaces: their names, distributions and order."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Uniform:
    """A continuous factor with a uniform distribution.

    Attributes:
        low: Smallest value.
        high: Largest value.
    """

    low: float
    high: float

    @property
    def mean(self) -> float:
        """Mean of the distribution."""
        return (self.low + self.high) / 2

    @property
    def std(self) -> float:
        """Standard deviation of the distribution."""
        return (self.high - self.low) / 12**0.5


@dataclass(frozen=True)
class Gaussian:
    """A continuous factor with a normal distribution that is smoothly limited to mean +- 2.5 std.

    Attributes:
        mean: Mean of the normal distribution.
        std: Standard deviation of the normal distribution.
    """

    mean: float
    std: float

    @property
    def low(self) -> float:
        """Smallest value."""
        return self.mean - 2.5 * self.std

    @property
    def high(self) -> float:
        """Largest value."""
        return self.mean + 2.5 * self.std


@dataclass(frozen=True)
class Choice:
    """A discrete factor: a normal, cut at the quantiles of the probabilities.

    Attributes:
        names: Names of the choices.
        probabilities: Probability of each choice.
    """

    names: tuple[str, ...]
    probabilities: tuple[float, ...]


Spec = Uniform | Gaussian | Choice
_UNIT = Uniform(0.0, 1.0)
_SIGNED = Uniform(-1.0, 1.0)
_SHAPE = Gaussian(0.0, 1.0)

#: Factors of the shape of a face.
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

#: Distribution of each factor. Each has one normal, in this order. The order is part of the dataset: new factors are
#: appended, as any other change of the order changes every image.
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
#: Factors that the images of one person share; all others differ from image to image.
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
