"""The frozen synthesis as a CUDA graph: for one shape, a GPU replays it without the CPU launching each kernel.

At batch 1 launching takes longer than computing in the layers of low resolution. Meant for many calls of one batch
size: optimisation of codes, rendering of samples.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stylegan_inv.errors import UserError


class GraphedSynthesis:
    """Renders W+ codes of a fixed batch size, forward and backward towards the codes, by replaying a captured graph.

    The graph reads the generator's memory where it was: weights that are replaced or moved go unseen. What it returns
    is a copy, as the next call overwrites the graph's own memory; a second backward through one result is not possible.

    Args:
        generator: frozen (:meth:`.Generator.freeze`) and on a GPU.
        batch: images in every call.
        noise: ``"const"``, ``"none"``, or ``"random"`` for new maps at each call.

    Raises:
        UserError: no GPU, a generator elsewhere or one that trains, or another batch or noise.
    """

    def __init__(self, generator: Any, batch: int, noise: str = "const") -> None:
        _check_place(generator)
        if any(p.requires_grad for p in generator.parameters()):
            raise UserError("CUDA graphs: the generator still trains, expected a frozen one; call generator.freeze()")
        if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
            raise UserError(f"CUDA graphs: batch={batch!r}, expected a whole number of at least 1")
        if noise not in ("const", "none", "random"):
            raise UserError(f"CUDA graphs: noise={noise!r}, expected 'const', 'none' or 'random'")
        self.shape = (batch, generator.num_ws, generator.w_dim)
        synthesis = generator.synthesis

        def render(w: Tensor) -> Tensor:
            return synthesis(w, noise=noise)

        sample = generator.w_avg.detach().expand(self.shape).clone().requires_grad_()
        self._replay: Any = torch.cuda.make_graphed_callables(render, (sample,))

    def __call__(self, w: Tensor) -> Tensor:
        """Codes ``(batch, num_ws, w_dim)`` -> images ``(batch, img_channels, R, R)``.

        Raises:
            UserError: codes of another shape than was captured.
        """
        if tuple(w.shape) != self.shape:
            raise UserError(
                f"CUDA graphs: codes of shape {tuple(w.shape)}, but {self.shape} was captured; make another "
                f"GraphedSynthesis for this batch, or call generator.synthesis"
            )
        return self._replay(w).clone()


def _check_place(generator: Any) -> None:
    if not torch.cuda.is_available():
        raise UserError("CUDA graphs: no GPU is available here; call generator.synthesis, which runs everywhere")
    if not generator.w_avg.is_cuda:
        raise UserError(f"CUDA graphs: the generator is on {generator.w_avg.device}, expected a GPU; move it: .cuda()")
