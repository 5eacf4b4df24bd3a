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
from stylegan_inv.generators.io.torch_pickle import load_checked
from stylegan_inv.latents.directions import Direction
from stylegan_inv.latents.statistics import WStatistics
from stylegan_inv.utils.checks import whole_number

#: Name of the directions, before the number of their component.
PRINCIPAL = "pca"


@dataclass(frozen=True, eq=False)
class Components:
    """Principal components of W.

    Attributes:
        mean: Mean of W, (D,).
        axes: Unit vectors (K, D), largest variance first.
        std: Standard deviation (K,) of codes along each axis.
        generator_hash: Hash of the generator, or None.
    """

    mean: Tensor
    axes: Tensor
    std: Tensor
    generator_hash: str | None = None

    def direction(self, index: int, layers: Sequence[int] | None = None) -> Direction:
        """Returns a component as a direction whose unit is its standard deviation. Such edits can be combined.

        Args:
            index: Index of the component.
            layers: Layers that the direction changes; None for all.
        """
        self._check(index)
        return Direction(
            self.axes[index],
            f"{PRINCIPAL}_{index}",
            layers=None if layers is None else tuple(layers),
            unit=float(self.std[index]),
            generator_hash=self.generator_hash,
            made={"by": "GANSpace", "component": str(index)},
        )

    def set_coordinate(self, w: Tensor, index: int, strength: float, layers: Sequence[int]) -> Tensor:
        """Returns codes whose coordinate along a component is set to ``strength``, as in e4e's script.

        The current coordinate is computed from layer 0 alone, and the change is added to ``layers``. Such edits cannot
        be combined, because each sets its coordinate anew.

        Args:
            w: Codes (B, L, D).
            index: Index of the component.
            strength: New coordinate, in standard deviations.
            layers: Layers to change.
        """
        self._check(index)
        axis, std = self.axes[index].to(w), self.std[index].to(w)
        current = (w[:, 0] - self.mean.to(w)) @ axis / std
        out = w.clone()
        out[:, list(layers)] += ((strength - current) * std)[:, None, None] * axis
        return out

    def _check(self, index: int) -> None:
        whole_number("component", index, 0, len(self.axes) - 1)


def components(w: Tensor, count: int = 80, generator_hash: str | None = None) -> Components:
    """Returns the first principal components of codes.

    Args:
        w: Codes (N, D).
        count: Number of components.
        generator_hash: Hash of the generator.

    Raises:
        UserError: There are fewer components.
    """
    statistics = WStatistics.of(w)
    whole_number("ganspace: count", count, 1, len(statistics.std))
    return Components(statistics.mean, statistics.axes[:count], statistics.std[:count], generator_hash)


def load_components(path: str | Path) -> Components:
    """Loads a published file: a dict of ``mean`` (1, D), ``comp`` (K, 1, D) and ``std`` (K,), written by torch.save.

    Raises:
        UserError: There is no such file, or it holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected GANSpace's components (.pt)")
    try:
        content = load_checked(path)
        mean, axes, std = (torch.as_tensor(content[key]).float() for key in ("mean", "comp", "std"))
        axes = axes.reshape(len(std), -1)
        return Components(mean.reshape(axes.shape[1]), axes, std)
    except Exception as error:  # torch raises many kinds of errors for files of other content
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: not a file of components ({reason}); expected mean, comp and std") from error
