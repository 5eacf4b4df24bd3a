"""The reference of the benchmark, which knows the true factors of each face."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from stylegan_inv.generators import Generator
from stylegan_inv.losses.paired.warm_start import PairedWarmStart
from stylegan_inv.methods.common.base import Inversion


class TrueFactors:
    """Returns the code of W that the training of the generator assigned to the true factors of a face.

    It is not an inversion method: it does not see the image, so an obstacle does not hide the face from it. Where it
    has a lower error than an encoder, the generator does not limit the encoder.

    Args:
        generator: The embedded generator.
    """

    device = torch.device("cpu")

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    @staticmethod
    def source(batch: Mapping[str, Tensor]) -> Tensor:
        """Returns the normal variables (B, K) of the faces' factors."""
        return batch["normals"]

    @torch.no_grad()
    def invert(self, normals: Tensor) -> Inversion:
        """Returns codes and images of factors (B, K); the other entries of z are drawn with a fixed seed."""
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            z = PairedWarmStart.latents(normals, self.generator.z_dim)
        w = self.generator.mapping(z)
        return Inversion(w, self.generator.synthesis(w))
