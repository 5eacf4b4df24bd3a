"""Samplers: one for training that resumes exactly, one for evaluation that counts every image once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch.utils.data.distributed import DistributedSampler

from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import whole_number


class DrawnIndex(int):
    """A dataset index with its draw number, which is its position in the endless stream of training samples.

    For most datasets it is a plain ``int``. A dataset with random augmentation seeds it with ``draw``, so that a
    sample depends neither on the worker that makes it nor on the samples before it.
    """

    draw: int

    def __new__(cls, index: int, draw: int) -> DrawnIndex:  # noqa: D102
        self = super().__new__(cls, index)
        self.draw = draw
        return self

    def __reduce__(self) -> tuple[type[DrawnIndex], tuple[int, int]]:
        # A DataLoader pickles the indices that it sends to its workers, and pickle would lose the attribute.
        return DrawnIndex, (int(self), self.draw)


class _RankSampler(DistributedSampler[Any]):
    """A sampler that shards the dataset over the ranks itself.

    It is a ``DistributedSampler`` so that Lightning does not wrap it in one. Lightning's wrapper would list the whole
    (infinite) sampler, and it repeats samples in evaluation.

    Args:
        size: Number of samples in the dataset.
        rank: Rank of this process.
        world_size: Number of ranks.

    Raises:
        UserError: An argument is out of range.
    """

    def __init__(self, size: int, rank: int, world_size: int) -> None:
        # DistributedSampler.__init__ is not called: it needs a dataset, and computes padding that is not used here.
        self.size = whole_number("sampler: images", size)
        self.num_replicas = whole_number("sampler: world_size", world_size)
        self.rank = whole_number("sampler: rank", rank, 0, world_size - 1)

    def set_epoch(self, epoch: int) -> None:
        """Does nothing, as the order depends on the draw alone."""


class ResumableSampler(_RankSampler):
    """An endless stream of indices, each a pure function of (seed, draw number).

    Draw d is position ``d % size`` in the permutation of epoch ``d // size``, so every image occurs once per epoch.
    Rank r takes the draws r, r + world, r + 2 world, ... The images of a step therefore do not depend on the world
    size, and training that resumes at step k with ``start = k * batch * world`` sees the images that an uninterrupted
    run would have seen.

    Args:
        size: Number of samples in the dataset.
        seed: Seed of the order, from 0 to 2**64 - 1.
        batch_size: Batch size per rank, used by :meth:`state_dict` only.
        start: First draw of the stream, over all ranks; or a function that returns it at the start of each iteration,
            as Lightning iterates anew in each of its epochs.
        rank: Rank of this process.
        world_size: Number of ranks.
        shuffle: False keeps the order of the dataset.

    Raises:
        UserError: An argument is out of range.
    """

    def __init__(
        self,
        size: int,
        seed: int = 0,
        batch_size: int = 1,
        start: int | Callable[[], int] = 0,
        *,
        rank: int = 0,
        world_size: int = 1,
        shuffle: bool = True,
    ) -> None:
        super().__init__(size, rank, world_size)
        self.seed = whole_number("sampler: seed", seed, 0, 2**64 - 1)
        self.batch_size, self.shuffle = batch_size, shuffle
        self._start = start

    @property
    def start(self) -> int:
        """Draw, over all ranks, at which the next iteration starts."""
        return self._start() if callable(self._start) else self._start

    def index(self, draw: int) -> int:
        """Returns the dataset index of a draw."""
        return int(self._order(draw // self.size)[draw % self.size])

    def __iter__(self) -> Iterator[DrawnIndex]:
        draw, epoch, order = self.start + self.rank, -1, np.zeros(0, dtype=np.int64)
        while True:
            if draw // self.size != epoch:
                epoch = draw // self.size
                order = self._order(epoch)
            yield DrawnIndex(int(order[draw % self.size]), draw)
            draw += self.num_replicas

    def __len__(self) -> int:
        raise TypeError("ResumableSampler is endless and has no length; limit the training by max_steps")

    def state_dict(self, steps: int = 0) -> dict[str, int]:
        """Returns the state after ``steps`` batches on every rank, for :meth:`load_state_dict`."""
        draw = self.start + steps * self.batch_size * self.num_replicas
        return {"seed": self.seed, "size": self.size, "draw": draw}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resumes from a state; world size and batch size may differ from those of the state.

        Raises:
            UserError: The state belongs to another dataset or seed.
        """
        if (state["seed"], state["size"]) != (self.seed, self.size):
            raise UserError(
                f"cannot continue the order of training images: the checkpoint has seed {state['seed']} and "
                f"{state['size']} images, this run seed {self.seed} and {self.size}; give the same seed and dataset"
            )
        self._start = state["draw"]

    def _order(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.size)
        # NumPy guarantees the output of a bit generator for all versions, but not that of `permutation`. Two equal
        # 64-bit words are practically impossible; a stable sort orders even these in the same way everywhere.
        words = np.random.Philox(key=np.array([self.seed, epoch], dtype=np.uint64)).random_raw(self.size)
        return np.argsort(words, kind="stable")


class EvaluationSampler(_RankSampler):
    """Every index exactly once over all ranks: rank r takes r, r + world, r + 2 world, ...

    No index is repeated, as a repeated image would count twice in every mean, and none is dropped, so the ranks may
    differ by one image.

    Args:
        size: Number of samples in the dataset.
        rank: Rank of this process.
        world_size: Number of ranks.
    """

    def __init__(self, size: int, *, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(size, rank, world_size)

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rank, self.size, self.num_replicas))

    def __len__(self) -> int:
        return len(range(self.rank, self.size, self.num_replicas))
