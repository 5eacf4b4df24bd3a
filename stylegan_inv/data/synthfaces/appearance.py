"""Light and colours of a SynthFaces portrait."""

from __future__ import annotations

import numpy as np

from stylegan_inv.data.synthfaces.canvas import F32, Array, Params, at_least, hsv, mix, ramp, rgb, smooth
from stylegan_inv.data.synthfaces.pixels import Maps

_SKIN = rgb("fbe0cf", "f1c8ab", "dfa983", "bd8159", "8d5836", "55321f")
_HAIR = rgb("14100e", "2a1b13", "4a2e1c", "7a5230", "b08a50", "dcc089")
_EYES = rgb("3a2113", "54341b", "7a5a30", "6d7a45", "5d8b8f", "5f93c2", "8fa3ad")


class Light(Maps):
    """A directional key light, and ambient light from above.

    Args:
        p: Factors of the faces.
    """

    def __init__(self, p: Params) -> None:
        x, y = 0.42 * p.light_x, 0.38 + 0.2 * p.light_y
        z = np.full_like(x, 0.8)
        norm = np.sqrt(x * x + y * y + z * z)
        self.lx, self.ly, self.lz = x / norm, y / norm, z / norm
        warm = 0.07 * p.light_warmth
        self.tint = np.stack([1 + warm, 1 + 0.1 * warm, 1 - 1.1 * warm]).astype(F32)
        self.key = 0.80 + 0.35 * p.light_contrast
        self.ambient = 0.46 - 0.24 * p.light_contrast

    def lambert(self, normal: tuple[Array, Array, Array]) -> Array:
        """Returns the cosine of the angle between normals and the key light, which may be negative."""
        return normal[0] * self.lx + normal[1] * self.ly + normal[2] * self.lz

    def half_cosine(self, normal: tuple[Array, Array, Array]) -> Array:
        """Returns the cosine of the angle between normals and the half vector of light and viewer, at least 0."""
        hx, hy, hz = self.lx, self.ly, self.lz + 1
        norm = np.sqrt(hx * hx + hy * hy + hz * hz)
        return at_least((normal[0] * hx + normal[1] * hy + normal[2] * hz) / norm, 0)

    def shade(
        self, normal: tuple[Array, Array, Array], wrap: tuple[float, float, float], occlusion: Array | float
    ) -> Array:
        """Returns the irradiance (3, B, R, R).

        Args:
            normal: Normals in view coordinates.
            wrap: How far the key light reaches beyond the terminator, for each channel. On skin, red reaches furthest,
                as light scatters below the surface.
            occlusion: Factor of the irradiance.
        """
        cosine = self.lambert(normal)
        sky = (0.78 + 0.22 * normal[1]) * self.ambient
        out = np.empty((3, *cosine.shape), dtype=F32)
        for channel, w in zip(out, wrap, strict=True):
            np.add(cosine, F32(w), out=channel)
            channel *= F32(1 / (1 + w))
            np.clip(channel, 0, np.inf, out=channel)
            channel *= self.key
            channel += sky
            channel *= occlusion
        out *= self.tint
        return out


class Colours(Maps):
    """Linear-light colours (3, B, 1, 1) of skin, hair, brows, irises, lips and clothes.

    Args:
        p: Factors of the faces.
        old: Degree of visible ageing, in [0, 1].
    """

    def __init__(self, p: Params, old: Array) -> None:
        skin = ramp(_SKIN, p.skin_tone)
        tilt = 0.05 * p.skin_undertone
        skin = skin * np.stack([1 + 0.3 * tilt, 1 + 0.6 * tilt, 1 - 2.2 * tilt]).astype(F32)
        self.skin = mix(skin, skin.mean(axis=0, keepdims=True), 0.18 * old)
        hair = ramp(_HAIR, p.hair_colour)
        red = rgb("8a3413").reshape(3, 1, 1, 1)
        hair = mix(hair, red * (0.5 + p.hair_colour), 0.75 * smooth(p.hair_redness, 0.75, 0.97))
        grey = np.ones((3, 1, 1, 1), dtype=F32) * (0.24 + 0.34 * old)
        greying = smooth(p.age + 12 * (p.hair_redness - 0.5), 50, 80)
        self.hair = mix(hair, grey, 0.92 * greying)
        self.brow = mix(self.hair, rgb("1c130e").reshape(3, 1, 1, 1), F32(0.45))
        self.iris = ramp(_EYES, p.eye_colour * p.eye_colour * 0.55 + 0.45 * p.eye_colour)
        self.lip = self.skin * np.array([0.86, 0.52, 0.52], dtype=F32).reshape(3, 1, 1, 1)
        lipstick = hsv(-0.02 + 0.03 * p.skin_undertone, 0.75, 0.62)
        self.lip = mix(self.lip, lipstick, 0.8 * smooth(p.makeup, 0.65, 0.95))

        hue, value = p.clothes_hue, 0.16 + 0.74 * p.clothes_value
        self.cloth = hsv(hue, 0.15 + 0.55 * np.abs(2 * p.clothes_value - 1.0) * (p.clothes_value < 0.8), value)
        self.stripe = hsv(hue + 0.45, 0.25, np.clip(1.1 - value, 0.1, 0.95))
