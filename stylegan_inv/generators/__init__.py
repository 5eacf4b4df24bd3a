"""The frozen generator around which every method is built, its discriminator, and their file formats."""

from __future__ import annotations

from stylegan_inv.generators.cuda_graphs import GraphedSynthesis
from stylegan_inv.generators.discriminator import Discriminator
from stylegan_inv.generators.formats import (
    embedded_generators,
    load_discriminator,
    load_generator,
    save_discriminator,
    save_generator,
)
from stylegan_inv.generators.layers import channel_table
from stylegan_inv.generators.layouts import from_nvidia, from_rosinality, to_nvidia, to_rosinality
from stylegan_inv.generators.stylegan2 import Generator
from stylegan_inv.generators.weight_files import file_hash

__all__ = [
    "Discriminator",
    "Generator",
    "GraphedSynthesis",
    "channel_table",
    "embedded_generators",
    "file_hash",
    "from_nvidia",
    "from_rosinality",
    "load_discriminator",
    "load_generator",
    "save_discriminator",
    "save_generator",
    "to_nvidia",
    "to_rosinality",
]
