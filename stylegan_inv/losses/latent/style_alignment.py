"""LSAP's alignment of style vectors with those of the generator's own images, as a loss and for its metric.

Pu Cao, Lu Yang, Dongxv Liu, Zhiwei Liu, Shan Li, Qing Song, "LSAP: Rethinking Inversion Fidelity, Perception and
Editability in GAN Latent Space", arXiv 2209.12746. Official code: caopulan/GANInverter, commit e3d5d4d
(training/encoder_trainer.py).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.losses.compose import LossInputs
from stylegan_inv.utils.checks import whole_number
from stylegan_inv.utils.frozen_module import Frozen

_CHUNK = 1000


def style_vectors(generator: Generator, w: Tensor) -> list[Tensor]:
    """Returns the unit style vectors of codes (B, L, D), (B, C) for each row of the codes.

    They are those of all convolutions and of the last ToRGB, so that each row of a code has one.
    """
    synthesis = generator.synthesis
    names = [*synthesis.named_layers(), synthesis.layer_names()[-1]]
    if len(names) != w.shape[1] or w.ndim != 3:
        raise UserError(f"style vectors: got codes {tuple(w.shape)}, expected (B, {len(names)}, D) of StyleGAN2")
    return [
        F.normalize(synthesis.get_submodule(f"{name}.affine")(row), dim=1)
        for name, row in zip(names, w.unbind(1), strict=True)
    ]


@torch.no_grad()
def style_anchors(generator: Generator, w: Tensor) -> list[Tensor]:
    """Returns the means of the unit style vectors of samples of W, (C,) for each row of the codes; shorter than 1.

    Args:
        generator: The generator.
        w: Samples (N, D).
    """
    sums: list[Tensor] = []
    for part in w.split(_CHUNK):
        found = style_vectors(generator, part[:, None].expand(-1, generator.num_ws, -1))
        added = [vectors.sum(0) for vectors in found]
        sums = [a + b for a, b in zip(sums, added, strict=True)] if sums else added
    return [total / len(w) for total in sums]


@torch.no_grad()
def sampled_anchors(generator: Generator, samples: int, seed: int) -> list[Tensor]:
    """Returns the anchors of samples of W without truncation; a seed gives the same on every device."""
    z = torch.randn(samples, generator.z_dim, generator=torch.Generator().manual_seed(seed))
    device = generator.w_avg.device
    return style_anchors(generator, torch.cat([generator.mapping(z_.to(device))[:, 0] for z_ in z.split(_CHUNK)]))


class StyleAlignment(nn.Module):
    """Negative cosine of the style vectors and their anchors: ``-sum_i mean_B <s_i / |s_i|, a_i>`` (SNCD in the code).

    Rows that equal the first one, which e4e's progressive training has not reached, do not count, as in the official
    code.

    Args:
        generator: The generator of the codes.
        samples: Number of samples of W for the anchors. Official code: 100,000.
        seed: Seed of the samples.
        unit_anchors: Divide the anchors by their norms, which the official code does not.
    """

    domain: str | None = None

    def __init__(self, generator: Generator, samples: int = 100_000, seed: int = 0, unit_anchors: bool = True) -> None:
        super().__init__()
        self.generator, self.unit_anchors = Frozen(generator), unit_anchors
        whole_number("loss.style_alignment.samples", samples)
        self.set_anchors(sampled_anchors(generator, samples, seed))

    def set_anchors(self, anchors: list[Tensor]) -> None:
        """Sets the anchors, (C,) for each row of the codes."""
        for number, anchor in enumerate(anchors):
            value = F.normalize(anchor, dim=0) if self.unit_anchors else anchor
            self.register_buffer(f"anchor{number}", value, persistent=False)

    def forward(self, inputs: LossInputs) -> Tensor:
        """Returns the sum over the rows of the negative mean cosines.

        Raises:
            UserError: The inputs have no codes.
        """
        if inputs.w is None:
            raise UserError("StyleAlignment got no codes (w); give them, or loss.style_alignment.weight=0")
        return -self.similarities(inputs.w).mean(0).sum()

    def similarities(self, w: Tensor) -> Tensor:
        """Returns the products with the anchors, (B, L); 0 for rows that equal the first one."""
        found = style_vectors(self.generator.network, w)
        anchors = [self.get_buffer(f"anchor{number}").to(w) for number in range(len(found))]
        products = torch.stack([(s * a).sum(1) for s, a in zip(found, anchors, strict=True)], dim=1)
        own = (w.detach() != w.detach()[:, :1]).flatten(2).any(2).any(0)
        own[0] = True
        return products * own
