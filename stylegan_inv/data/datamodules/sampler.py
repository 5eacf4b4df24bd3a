"""Samplers for training that resumes exactly and for evaluation that counts every image once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch.utils.data.distributed import DistributedSampler

from stylegan_inv.errors import UserError


class Draw(int):
    """A dataset index that remembers which draw of the training it is.

    To a dataset it is a plain ``int``; one that augments derives its randomness from ``draw``. So the picture does not
    depend on which worker made it or on what was drawn before.
    """

    draw: int

    def __new__(cls, index: int, draw: int) -> Draw:  # noqa: D102
        self = super().__new__(cls, index)
        self.draw = draw
        return self

    def __reduce__(self) -> tuple[type[Draw], tuple[int, int]]:
        return Draw, (int(self), self.draw)  # on its way to a worker


class _OwnRanks(DistributedSampler[Any]):
    """Deals with ranks itself, and is a ``DistributedSampler`` so that Lightning does not wrap it in another one.

    Lightning's wrapper would first list the whole (infinite) sampler, and pads for evaluation.
    """

    def __init__(self, size: int, rank: int, world_size: int) -> None:
        # Not DistributedSampler.__init__: it wants a dataset and computes the padding that is not wanted here.
        if size < 1:
            raise UserError(f"sampler: got {size} images, expected at least 1")
        if world_size < 1 or not 0 <= rank < world_size:
            raise UserError(f"sampler: got rank {rank} of {world_size}, expected 0 <= rank < number of ranks")
        self.size, self.rank, self.num_replicas = size, rank, world_size

    def set_epoch(self, epoch: int) -> None:
        """Nothing: the order depends on the draw alone."""


class ResumableSampler(_OwnRanks):
    """An endless stream of indices, each a pure function of (seed, draw number).

    Draw d is position ``d % size`` of the permutation of epoch ``d // size``: every image once an epoch. Rank r takes
    the draws r, r + world, r + 2 world, ..., so the images of a step do not depend on how many ranks share them, and
    training that continues at step k with ``start = k * batch * world`` sees what it would have seen.

    Args:
        size: Images in the data set.
        seed: Chooses the order.
        batch_size: Of one rank; only :meth:`state_dict` needs it.
        start: First draw of this stream, over all ranks; or a function that tells it each time the stream is opened
            (Lightning opens it again for each of its epochs).
        rank: This process.
        world_size: Number of processes.
        shuffle: False keeps the order of the data set.
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
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64:
            raise UserError(f"sampler: got seed {seed!r}, expected a whole number from 0 to 2**64 - 1")
        self.seed, self.batch_size, self.shuffle = seed, batch_size, shuffle
        self._start = start

    @property
    def start(self) -> int:
        """The draw, over all ranks, at which the next iteration begins."""
        return self._start() if callable(self._start) else self._start

    def index(self, draw: int) -> int:
        """The image of a draw."""
        return int(self._order(draw // self.size)[draw % self.size])

    def __iter__(self) -> Iterator[Draw]:
        draw, epoch, order = self.start + self.rank, -1, np.zeros(0, dtype=np.int64)
        while True:
            if draw // self.size != epoch:
                epoch = draw // self.size
                order = self._order(epoch)
            yield Draw(int(order[draw % self.size]), draw)
            draw += self.num_replicas

    def __len__(self) -> int:
        raise TypeError("ResumableSampler has no end and no length; bound the training by max_steps")

    def state_dict(self, steps: int = 0) -> dict[str, int]:
        """The state after ``steps`` batches on every rank: what :meth:`load_state_dict` continues from."""
        draw = self.start + steps * self.batch_size * self.num_replicas
        return {"seed": self.seed, "size": self.size, "draw": draw}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from a state; the number of ranks and the batch size may have changed since.

        Raises:
            UserError: The state belongs to another data set or seed.
        """
        if (state["seed"], state["size"]) != (self.seed, self.size):
            raise UserError(
                f"cannot continue the order of training images: the checkpoint has seed {state['seed']} and "
                f"{state['size']} images, this run seed {self.seed} and {self.size}; give the same seed and data set"
            )
        self._start = state["draw"]

    def _order(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.size)
        # Sorting raw Philox words: numpy guarantees the bits of a bit generator, not what `permutation` makes of them.
        # Two equal 64-bit words do not happen in practice; if they did, `stable` decides the same way everywhere.
        words = np.random.Philox(key=np.array([self.seed, epoch], dtype=np.uint64)).random_raw(self.size)
        return np.argsort(words, kind="stable")


class EvaluationSampler(_OwnRanks):
    """Each image exactly once over all ranks: rank r takes r, r + world, ...; the ranks may differ by one image.

    Nothing is padded (a padded duplicate counts twice in every mean) and nothing dropped.
    """

    def __init__(self, size: int, *, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(size, rank, world_size)

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rank, self.size, self.num_replicas))

    def __len__(self) -> int:
        return len(range(self.rank, self.size, self.num_replicas))
