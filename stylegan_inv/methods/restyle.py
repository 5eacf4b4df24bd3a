"""ReStyle: A Residual-Based StyleGAN Encoder via Iterative Refinement.

Yuval Alaluf, Or Patashnik, Daniel Cohen-Or, ICCV 2021, arXiv 2104.02699.
Official code: yuval-alaluf/restyle-encoder, commit 5e80276.

Differences: codes start from the average, a random or another method's code (``start``); training can keep the noise
maps fixed; any encoder with six input channels fits, the number of styles comes from the generator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.methods.common.base import Inversion, InversionMethod, Step, pool
from stylegan_inv.methods.common.trained import TrainedMethod
from stylegan_inv.utils.frozen_module import Frozen


class ReStyle(TrainedMethod):
    """Refine codes step by step: the encoder sees the image beside its last reconstruction and predicts a residual.

    With y_0 the average image and w_0 the average code (equations 2 and 3 of the paper):

        w_{t+1} = w_t + E(x, y_t),    y_{t+1} = G(w_{t+1}).

    Args:
        encoder: Called with ``num_ws``, ``w_dim`` and ``in_channels=6``; returns (B, 6, H, W) -> (B, L, D).
        iterations: Refinement steps N.
        start: ``average`` (the paper), ``random`` (codes of fresh z, the average image of the paper replaced by
            their pictures), or a trained method, whose results are refined. One that was trained
            around another generator with the same codes makes the paper's encoder bootstrapping.
        training_noise: Noise of the synthesis in training: ``random`` or ``const``. Validation and inversion are
            deterministic.
        **kwargs: See `TrainedMethod`.
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
        self.encoder = encoder(num_ws=self.generator.num_ws, w_dim=self.generator.w_dim, in_channels=6)
        self.iterations, self.training_noise = iterations, training_noise
        self.start_from(start)

    def start_from(self, start: str | InversionMethod) -> None:
        """Set where the refinement begins, see ``start``.

        Raises:
            UserError: another word, or a method whose codes have another shape.
        """
        if isinstance(start, str) and start not in ("average", "random"):
            raise UserError(f"method.start={start!r}: expected 'average', 'random' or a trained method")
        if isinstance(start, InversionMethod):
            own, other = ((g.num_ws, g.w_dim) for g in (self.generator, start.generator))
            if own != other:
                raise UserError(f"method.start: its codes are {other[0]} x {other[1]}, expected {own[0]} x {own[1]}")
        # Held: no part of this method's checkpoint, and not trained.
        self.start = start if isinstance(start, str) else Frozen(start)

    def refine(self, images: Tensor) -> Iterator[Step]:
        """Yield every step's codes and picture; no gradient flows from one step to the next."""
        noise = self.training_noise if self.training else "const"
        w, image = self._start(images)
        for seen in self.views(images):
            w = w.detach() + self.encoder(torch.cat([seen, image.detach()], dim=1))
            step = Step(w, self.generator.synthesis(w, noise=noise))
            image = pool(step.image, images.shape[-1])
            yield step

    def views(self, images: Tensor) -> Iterable[Tensor]:
        """What the encoder sees of the images at each step: the images themselves."""
        return [images] * self.iterations

    def invert(self, images: Tensor) -> Inversion:  # noqa: D102
        steps = list(self.refine(images))
        return Inversion(steps[-1].w, steps[-1].image, steps=steps)

    def training_losses(self, batch: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        """One dict a step: each step is back-propagated by itself and gradients add up (authors: the memory of one)."""
        for step in self.refine(self.source(batch)):
            yield self.losses(step, batch)

    @torch.no_grad()
    def _start(self, images: Tensor) -> tuple[Tensor, Tensor]:
        batch, size = len(images), images.shape[-1]
        if isinstance(self.start, Frozen):
            begin = self.start.network.invert(images)
            return begin.w, pool(begin.image, size)
        if self.start == "average":
            return self.average_codes(batch), self.average_image(size).expand(batch, -1, -1, -1)
        w = self.generator.mapping(torch.randn(batch, self.generator.z_dim, device=images.device))
        return w, pool(self.generator.synthesis(w, noise="const"), size)
