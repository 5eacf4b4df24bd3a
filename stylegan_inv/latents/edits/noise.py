"""Noise on chosen layers, and where in the picture noise matters (Karras et al. 2019, figures 4 and 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.latents.edits.subjects import Sheet, Subjects, whole
from stylegan_inv.latents.noise_maps import noise_deviation, noise_layers, noise_on

#: Below this, noise of standard deviation 1 changes no level of an 8-bit picture.
_VISIBLE = 1e-3


class Noise:
    """A column for each choice of layers, and the standard deviation over draws of noise on all of them.

    Args:
        choices: see `noise_layers`.
        samples: draws for the deviation; 0 leaves it out.
        seed: of the noise.
    """

    name = "noise"
    there_and_back = False
    films = True

    def __init__(
        self,
        choices: Sequence[str | Sequence[int]] = ("all", "none", "fine", "coarse"),
        samples: int = 100,
        seed: int = 0,
    ) -> None:
        self.choices, self.samples, self.seed = list(choices), whole(samples, "edit.samples", 0), seed

    def check(self, generator: Generator, count: int, random: bool) -> None:
        """See `Edit`."""
        for choice in self.choices:
            noise_layers(generator, choice)
        strengths = [float(layer.noise_strength) for layer in generator.synthesis.layers()]
        if max(map(abs, strengths)) < _VISIBLE:
            raise UserError(
                f"edit=noise: this generator ignores noise (its strengths are at most {max(map(abs, strengths)):.0e}); "
                "give one that was trained with noise, generator=file generator.source=<file>"
            )

    def sheets(self, subjects: Subjects) -> list[Sheet]:
        """One strip; the deviation is scaled so that the largest of each picture is white."""
        columns = {}
        for choice in self.choices:
            text = choice if isinstance(choice, str) else "layers " + ", ".join(map(str, choice))
            maps = noise_on(subjects.generator, choice, self.seed)
            columns[f"noise: {text}"] = subjects.render(subjects.w, noise=maps)
        if self.samples:
            deviation = noise_deviation(subjects.generator, subjects.w, "all", self.samples, self.seed).cpu()
            columns["deviation"] = 2 * deviation / deviation.amax((1, 2, 3), keepdim=True).clamp_min(1e-12) - 1
        return [Sheet(columns, subjects.names)]

    def frames(self, subjects: Subjects, count: int) -> Tensor:
        """Fresh noise in every picture."""
        maps = (noise_on(subjects.generator, "all", self.seed + k) for k in range(count))
        return torch.stack([subjects.render(subjects.w, noise=one) for one in maps])
