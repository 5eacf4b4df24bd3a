"""The frozen generator around which every method is built, its discriminator, and their file formats."""

from __future__ import annotations

from stylegan_inv.generators.stylegan2 import Discriminator, Generator, channel_table

__all__ = ["Discriminator", "Generator", "channel_table"]
