"""The base class of methods that predict changes of the generator's weights around the codes of another method."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stylegan_inv.errors import UserError
from stylegan_inv.generators.variants.low_rank_difference import LowRankDifference
from stylegan_inv.hypernetworks.weight_factors import Factors
from stylegan_inv.methods.common.base import Inversion, InversionMethod
from stylegan_inv.methods.common.starting_points import check_same_generator, codes_alone
from stylegan_inv.methods.common.trained import TrainedMethod
from stylegan_inv.utils.frozen_module import Frozen


class WeightPrediction(TrainedMethod):
    """Keeps the codes and noise maps of a frozen method, and changes the generator's weights for each image.

    The start is not part of checkpoints.

    Args:
        start: Method that finds the codes; None for one that is set later (`start_from`).
        antialias: Whether images are low-pass filtered where a network needs smaller ones. The official codes of
            HyperStyle and HyperInverter differ, see there.
        **kwargs: Arguments of `TrainedMethod`.
    """

    tunes_weights = True

    def __init__(self, *, start: InversionMethod | None, antialias: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.antialias = antialias
        self.start: Frozen | None = None
        #: Loads the start when it is first needed, for checkpoints that leave it to another file.
        self.find_start: Callable[[], InversionMethod] | None = None
        if start is not None:
            self.start_from(start)

    def starting_methods(self) -> list[InversionMethod]:  # noqa: D102
        return [] if self.start is None else [self.start.network]

    def start_from(self, start: str | InversionMethod) -> None:
        """Sets the method that finds the codes.

        Raises:
            UserError: Not a method, a method of another generator, or one that tunes the generator itself.
        """
        if not isinstance(start, InversionMethod):
            raise UserError(f"method.start={start!r}: expected a method or the folder of a run, which finds the codes")
        if start.tunes_weights:
            raise UserError(
                f"method.start: {type(start).__name__} tunes the generator itself, which {type(self).__name__} does as "
                "well; give a method that keeps it frozen"
            )
        check_same_generator(self, start)
        self.start = Frozen(start)  # neither trained nor part of this method's checkpoints

    def embed(self, images: Tensor) -> Inversion:
        """Returns the inversion of the start, without a history.

        Raises:
            UserError: There is no start, or it changes more than codes and noise maps.
        """
        if self.start is None and self.find_start is not None:
            self.start_from(self.find_start().to(images.device))
        if self.start is None:
            raise UserError(f"{type(self).__name__} has no start; give start=<a run or file of a method for codes>")
        method: InversionMethod = self.start.network
        with torch.no_grad():
            found = method.invert(resized(images, method.input_size, self.antialias))
        codes_alone(self, method, found)
        return dataclasses.replace(found, w=found.w.detach(), image=found.image.detach())

    def render(self, start: Inversion, factors: Factors) -> Tensor:
        """Returns the images (B, 3, R, R) of the start's codes with changed weights."""
        weights = LowRankDifference(factors, self.generator.synthesis)
        image: Tensor = self.generator.synthesis(start.w, noise=start.noise or "const", weights=weights)
        return image


def resized(images: Tensor, size: int, antialias: bool = True) -> Tensor:
    """Returns square images (B, C, size, size), bilinear, with a low-pass filter if they get smaller."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=antialias)
