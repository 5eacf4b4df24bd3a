"""The class of a conditional generator, where a call gives no condition: one class, all classes, or one per image."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import whole_number

#: Words of the option ``class`` besides a number: all classes, and the class of each image in ``dataset.json``.
ALL, PER_IMAGE = "none", "dataset"


@dataclass(frozen=True, eq=False)
class ClassChoice:
    """Which classes random codes belong to, and which classes the latent average is of.

    Attributes:
        count: Number of classes, the size of the condition.
        label: The class of all codes; None for all classes.
        per_image: Whether the images of a batch have classes of their own.
        labels: Class of each image of the current batch, (B,) int64; None outside of a batch.
    """

    count: int
    label: int | None = None
    per_image: bool = False
    labels: Tensor | None = None

    @staticmethod
    def named(value: int | str | None, count: int) -> ClassChoice | None:
        """Returns the choice that the option ``class`` names.

        Args:
            value: A class; "none" for all classes; "dataset" for the class of each image; None for the default.
            count: Number of classes of the generator; 0 for an unconditional one.

        Returns:
            None for an unconditional generator.

        Raises:
            UserError: No such class, or a class of an unconditional generator.
        """
        if count == 0:
            if value not in (None, ALL):
                raise UserError(f"class={value}: the generator is unconditional and has no classes; leave class out")
            return None
        if value in (None, ALL):
            return ClassChoice(count)
        if value == PER_IMAGE:
            return ClassChoice(count, per_image=True)
        hint = f"{ALL} (the mean over all classes), or {PER_IMAGE} (the class of each image in dataset.json)"
        return ClassChoice(count, whole_number("class", value, 0, count - 1, hint=f"or {hint}"))

    def __str__(self) -> str:
        return PER_IMAGE if self.per_image else ALL if self.label is None else str(self.label)

    def of_batch(self, labels: Tensor | None) -> ClassChoice:
        """Returns the choice within a batch of images of these classes (B,)."""
        return dataclasses.replace(self, labels=labels) if self.per_image else self

    def numbers(self, z: Tensor) -> Tensor:
        """Returns the class of each code, (N,) int64, for ``z`` (N, Z).

        Where a code may be of several classes, its class is a function of z, uniform over the classes: a z has the
        same image in every batch and on every device, and no random numbers are drawn.
        """
        if self.label is not None:
            return torch.full((len(z),), self.label, device=z.device)
        if self.labels is not None and len(self.labels) == len(z):
            return self.labels.to(z.device)
        bits = z.detach().float().contiguous().view(torch.int32).long().sum(dim=1)
        bits = (bits ^ (bits >> 16)) * 0x45D9F3B  # spreads the upper bits, the only ones of half precision
        bits = (bits ^ (bits >> 16)) & 0x7FFFFFFF
        if self.labels is None:
            return bits % self.count
        return self.labels.to(z.device)[bits % len(self.labels)]

    def condition(self, z: Tensor) -> Tensor:
        """Returns the condition of each code, one-hot (N, count), for ``z`` (N, Z)."""
        return one_hot(self.numbers(z), self.count).to(z.dtype)


def one_hot(labels: Tensor, count: int) -> Tensor:
    """Returns the condition (B, count) float32 of classes (B,), as in NVIDIA's StyleGAN2-ADA."""
    return F.one_hot(labels, count).float()
