"""SynthFaces: procedural face portraits with ground truth, which need no download.

Image i is a pure function of ``(seed, i)``. A counter-based generator gives ``NUM_NORMALS`` standard normals
(:mod:`.normals`), the normals give the :class:`.Factors` (:mod:`.factors`: pose, expression, age, hair, light, ...),
and the factors give the image, the label map and the masks (:mod:`.render`). The factors are independent unless
correlations are given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from stylegan_inv.data.synthfaces.correlated_normals import correlate, normals, obstacle_parameters
from stylegan_inv.data.synthfaces.factors import Factors, factors_from_normals, override_factors
from stylegan_inv.data.synthfaces.render import check_resolution, render
from stylegan_inv.utils.checks import whole_number

#: Names of the classes of the label map.
LABELS = ("background", "skin", "hair", "eyes", "brows", "mouth", "glasses", "clothes")


class SynthFaces(Dataset[dict[str, Any]]):
    """A map-style dataset of procedural portraits. It has no state, so image i is the same in every worker.

    A sample is a dict with ``image`` (3, R, R) in [-1, 1], ``mask`` of head and hair and ``obstacle`` (1, R, R) in
    [0, 1], ``label`` (R, R) int64, ``normals`` (K,), ``factors`` (F,), ``identity`` and ``index``.

    Args:
        resolution: Side in pixels, 32 to 512.
        seed: Seed; this project uses 0 for training, 1 for validation and 2 for test.
        size: Number of images.
        start: Index of the first image.
        obstacles: Probability of an obstacle (microphone, hand, scarf, text or flat shape) in front of the face.
        overrides: Factors to fix, in natural units, e.g. ``{"yaw": 0.0, "eyeglasses": "clear"}``.
        correlations: Correlations of the normals of pairs of factors, e.g. ``{("age", "eyeglasses"): 0.6}``.
        identity_groups: Number of consecutive images that show the same person.

    Raises:
        UserError: An argument is out of range.
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
        self.resolution = resolution
        self.seed = whole_number("SynthFaces: seed", seed, 0)
        self.size = whole_number("SynthFaces: size", size)
        self.start = whole_number("SynthFaces: start", start, 0)
        self.identity_groups = whole_number("SynthFaces: identity_groups", identity_groups)
        self.obstacles, self.overrides = float(obstacles), dict(overrides or {})
        self.correlations = dict(correlations or {})
        # Raises for wrong overrides, correlations or probabilities now, and not in a worker.
        self.factors([0])
        obstacle_parameters(self.seed, [], self.obstacles)

    def __len__(self) -> int:
        return self.size

    def normals(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Returns the normals (B, K) of some images, with the correlations."""
        n = normals(self.seed, np.asarray(indices) + self.start, self.identity_groups)
        return correlate(n, self.correlations) if self.correlations else n

    def factors(self, indices: Sequence[int] | np.ndarray) -> Factors:
        """Returns the factors of some images, with the overrides."""
        return override_factors(factors_from_normals(self.normals(indices)), self.overrides)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        index = np.array([int(i) + self.size if i < 0 else int(i) for i in indices], dtype=np.int64)
        if index.size and (index.min() < 0 or index.max() >= self.size):
            raise IndexError(f"SynthFaces: got indices {index.min()} to {index.max()}, expected below {self.size}")
        n = self.normals(index)
        factors = override_factors(factors_from_normals(n), self.overrides)
        obstacles = obstacle_parameters(self.seed, index + self.start, self.obstacles) if self.obstacles > 0 else None
        out = render(factors, self.resolution, obstacles)
        image = torch.from_numpy(np.ascontiguousarray(out.image.transpose(0, 3, 1, 2))).float() / 127.5 - 1.0
        label = torch.from_numpy(out.label).long()
        mask, obstacle = torch.from_numpy(out.mask)[:, None], torch.from_numpy(out.obstacle)[:, None]
        vector, normal = torch.from_numpy(factors.to_vector()), torch.from_numpy(n.astype(np.float32))
        samples: list[dict[str, Any]] = []
        for row, i in enumerate(index.tolist()):
            samples.append(
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
        return samples

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]


def sample_identity_pairs(seed: int, count: int, resolution: int = 64) -> tuple[Tensor, Tensor]:
    """Returns two images of each of ``count`` people, as two tensors (count, 3, R, R)."""
    samples = SynthFaces(resolution, seed, 2 * count, identity_groups=2).__getitems__(range(2 * count))
    images = torch.stack([sample["image"] for sample in samples])
    return images[0::2], images[1::2]
