"""Noise on chosen layers, and where in the image noise matters (Karras et al. 2019, figures 4 and 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.latents.edits.base import EditInputs, ImageTable
from stylegan_inv.latents.noise_maps import noise_deviation, noise_layers, noise_on
from stylegan_inv.utils.checks import whole_number

#: Smallest noise strength at which noise of standard deviation 1 changes an 8-bit image.
_MIN_VISIBLE_STRENGTH = 1e-3


class Noise:
    """A table with a column for each choice of layers, and the standard deviation over random noise on all layers.

    Args:
        choices: Choices of layers, see `noise_layers`.
        samples: Number of samples of the standard deviation; 0 leaves it out.
        seed: Seed of the noise.
    """

    name = "noise"
    ping_pong = False
    has_animation = True

    def __init__(
        self,
        choices: Sequence[str | Sequence[int]] = ("all", "none", "fine", "coarse"),
        samples: int = 100,
        seed: int = 0,
    ) -> None:
        self.choices, self.samples, self.seed = list(choices), whole_number("edit.samples", samples, 0, 1000), seed

    def check(self, generator: Generator, count: int, random: bool) -> None:
        """Checks the choices of layers and that the generator uses noise."""
        for choice in self.choices:
            noise_layers(generator, choice)
        strength = max(abs(float(layer.noise_strength)) for layer in generator.synthesis.layers())
        if strength < _MIN_VISIBLE_STRENGTH:
            raise UserError(
                f"edit=noise: this generator ignores noise (its strengths are at most {strength:.0e}); "
                "give one that was trained with noise, generator=file generator.source=<file>"
            )

    def tables(self, inputs: EditInputs) -> list[ImageTable]:
        """Returns one table; the deviation is scaled so that the largest value of each image is white."""
        columns = {}
        for choice in self.choices:
            text = choice if isinstance(choice, str) else "layers " + ", ".join(map(str, choice))
            maps = noise_on(inputs.generator, choice, self.seed)
            columns[f"noise: {text}"] = inputs.render(inputs.w, noise=maps)
        if self.samples:
            deviation = noise_deviation(inputs.generator, inputs.w, "all", self.samples, self.seed).cpu()
            columns["deviation"] = 2 * deviation / deviation.amax((1, 2, 3), keepdim=True).clamp_min(1e-12) - 1
        return [ImageTable(columns, inputs.names)]

    def frames(self, inputs: EditInputs, count: int) -> Tensor:
        """Returns an animation with new noise in each frame."""
        maps = (noise_on(inputs.generator, "all", self.seed + k) for k in range(count))
        return torch.stack([inputs.render(inputs.w, noise=one) for one in maps])
