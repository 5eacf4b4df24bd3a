"""The frozen synthesis network as a CUDA graph, which a GPU replays for one shape without kernel launches by the CPU.

At batch 1, launching a kernel takes longer than its computation in the layers of low resolution. CUDA graphs are meant
for many calls with one batch size: optimisation of codes, rendering of samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import one_of, whole_number


class FrozenGenerator(Protocol):
    """The attributes of a generator that are read here."""

    num_ws: int
    w_dim: int
    synthesis: Any

    @property
    def w_avg(self) -> Tensor:
        """The latent average, ``(w_dim,)``."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Returns all parameters."""


class GraphedSynthesis:
    """Renders W+ codes of a fixed batch size by replaying a captured graph, with gradients of the codes.

    The graph reads the memory that the weights had when it was captured; weights that are replaced or moved afterwards
    are not noticed. Images are returned as copies, because the next call overwrites the memory of the graph. Backward
    runs once for each image.

    Args:
        generator: Frozen (:meth:`.Generator.freeze`) and on a GPU.
        batch: Number of images in every call.
        noise: ``"const"``, ``"none"``, or ``"random"`` for new maps at each call.

    Raises:
        UserError: No GPU, a generator on another device or one that trains, or another batch or noise.
    """

    def __init__(self, generator: FrozenGenerator, batch: int, noise: str = "const") -> None:
        _check_device(generator)
        if any(p.requires_grad for p in generator.parameters()):
            raise UserError("CUDA graphs: the generator still trains, expected a frozen one; call generator.freeze()")
        whole_number("CUDA graphs: batch", batch)
        one_of("CUDA graphs: noise", noise, ("const", "none", "random"))
        self.shape = (batch, generator.num_ws, generator.w_dim)
        synthesis = generator.synthesis

        def render(w: Tensor) -> Tensor:
            image: Tensor = synthesis(w, noise=noise)
            return image

        sample = generator.w_avg.detach().expand(self.shape).clone().requires_grad_()
        self._replay: Any = torch.cuda.make_graphed_callables(render, (sample,))

    def __call__(self, w: Tensor) -> Tensor:
        """Returns the images ``(batch, img_channels, R, R)`` of codes ``(batch, num_ws, w_dim)``.

        Raises:
            UserError: Codes of another shape than the captured one.
        """
        if tuple(w.shape) != self.shape:
            raise UserError(
                f"CUDA graphs: codes of shape {tuple(w.shape)}, but {self.shape} was captured; make another "
                f"GraphedSynthesis for this batch, or call generator.synthesis"
            )
        image: Tensor = self._replay(w)
        return image.clone()


def _check_device(generator: FrozenGenerator) -> None:
    if not torch.cuda.is_available():
        raise UserError("CUDA graphs: no GPU is available here; call generator.synthesis, which runs everywhere")
    if not generator.w_avg.is_cuda:
        raise UserError(f"CUDA graphs: the generator is on {generator.w_avg.device}, expected a GPU; move it: .cuda()")
