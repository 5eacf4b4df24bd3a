"""The base class of methods that optimise each image, with their inputs, their starting point and their result."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.losses.features import Features
from stylegan_inv.methods.common.base import Inversion, InversionMethod
from stylegan_inv.methods.common.starting_points import check_same_generator
from stylegan_inv.optim.optimization_state import Monitor
from stylegan_inv.optim.per_image_optimization import seeded_randn
from stylegan_inv.utils.frozen_module import Frozen

#: Random streams of the starting point; those of the optimisation steps are numbered from ``FIRST_STEP_STREAM``.
START_STREAM, NOISE_STREAM, FIRST_STEP_STREAM = 1, 2, 16


@dataclass
class InputImages:
    """The inputs of a method.

    Attributes:
        image: Target images (B, 3, H, W), RGB in [-1, 1].
        mask: Regions (B, 1, H, W) in [0, 1], for methods that treat a region differently.
        reference: Other images in the shape of ``image``, for methods that combine two.
    """

    image: Tensor
    mask: Tensor | None = None
    reference: Tensor | None = None


@dataclass
class OptimizedInversion(Inversion):
    """An inversion with its loss curves.

    Attributes:
        curves: Stage -> losses (steps, B) before each step; NaN after an image has stopped.
        seconds: Time spent on the batch, including runs that were interrupted.
    """

    curves: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0

    def select(self, rows: slice | Tensor) -> OptimizedInversion:  # noqa: D102
        found = super().select(rows)
        assert isinstance(found, OptimizedInversion)
        return replace(found, curves={name: curve[:, rows] for name, curve in self.curves.items()})


class PerImageMethod(InversionMethod):
    """Base of methods that optimise each image by itself and have nothing to train.

    A subclass writes :meth:`run`. :meth:`invert` is enough for methods that take images alone; :meth:`optimize` also
    passes masks and reference images, and can be interrupted and continued.

    Args:
        features: Network of the perceptual distance.
        start: ``average`` (the latent average), ``random`` (one random code for all images), or another method,
            whose result is the starting point.
        seed: Seed of all random numbers.
        **kwargs: See :class:`InversionMethod`.
    """

    #: Whether `optimize` uses a mask, and a reference image.
    takes_mask = False
    takes_reference = False

    def __init__(
        self, *, features: Features, start: str | InversionMethod = "average", seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.features = Frozen(features)
        self.seed = seed
        self.start_from(start)

    @property
    def needs_mask(self) -> bool:
        """Whether `optimize` requires a mask."""
        return False

    @property
    def needs_reference(self) -> bool:
        """Whether `optimize` requires a reference image."""
        return False

    def run(self, inputs: InputImages, monitor: Monitor) -> OptimizedInversion:
        """Optimises checked inputs, with gradients enabled; continues from the monitor's file if it holds a state."""
        raise NotImplementedError

    def starting_methods(self) -> list[InversionMethod]:  # noqa: D102
        return [self.start.network] if isinstance(self.start, Frozen) else []

    def start_from(self, start: str | InversionMethod) -> None:
        """Sets the starting point, see ``start``.

        Raises:
            UserError: Neither a known word nor a method, or a method of another generator.
        """
        if isinstance(start, str) and start not in ("average", "random"):
            # A run folder is replaced by its method before the constructor is called.
            raise UserError(f"method.start={start!r}: expected 'average', 'random' or a method")
        if isinstance(start, InversionMethod):
            check_same_generator(self, start)
        # A frozen method is no part of this method's checkpoint.
        self.start = start if isinstance(start, str) else Frozen(start)

    @torch.no_grad()
    def constant_codes(self, batch: int) -> Tensor:
        """Returns the codes (B, L, D) that ``start=average`` or ``start=random`` stand for."""
        if self.start == "average":
            return self.average_codes(batch)
        z = seeded_randn(self.seed, START_STREAM, 1, self.generator.z_dim, like=self.generator.w_avg)
        if self.generator.class_per_image:  # the same z, in the class of each image
            z = z.expand(batch, -1)
        codes: Tensor = self.generator.mapping(z).expand(batch, -1, -1)
        return codes

    def invert(self, images: Tensor) -> OptimizedInversion:
        """Returns the inversion of each image, optimised independently.

        Args:
            images: (B, 3, H, W), RGB in [-1, 1].
        """
        return self.optimize(images)

    def optimize(
        self,
        images: Tensor,
        *,
        mask: Tensor | None = None,
        reference: Tensor | None = None,
        monitor: Monitor | None = None,
    ) -> OptimizedInversion:
        """Returns the inversion of each image, optimised independently.

        Args:
            images: (B, 3, H, W), RGB in [-1, 1].
            mask: (B, 1, H, W) in [0, 1], for methods with ``takes_mask``.
            reference: Other images in the shape of ``images``, for methods with ``takes_reference``.
            monitor: Where the state is saved and continued from, and the function that receives the progress.

        Raises:
            UserError: A mask or a reference that the method does not take, that is missing, or that has another shape.
        """
        self._check_inputs(images, mask, reference)
        # Validation runs in inference mode, whose tensors cannot take part in a backward pass.
        with torch.inference_mode(False), torch.enable_grad():
            copies = [None if t is None else t.detach().clone() for t in (mask, reference)]
            return self.run(InputImages(images.detach().clone(), *copies), monitor or Monitor())

    def _check_inputs(self, images: Tensor, mask: Tensor | None, reference: Tensor | None) -> None:
        name = type(self).__name__
        if (reference is not None and not self.takes_reference) or (mask is not None and not self.takes_mask):
            got = "a mask" if reference is None else "a reference image"
            raise UserError(
                f"{name} takes images alone, got {got}; method=image2stylegan_pp takes masks and references"
            )
        if self.needs_reference and reference is None:
            raise UserError(f"{name}: got no reference image, this application needs one; give reference=…")
        if self.needs_mask and mask is None:
            raise UserError(f"{name}: got no mask, this application needs one; give mask=…")
        if reference is not None and reference.shape != images.shape:
            raise UserError(f"the reference image is {tuple(reference.shape)}, expected {tuple(images.shape)}")
        if mask is not None and mask.shape != (len(images), 1, *images.shape[-2:]):
            raise UserError(f"the mask is {tuple(mask.shape)}, expected {(len(images), 1, *images.shape[-2:])}")
