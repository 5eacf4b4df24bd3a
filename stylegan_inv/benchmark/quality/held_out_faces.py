"""The held-out faces of the benchmark, with and without an obstacle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from stylegan_inv.data.datamodules.synthfaces_datamodule import SynthFacesDataModule
from stylegan_inv.evaluate.evaluation_data import dataset_batches

CLEAR, COVERED = "clear", "covered"
#: Condition -> probability that an obstacle covers a part of the face.
CONDITIONS = {CLEAR: 0.0, COVERED: 1.0}
RESOLUTION = 64
_BATCH_SIZE = 50


@dataclass(frozen=True)
class Faces:
    """Held-out faces (seed 2) under one condition.

    Attributes:
        batch: ``image``, ``mask``, ``normals`` and ``index`` of all faces.
    """

    batch: Mapping[str, Tensor]

    @staticmethod
    def of(count: int, obstacles: float) -> Faces:
        """Returns the first ``count`` faces; ``obstacles`` is the probability of an obstacle."""
        data = SynthFacesDataModule(resolution=RESOLUTION, test_size=count, val_batch_size=count, obstacles=obstacles)
        data.setup("test")
        batch = next(dataset_batches(data, "test"))
        return Faces({key: batch[key] for key in ("image", "mask", "normals", "index")})

    def batches(self, count: int) -> Iterator[dict[str, Tensor]]:
        """Yields the first ``count`` faces in batches."""
        for first in range(0, count, _BATCH_SIZE):
            yield {key: value[first : min(first + _BATCH_SIZE, count)] for key, value in self.batch.items()}
