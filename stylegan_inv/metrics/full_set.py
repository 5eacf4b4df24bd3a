"""Frechet distances between many images of a generator and all training images, such as NVIDIA's fid50k_full.

NVlabs/stylegan2-ada-pytorch (d72cc7d, ``metrics/metric_main.py``) compares 50,000 images of the average generator, made
with random noise and without truncation, with all training images, without their mirror images even if the training
mirrors them. Its covariances divide by N, here by N - 1, which changes the distance by a factor of 1.00002.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from stylegan_inv.metrics.fid import FEATURES, load_inception
from stylegan_inv.metrics.frechet import FrechetDistance
from stylegan_inv.utils.checks import whole_number

_STATES = ("count", "sum", "outer")


class FullFrechetDistance(FrechetDistance):
    """Frechet distance between generated images and all training images; a training of generators fills it.

    The features of the training images are computed once, in the first validation of the process.

    Args:
        network: See :class:`.PooledSetMetric`.
        generated: Number of generated images. The distance decreases with it: only values of the same number compare.
        mirrored: Whether the mirror images of the training images count too.
        **kwargs: See :class:`.PooledSetMetric`.
    """

    #: Name under which the distance is logged; ``<name>_generated`` and ``<name>_real`` are the numbers of images.
    name = "frechet_full"

    def __init__(
        self, network: Any = "face_eval", generated: int = 50_000, mirrored: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(network, **kwargs)
        self.generated = whole_number(f"metrics.{self.name}.generated", generated, least=2)
        self.mirrored = bool(mirrored)
        self._real: dict[str, Tensor] = {}

    def fill(
        self,
        real: Callable[[], Iterable[Tensor]],
        sample: Callable[[int], Tensor],
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Adds the images of a rank to an empty metric.

        Args:
            real: Returns batches of the rank's training images, (B, 3, H, W) in [-1, 1].
            sample: Returns that many generated images, (B, 3, H, W).
            batch_size: Largest number of images to generate at a time.
            rank: Number of this process.
            world_size: Number of processes, over which the generated images are divided.
        """
        if not self._real:
            for images in real():
                self.update(images, real=True)
                if self.mirrored:
                    self.update(images.flip(-1), real=True)
            self._real = {name: getattr(self, f"real_{name}").clone() for name in _STATES}
        for name, value in self._real.items():
            setattr(self, f"real_{name}", value.clone())
        left = self.generated // world_size + (rank < self.generated % world_size)
        while left > 0:
            count = min(batch_size, left)
            self.update(sample(count), real=False)
            left -= count

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """Returns the distance, and the numbers of generated and of training images that it is computed from."""
        distance = super().compute()
        return {self.name: distance, f"{self.name}_generated": self.fake_count, f"{self.name}_real": self.real_count}

    def describe(self) -> str:
        """Returns the name of the network and the sets of images."""
        return f"{super().describe()}; {self.sets()}"

    def sets(self) -> str:
        """Returns what is compared."""
        of_real = "all training images" + (" and their mirror images" if self.mirrored else "")
        return f"{self.generated:,} generated images against {of_real}"


class FullFID(FullFrechetDistance):
    """FID of ``generated`` images against all training images: NVIDIA's fid50k_full.

    Args:
        weights: See :func:`.load_inception`.
        generated: See :class:`FullFrechetDistance`.
        mirrored: See :class:`FullFrechetDistance`.

    Raises:
        UserError: torch-fidelity is not installed, or the weights cannot be read.
    """

    name = "fid50k_full"

    def __init__(self, weights: str | Path = "inception", generated: int = 50_000, mirrored: bool = False) -> None:
        super().__init__(load_inception(weights), generated, mirrored, features=FEATURES)

    def describe(self) -> str:
        """Returns the name of the network and the sets of images."""
        return f"Frechet distance of the {FEATURES} pooled features of {self._description}; {self.sets()}"
