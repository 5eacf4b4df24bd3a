"""GANSpace: principal components of W as directions.

"GANSpace: Discovering Interpretable GAN Controls", Härkönen, Hertzmann, Lehtinen, Paris, NeurIPS 2020, arXiv
2004.02546. File format of components: https://github.com/omertov/encoder4editing (99ea505), editings/ganspace.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.latents.directions import Direction
from stylegan_inv.latents.statistics import WStatistics


@dataclass(frozen=True, eq=False)
class Components:
    """Principal components of W.

    Attributes:
        mean: (D,).
        axes: (K, D) of unit length, largest variance first.
        std: (K,) standard deviation of codes along each.
        generator_hash: of the generator, or None.
    """

    mean: Tensor
    axes: Tensor
    std: Tensor
    generator_hash: str | None = None

    def direction(self, index: int, layers: Sequence[int] | None = None) -> Direction:
        """One component as a direction with its standard deviation as unit: edits shift, and so combine."""
        self._check(index)
        return Direction(
            self.axes[index],
            f"pca_{index}",
            layers=None if layers is None else tuple(layers),
            unit=float(self.std[index]),
            generator_hash=self.generator_hash,
            made={"by": "GANSpace", "component": str(index)},
        )

    def set_coordinate(self, w: Tensor, index: int, strength: float, layers: Sequence[int]) -> Tensor:
        """Codes (B, L, D) with the coordinate set to ``strength`` standard deviations, as e4e's script edits.

        The coordinate is read from layer 0 alone and the change added to ``layers``; such edits do not combine, as each
        sets its coordinate anew.
        """
        self._check(index)
        axis, std = self.axes[index].to(w), self.std[index].to(w)
        now = (w[:, 0] - self.mean.to(w)) @ axis / std
        out = w.clone()
        out[:, list(layers)] += ((strength - now) * std)[:, None, None] * axis
        return out

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self.axes):
            raise UserError(f"component {index}: expected 0 to {len(self.axes) - 1}")


def components(w: Tensor, count: int = 80, generator_hash: str | None = None) -> Components:
    """The first ``count`` principal components of codes (N, D)."""
    found = WStatistics.of(w)
    if not 1 <= count <= len(found.std):
        raise UserError(f"ganspace: got count={count}, expected 1 to {len(found.std)}")
    return Components(found.mean, found.axes[:count], found.std[:count], generator_hash)


def load_components(path: str | Path) -> Components:
    """Read a published file: a dict of ``mean`` (1, D), ``comp`` (K, 1, D) and ``std`` (K,), written by torch.save.

    Raises:
        UserError: No such file, or one that holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected GANSpace's components (.pt)")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        mean, axes, std = (torch.as_tensor(content[key]).float() for key in ("mean", "comp", "std"))
        axes = axes.reshape(len(std), -1)
        return Components(mean.reshape(axes.shape[1]), axes, std)
    except Exception as error:  # the many ways a file can be something else
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: not a file of components ({reason}); expected mean, comp and std") from error
