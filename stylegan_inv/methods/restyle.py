"""ReStyle: A Residual-Based StyleGAN Encoder via Iterative Refinement.

Yuval Alaluf, Or Patashnik, Daniel Cohen-Or, ICCV 2021, arXiv 2104.02699.
Official code: yuval-alaluf/restyle-encoder, commit 5e80276.

Differences: The refinement starts from the latent average (paper), from random codes, or from the result of another
method. Training can use constant noise. Any encoder with six input channels can be used, and the number of styles is
that of the generator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.methods.common.base import Inversion, InversionMethod, Step, pool
from stylegan_inv.methods.common.trained import TrainedMethod
from stylegan_inv.utils.checks import one_of, whole_number
from stylegan_inv.utils.frozen_module import Frozen


class ReStyle(TrainedMethod):
    """Refines codes iteratively: the encoder gets the image and its current reconstruction and predicts a residual.

    With the average image y_0 and the latent average w_0 (equations 2 and 3):

        w_{t+1} = w_t + E(x, y_t),    y_{t+1} = G(w_{t+1}).

    Args:
        encoder: Called with ``num_ws``, ``w_dim`` and ``in_channels=6``; returns a module (B, 6, H, W) -> (B, L, D).
        iterations: Number N of refinement steps.
        start: ``average`` (paper); ``random``, codes of random z with their images; or a trained method, whose results
            are refined. A method for another generator with codes of the same shape gives the paper's encoder
            bootstrapping.
        training_noise: Noise of the synthesis network in training: ``random`` (official code) or ``const``. Validation
            and inversion use constant noise.
        **kwargs: Arguments of `TrainedMethod`.
    """

    def __init__(
        self,
        *,
        encoder: Callable[..., nn.Module],
        iterations: int = 5,
        start: str | InversionMethod = "average",
        training_noise: str = "random",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.iterations = whole_number("method.iterations", iterations)
        self.training_noise = one_of("method.training_noise", training_noise, ("random", "const"))
        self.encoder = encoder(num_ws=self.generator.num_ws, w_dim=self.generator.w_dim, in_channels=6)
        self.start_from(start)

    def starting_methods(self) -> list[InversionMethod]:  # noqa: D102
        return [self.start.network] if isinstance(self.start, Frozen) else []

    def start_from(self, start: str | InversionMethod) -> None:
        """Sets the codes from which the refinement starts, see the argument ``start``.

        Raises:
            UserError: An unknown word, a method whose codes have another shape, or one that tunes the generator.
        """
        if isinstance(start, str) and start not in ("average", "random"):
            raise UserError(f"method.start={start!r}: expected 'average', 'random' or a trained method")
        if isinstance(start, InversionMethod):
            if start.tunes_weights:
                raise UserError(
                    f"method.start: {type(start).__name__} tunes the generator itself; give one that keeps it frozen"
                )
            own, other = ((g.num_ws, g.w_dim) for g in (self.generator, start.generator))
            if own != other:
                raise UserError(f"method.start: its codes are {other[0]} x {other[1]}, expected {own[0]} x {own[1]}")
        # Frozen: neither trained nor part of this method's checkpoints.
        self.start = start if isinstance(start, str) else Frozen(start)

    def refine(self, images: Tensor) -> Iterator[Step]:
        """Yields the codes and reconstructions of each step; no gradient flows from one step to the next."""
        noise = self.training_noise if self.training else "const"
        w, image = self._start(images)
        for view in self.views(images):
            w = w.detach() + self.encoder(torch.cat([view, image.detach()], dim=1))
            step = Step(w, self.generator.synthesis(w, noise=noise))
            image = pool(step.image, images.shape[-1])
            yield step

    def views(self, images: Tensor) -> Iterable[Tensor]:
        """Returns the input of the encoder at each step: the images themselves."""
        return [images] * self.iterations

    def invert(self, images: Tensor) -> Inversion:  # noqa: D102
        steps = list(self.refine(images))
        return Inversion(steps[-1].w, steps[-1].image, steps=steps)

    def training_losses(self, batch: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        """Yields the losses of each step.

        Each step is back-propagated on its own and the gradients are accumulated, as in the official code, so that the
        memory is that of one step.
        """
        for step in self.refine(self.source(batch)):
            yield self.losses(step, batch)

    @torch.no_grad()
    def _start(self, images: Tensor) -> tuple[Tensor, Tensor]:
        batch, size = len(images), images.shape[-1]
        if isinstance(self.start, Frozen):
            start: Inversion = self.start.network.invert(images)
            return start.w, pool(start.image, size)
        if self.start == "average":
            return self.average_codes(batch), self.average_image(size).expand(batch, -1, -1, -1)
        w = self.generator.mapping(torch.randn(batch, self.generator.z_dim, device=images.device))
        return w, pool(self.generator.synthesis(w, noise="const"), size)
