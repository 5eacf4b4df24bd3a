"""The base class of the image-to-image translation tasks of pSp (section 4).

A :class:`Task` derives the network's input, ``source`` (B, C, H, W), from a batch with ``image`` (B, 3, H, W), which
stays the target. In training its random numbers are a pure function of (seed, draw), so that a resumed run repeats
them; in evaluation they are a pure function of the image's index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from stylegan_inv.errors import UserError

T = TypeVar("T")
#: One random number generator for each image of a batch.
Generators = Sequence[np.random.Generator]

_TRAINING, _EVALUATION = 1, 2  # streams of random numbers


class Task:
    """Base class of the translation tasks.

    A subclass implements :meth:`translate`, and :meth:`read` and :meth:`show` if its sources are not RGB images.
    """

    def __call__(self, batch: Mapping[str, Any], draws: Sequence[int] | None = None, seed: int = 0) -> dict[str, Any]:
        """Returns the batch with ``source`` and with the entries that the task replaces.

        Args:
            batch: Has ``image`` (B, 3, R, R) in [-1, 1], and ``index`` (B,) if the images come from a dataset.
            draws: Draw number of each image in training, see :class:`.DrawnIndex`. None in evaluation, where an image
                has the same source every time.
            seed: Training seed; not used in evaluation.

        Raises:
            UserError: The images are not square, or the batch lacks an entry that the task needs.
        """
        image = batch["image"]
        if image.ndim != 4 or image.shape[-1] != image.shape[-2]:
            raise UserError(f"{type(self).__name__} got images of shape {tuple(image.shape)}, expected (B, 3, R, R)")
        if draws is not None:
            generators = [_generator(seed, _TRAINING, draw) for draw in draws]
        else:
            index = batch.get("index", torch.arange(len(image)))
            generators = [_generator(0, _EVALUATION, int(number)) for number in index]
        return {**batch, **self.translate(batch, generators, draws is not None)}

    def translate(self, batch: Mapping[str, Any], generators: Generators, training: bool) -> dict[str, Tensor]:
        """Returns ``source`` and the entries of the batch to replace.

        Args:
            batch: Has ``image`` (B, 3, R, R) in [-1, 1].
            generators: Random number generator of each image.
            training: Whether the batch is a training batch.
        """
        raise NotImplementedError

    def read(self, images: Tensor) -> Tensor:
        """Converts images drawn as by :meth:`show`, (B, 3, H, W) in [-1, 1], to ``source`` (B, C, H, W)."""
        return images

    def show(self, source: Tensor) -> Tensor:
        """Converts ``source`` (B, C, H, W) to images for display, (B, 1 or 3, H, W) in [-1, 1]."""
        return source


def grey(image: Tensor) -> Tensor:
    """Returns the Rec. 601 luma, as Pillow's mode ``L``: (B, 3, H, W) -> (B, 1, H, W)."""
    return (image * image.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)


def choose(generator: np.random.Generator, choices: Sequence[T]) -> T:
    """Returns one of the choices, drawn uniformly."""
    return choices[int(generator.integers(len(choices)))]


def _generator(seed: int, stream: int, number: int) -> np.random.Generator:
    key = np.array([seed, stream], dtype=np.uint64)
    # Philox counts up in the lowest counter word as numbers are drawn. The number is in the third word, so that even
    # a whole image of noise does not reach the random numbers of the next one.
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, number, 0], dtype=np.uint64)))
