"""The parameters of the hair styles of SynthFaces."""

from __future__ import annotations

import numpy as np

from stylegan_inv.data.synthfaces.canvas import F32, Params
from stylegan_inv.data.synthfaces.pixels import Maps

SHORT, SIDE_PART, FRINGE, BUN = 2, 3, 4, 8
# One row per style: thickness, opacity, hairline y, curvature of the hairline, y of the end of the side hair, largest
# head z of the side hair, y of the end of the curtain (0.4: no curtain), bumpiness of the outline.
_STYLES = np.array(
    [
        (0.004, 0.00, 0.60, 0.30, 0.00, -0.05, 0.4, 0.0),  # bald
        (0.020, 0.80, 0.48, 0.60, -0.02, 0.22, 0.4, 0.0),  # buzz
        (0.075, 1.00, 0.46, 0.70, -0.06, 0.24, 0.4, 0.2),  # short
        (0.095, 1.00, 0.46, 0.75, -0.05, 0.24, 0.4, 0.1),  # side part
        (0.085, 1.00, 0.27, 0.05, -0.20, 0.14, -0.15, 0.1),  # fringe
        (0.095, 1.00, 0.52, 0.95, -0.50, 0.20, -0.52, 0.0),  # bob
        (0.085, 1.00, 0.55, 1.00, -1.20, 0.20, -1.15, 0.0),  # long
        (0.190, 1.00, 0.44, 0.35, -0.30, 0.14, -0.05, 1.0),  # curly
        (0.050, 1.00, 0.52, 0.80, -0.02, 0.20, 0.4, 0.0),  # bun
    ],
    dtype=F32,
)


class HairStyle(Maps):
    """The parameters of each face's hair style, adjusted by the factors hair length, forehead and part.

    Args:
        p: Factors of the faces.
    """

    def __init__(self, p: Params) -> None:
        row = _STYLES[p.hair_style.reshape(-1).astype(int)].T[:, :, None, None]
        (self.thick, self.opacity, self.line, self.fall, self.end, self.front, self.curtain, self.bumpy) = row
        length = p.hair_length
        self.thick = self.thick * (0.7 + 0.6 * length)
        self.line = self.line + 0.02 * p.forehead
        self.curtain = np.where(self.curtain < 0.3, self.curtain + 0.22 * (0.5 - length), self.curtain).astype(F32)
        self.hangs = self.curtain < 0.3
        self.part_x = np.where(p.hair_style == SHORT, 0.0, 0.2 * p.hair_part).astype(F32)
        self.fringe = p.hair_style == FRINGE
        self.bun = p.hair_style == BUN
        self.parted = (p.hair_style == SIDE_PART) | (p.hair_style > FRINGE)
