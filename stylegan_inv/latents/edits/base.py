"""The interface of an edit, the images that it edits, and the tables of its results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.generators.feature_maps import FeatureChange, change_rows
from stylegan_inv.generators.variants.low_rank_difference import LowRankDifference
from stylegan_inv.latents.directions import Direction
from stylegan_inv.utils.checks import real_numbers


@dataclass
class EditInputs:
    """Latent codes that are edited, and everything else that their images are rendered from.

    Attributes:
        generator: Frozen generator.
        w: Latent codes in W+, (N, L, D).
        names: Name of each image.
        images: Inverted images (N, 3, S, S); None for random samples.
        z: Latent codes (N, Z) of random samples; None for inversions.
        noise: Noise maps of the inversions, (N, 1, r, r) for each layer; None for the generator's own.
        features: Changes of feature maps by layer, with N rows, as ``synthesis(features=…)`` takes them; None for none.
        weights: Compressed difference of the generator that was tuned for each image, see
            `generators.variants.low_rank_difference`; None for the shared generator.
        batch_size: Number of images that are rendered at once.
        average: Latent average to truncate towards, (D,) or (N, 1, D); None for that of the generator.
        own_rule: ``(w, rows, noise)`` -> images (B, 3, R, R) of edited codes (B, L, D) of some of the inputs, for
            inversions whose method edits them by networks of its own; None for the generator.
    """

    generator: Generator
    w: Tensor
    names: list[str]
    images: Tensor | None = None
    z: Tensor | None = None
    noise: list[Tensor] | None = None
    features: dict[str, FeatureChange] | None = None
    weights: list[Mapping[str, Tensor]] | None = None
    batch_size: int = 16
    average: Tensor | None = None
    own_rule: Callable[[Tensor, Tensor, list[Tensor] | None], Tensor] | None = None

    @property
    def w_avg(self) -> Tensor:
        """The latent average to truncate towards, (D,) or (N, 1, D)."""
        return self.generator.w_avg if self.average is None else self.average

    def __len__(self) -> int:
        return len(self.names)

    @torch.no_grad()
    def render(self, w: Tensor, rows: Sequence[int] | None = None, noise: list[Tensor] | None = None) -> Tensor:
        """Returns the images (B, 3, R, R) in [-1, 1] of latent codes, on the CPU.

        Args:
            w: Latent codes (B, L, D).
            rows: For each code, the index of the input whose noise, features and weights are used; None for the input
                at the same position.
            noise: Noise maps (1, 1, r, r) that replace those of the inputs.

        Raises:
            UserError: No image is finite although the codes are, as they are too far from those of the generator.
        """
        images = self._render(w, rows, noise)
        if bool(w.isfinite().all()) and not bool(images.isfinite().flatten(1).all(1).any()):
            raise UserError(
                f"edit: the images of codes up to {float(w.abs().max()):.2g} are not finite; give smaller strengths, "
                "or another direction"
            )
        return images

    def _render(self, w: Tensor, rows: Sequence[int] | None, noise: list[Tensor] | None) -> Tensor:
        sources = torch.arange(len(w)) if rows is None else torch.tensor(rows)
        if self.own_rule is not None:
            parts = zip(w.split(self.batch_size), sources.split(self.batch_size), strict=True)
            return torch.cat([self.own_rule(codes, part, noise).clamp(-1, 1).cpu() for codes, part in parts])
        if self.weights is None:
            return self._render_with(w, sources, noise, None)
        out = torch.empty(len(w), self.generator.img_channels, self.generator.resolution, self.generator.resolution)
        for row in sources.unique():
            factors, same = {name: t[None] for name, t in self.weights[int(row)].items()}, sources == row
            weights = LowRankDifference(factors, self.generator.synthesis)
            out[same] = self._render_with(w[same], sources[same], noise, weights)
        return out

    def _render_with(
        self, w: Tensor, sources: Tensor, noise: list[Tensor] | None, weights: LowRankDifference | None
    ) -> Tensor:
        images = []
        for codes, rows in zip(w.split(self.batch_size), sources.split(self.batch_size), strict=True):
            options: dict[str, Any] = {"noise": noise or "const", "weights": weights}
            if noise is None and self.noise is not None:
                options["noise"] = [layer[rows] for layer in self.noise]
            if self.features is not None:
                options["features"] = {layer: change_rows(change, rows) for layer, change in self.features.items()}
            images.append(self.generator.synthesis(codes, **options).clamp(-1, 1).cpu())
        return torch.cat(images)


@dataclass
class ImageTable:
    """A table of images.

    Attributes:
        columns: Caption -> images (N, 1 or 3, R, R).
        rows: Caption of each row.
        name: Name of the file, without suffix.
    """

    columns: dict[str, Tensor]
    rows: list[str]
    name: str = "strip"


@runtime_checkable
class UsesDirections(Protocol):
    """An edit along directions.

    Attributes:
        directions: All of them.
    """

    @property
    def directions(self) -> Sequence[Direction]:
        """See the class."""


@runtime_checkable
class Edit(Protocol):
    """An edit of latent codes.

    Attributes:
        name: Name of the edit, for files and errors.
        ping_pong: Whether the animation is played forwards and then backwards.
    """

    name: str
    ping_pong: bool

    @property
    def has_animation(self) -> bool:
        """Whether :meth:`frames` returns an animation."""

    def check(self, generator: Generator, count: int, random: bool) -> None:
        """Raises a UserError if the edit is impossible; called before the images are inverted.

        Args:
            generator: Generator of the codes.
            count: Number of images.
            random: Whether the images are random samples, which have a z, and not inversions.
        """

    def tables(self, inputs: EditInputs) -> list[ImageTable]:
        """Returns the tables that show the edit."""

    def frames(self, inputs: EditInputs, count: int) -> Tensor:
        """Returns an animation of about ``count`` frames, (F, N, 3, R, R)."""


def distinct_numbers(name: str, value: Any) -> list[float]:
    """Returns one number or several different ones as a list.

    Args:
        name: Name of the setting, for errors.
        value: A number, or a list of numbers.

    Raises:
        UserError: Not a list of finite numbers, or two numbers that have the same six digits.
    """
    found = real_numbers(name, value)
    if len({f"{number:g}" for number in {*found}}) != len(found):
        raise UserError(f"{name}={value}: expected different numbers, in six digits, which name their images")
    return found


def check_count(name: str, count: int, least: int) -> None:
    """Raises a UserError if an edit has fewer images than it needs.

    Args:
        name: Name of the edit.
        count: Number of images.
        least: Smallest number that the edit needs.
    """
    if count < least:
        images = "image" if count == 1 else "images"
        raise UserError(
            f"edit={name}: got {count} {images}, expected at least {least}; give a folder, or samples={least}"
        )
