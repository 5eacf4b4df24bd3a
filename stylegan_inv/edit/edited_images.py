"""What the edit command edits: a number of images that are rendered, read or inverted when they are needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from torch import Tensor

from stylegan_inv.config import instantiate
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.invert.input_warnings import InputWarnings
from stylegan_inv.latents.edits.base import EditInputs
from stylegan_inv.runtime.device import device_named


@dataclass
class Source:
    """Images whose number is known, but which have not been rendered or inverted yet.

    Attributes:
        generator: Generator of their codes.
        count: Number of images.
        random: Whether they are random samples.
        output: Output folder.
        load: Renders or inverts the images.
        domain: Domain of the generator's images; None if it is unknown.
        warnings: What is wrong with the input images; complete when they are loaded. None for samples and codes.
    """

    generator: Generator
    count: int
    random: bool
    output: Path
    load: Callable[[], EditInputs]
    domain: str | None
    warnings: InputWarnings | None = None


def configured_generator(cfg: DictConfig) -> Generator:
    """Returns the generator of the command, on its device; it must make RGB images."""
    generator: Generator = instantiate(cfg.generator)
    if generator.img_channels != 3:
        raise UserError(f"generator: makes images of {generator.img_channels} channels, expected 3 (RGB)")
    return generator.to(device_named(cfg.device))


def truncation_centre(cfg: DictConfig, generator: Generator) -> Tensor:
    """Returns the latent average that codes are truncated towards, (D,), or (N, 1, D) for images of several classes."""
    return generator.w_avg if cfg.truncate_to == "class" else generator.mapping.w_avg
