"""SynthFaces grouped by person, for training and evaluating face recognition networks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from stylegan_inv.data.datamodules.base import ImageDataModule
from stylegan_inv.data.synthfaces.dataset import SynthFaces
from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import whole_number

_log = logging.getLogger(__name__)


class People(Dataset[dict[str, Tensor]]):
    """SynthFaces by person: sample p holds all images of person p.

    The images of a person share the identity factors and differ in pose, expression, light, hair style and background.
    All images are rendered at the first access and kept in memory as uint8.

    Args:
        resolution: Side in pixels.
        seed: Seed of SynthFaces.
        people: Number of people.
        images_per_person: Number of images of each person.
    """

    def __init__(self, resolution: int, seed: int, people: int, images_per_person: int) -> None:
        self.source = SynthFaces(resolution, seed, people * images_per_person, identity_groups=images_per_person)
        self.people, self.images_per_person = people, images_per_person
        self._rendered: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return self.people

    def __getitems__(self, people: Sequence[int]) -> list[dict[str, Tensor]]:
        """Returns ``image`` (N, 3, R, R) in [-1, 1], ``factors`` (N, F), ``identity`` and ``index`` (N,) of people."""
        images, factors = self._render()
        count = self.images_per_person
        samples = []
        for person in people:
            rows = torch.arange(person * count, (person + 1) * count)
            image = images[rows].float() / 127.5 - 1
            samples.append({"image": image, "factors": factors[rows], "identity": rows // count, "index": rows})
        return samples

    def __getitem__(self, person: int) -> dict[str, Tensor]:
        return self.__getitems__([person])[0]

    def _render(self, chunk: int = 256) -> tuple[Tensor, Tensor]:
        if self._rendered is None:
            size, side = len(self.source), self.source.resolution
            _log.info("rendering %d images of %d people", size, self.people)
            images, factors = torch.empty(size, 3, side, side, dtype=torch.uint8), []
            for start in range(0, size, chunk):
                samples = self.source.__getitems__(range(start, min(start + chunk, size)))
                for row, sample in enumerate(samples, start):
                    images[row] = ((sample["image"] + 1) * 127.5).round().to(torch.uint8)
                    factors.append(sample["factors"])
            self._rendered = images, torch.stack(factors)
        return self._rendered


class PeopleDataModule(ImageDataModule):
    """SynthFaces by person, with other people in validation and test.

    A batch holds all images of ``batch_size`` people.

    Args:
        resolution: Side in pixels.
        people: Number of people in the training set.
        images_per_person: Number of images of each person, at least 2.
        people_seed: Seed of the training people; validation has seed 1 and test seed 2, as in all of SynthFaces.
        val_people: Number of people in validation and in test.
        domain: See :class:`.ImageDataModule`.
        **kwargs: See :class:`.ImageDataModule`.
    """

    def __init__(
        self,
        *,
        resolution: int = 64,
        people: int = 5000,
        images_per_person: int = 4,
        people_seed: int = 3,
        val_people: int = 500,
        domain: str = "synthfaces",
        **kwargs: Any,
    ) -> None:
        super().__init__(domain=domain, **kwargs)
        self.images_per_person = whole_number("dataset.images_per_person", images_per_person, 2)
        if people_seed in (1, 2):
            raise UserError(f"dataset.people_seed={people_seed}: 1 and 2 are validation and test; give another seed")
        self.resolution = resolution
        self.seeds = {"train": people_seed, "val": 1, "test": 2}
        self.sizes = {"train": people, "val": val_people, "test": val_people}

    def make(self, split: str) -> People:  # noqa: D102
        return People(self.resolution, self.seeds[split], self.sizes[split], self.images_per_person)

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Merges the dimensions of people and of their images: (people, N, ...) -> (people N, ...)."""
        return {name: value.flatten(0, 1) for name, value in batch.items()}
