"""DHR's mask of what the generator can make: which pixels are in its domain.

Paper: see `methods.feature_space.dhr`. Official code: caopulan/GANInverter, commit e3d5d4d (inference/dhr_infer.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import real_number, true_or_false

#: Classes of FaRL's parser, in its order, and what the rules of DHR read of them.
CLASSES = (
    *("background", "neck", "face", "cloth", "right_ear", "left_ear", "right_brow", "left_brow", "right_eye"),
    *("left_eye", "nose", "mouth", "lower_lip", "upper_lip", "hair", "glasses", "hat", "earring", "necklace"),
)
_OUTSIDE = ("background", "cloth", "necklace", "earring", "hat")
_PARTS = CLASSES[4:14]


@dataclass
class DomainRules:
    """How a pixel is judged.

    Attributes:
        face: Largest distance of a superpixel of the face, or of any without a parser. Official code: 0.7.
        parts: Largest distance of ears, brows, eyes, nose and mouth. Official code: 0.8.
        others: Largest distance of everything else. Official code: 0.6, which its comment calls unused.
        drop_missed: Take superpixels for foreign that no sample of a coarse map hits, as the official code does, whose
            mean of no values is NaN. Otherwise their distance is interpolated.
    """

    face: float = 0.7
    parts: float = 0.8
    others: float = 0.6
    drop_missed: bool = False

    def __post_init__(self) -> None:
        for name in ("face", "parts", "others"):
            real_number(f"method.rules.{name}", getattr(self, name), least=0)
        true_or_false("method.rules.drop_missed", self.drop_missed)

    def threshold(self, label: int) -> float:
        """Returns the largest distance of a superpixel of a class of `CLASSES`."""
        name = CLASSES[label]
        return self.face if name == "face" else self.parts if name in _PARTS else self.others


@dataclass
class DomainMask:
    """The mask of one image, and what it is made of.

    Attributes:
        mask: 1 for pixels in the domain, (H, W).
        superpixel: The part of the distances, (H, W).
        parsing: The part of the parser, (H, W).
        distances: Distance of each superpixel, in the order of their numbers; NaN where it is not known.
    """

    mask: Tensor
    superpixel: Tensor
    parsing: Tensor
    distances: Tensor


def domain_mask(
    maps: Sequence[Tensor], superpixels: Tensor, rules: DomainRules, probabilities: Tensor | None = None
) -> DomainMask:
    """Returns the mask of one image.

    Args:
        maps: Perceptual distance of a coarse inversion at each position, (h, w) for each map of the network.
        superpixels: Number of the superpixel at each pixel, (H, W) int64.
        rules: The thresholds.
        probabilities: Of `CLASSES` at each pixel, (19, H, W); None without a parser, for which all is face.
    """
    if probabilities is not None and probabilities.shape != (len(CLASSES), *superpixels.shape):
        raise UserError(f"parsing: got {tuple(probabilities.shape)}, expected {(len(CLASSES), *superpixels.shape)}")
    numbers = superpixels.unique()
    distances = torch.stack([_distance(maps, superpixels == n, rules.drop_missed) for n in numbers])
    inside = torch.zeros_like(superpixels, dtype=maps[0].dtype)
    for number, distance in zip(numbers, distances, strict=True):
        region = superpixels == number
        label = CLASSES.index("face") if probabilities is None else int(probabilities[:, region].sum(1).argmax())
        inside[region] = float(distance < rules.threshold(label))  # False for NaN
    parsing = torch.ones_like(inside)
    if probabilities is not None:
        outside = probabilities[[CLASSES.index(name) for name in _OUTSIDE]].sum(0)
        parsing = (outside < 0.5).to(inside)
    return DomainMask(inside * parsing, inside, parsing, distances)


def _distance(maps: Sequence[Tensor], region: Tensor, drop_missed: bool) -> Tensor:
    total = maps[0].new_zeros(())
    for distances in maps:
        small = F.interpolate(region[None, None].to(distances), distances.shape, mode="nearest")[0, 0]
        if not drop_missed and not bool(small.any()):
            large = F.interpolate(distances[None, None], region.shape, mode="bilinear", align_corners=False)[0, 0]
            total = total + large[region].mean()
        else:
            total = total + (distances * small).sum() / small.sum()
    return total
