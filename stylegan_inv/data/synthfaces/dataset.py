"""SynthFaces: procedural face portraits with ground truth, so that everything here can be tried offline.

Image *i* is a pure function of ``(seed, i)``: a keyed Philox counter gives ``NUM_NORMALS`` standard normals
(``synthfaces_normals``), the normals give the :class:`Factors` (``synthfaces_factors``: pose, expression, age, hair,
light, ...) and the factors give the picture, the label map and the masks (``synthfaces_render``). No file is read. The
factors are independent unless correlations are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from stylegan_inv.data.synthfaces.factors import Factors, factors_from_normals, override_factors
from stylegan_inv.data.synthfaces.normals import correlate, normals, obstacle_parameters
from stylegan_inv.data.synthfaces.render import check_resolution, render
from stylegan_inv.errors import UserError

LABELS = ("background", "skin", "hair", "eyes", "brows", "mouth", "glasses", "clothes")


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
