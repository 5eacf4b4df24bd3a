"""People with several pictures each, for training and judging face networks."""

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

_log = logging.getLogger(__name__)


class People(Dataset[dict[str, Tensor]]):
    """SynthFaces by person: item p holds all pictures of person p.

    The pictures share the identity and differ in pose, expression, light, hair style and surroundings. All are rendered
    when the first is asked for, and kept in memory as uint8.

    Args:
        resolution: Side in pixels.
        seed: Of SynthFaces.
        people: How many.
        pictures: Of each person.
    """

    def __init__(self, resolution: int, seed: int, people: int, pictures: int) -> None:
        self.source = SynthFaces(resolution, seed, people * pictures, identity_groups=pictures)
        self.people, self.pictures = people, pictures
        self._rendered: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return self.people

    def __getitems__(self, people: Sequence[int]) -> list[dict[str, Tensor]]:
        """For each person: image (pictures, 3, R, R) in [-1, 1], factors (pictures, F), identity, index (pictures,)."""
        images, factors = self._render()
        items = []
        for person in people:
            rows = torch.arange(person * self.pictures, (person + 1) * self.pictures)
            image = images[rows].float() / 127.5 - 1
            items.append({"image": image, "factors": factors[rows], "identity": rows // self.pictures, "index": rows})
        return items

    def __getitem__(self, person: int) -> dict[str, Tensor]:
        return self.__getitems__([person])[0]

    def _render(self, chunk: int = 256) -> tuple[Tensor, Tensor]:
        if self._rendered is None:
            size, side = len(self.source), self.source.resolution
            _log.info("rendering %d pictures of %d people", size, self.people)
            images, factors = torch.empty(size, 3, side, side, dtype=torch.uint8), []
            for start in range(0, size, chunk):
                items = self.source.__getitems__(range(start, min(start + chunk, size)))
                for row, item in enumerate(items, start):
                    images[row] = ((item["image"] + 1) * 127.5).round().to(torch.uint8)
                    factors.append(item["factors"])
            self._rendered = images, torch.stack(factors)
        return self._rendered


class PeopleDataModule(ImageDataModule):
    """Training people, and others for validation and test; a batch holds all pictures of ``batch_size`` people.

    Args:
        resolution: Side in pixels.
        people: In the training set.
        pictures: Of each person, at least 2.
        people_seed: Of the training people; validation is seed 1 and test seed 2, as everywhere.
        val_people: Other people.
        **kwargs: See :class:`.ImageDataModule`.
    """

    def __init__(
        self,
        *,
        resolution: int = 64,
        people: int = 5000,
        pictures: int = 4,
        people_seed: int = 3,
        val_people: int = 500,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if pictures < 2:
            raise UserError(f"dataset.pictures={pictures}: expected at least 2 pictures of each person")
        if people_seed in (1, 2):
            raise UserError(f"dataset.people_seed={people_seed}: 1 and 2 are validation and test; give another seed")
        self.resolution, self.pictures = resolution, pictures
        self.seeds = {"train": people_seed, "val": 1, "test": 2}
        self.sizes = {"train": people, "val": val_people, "test": val_people}

    def make(self, split: str) -> People:  # noqa: D102
        return People(self.resolution, self.seeds[split], self.sizes[split], self.pictures)

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """(people, pictures, ...) -> (pictures of all people, ...)."""
        return {name: value.flatten(0, 1) for name, value in batch.items()}
