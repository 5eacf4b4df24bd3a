"""StyleGAN generators, their discriminator, kernels and file formats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stylegan_inv.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from stylegan_inv.generators.discriminator import Discriminator as Discriminator
    from stylegan_inv.generators.frozen.cuda_graphs import GraphedSynthesis as GraphedSynthesis
    from stylegan_inv.generators.generator import Generator as Generator
    from stylegan_inv.generators.io.formats import embedded_generators as embedded_generators
    from stylegan_inv.generators.io.formats import load_discriminator as load_discriminator
    from stylegan_inv.generators.io.formats import load_generator as load_generator
    from stylegan_inv.generators.io.formats import save_discriminator as save_discriminator
    from stylegan_inv.generators.io.formats import save_generator as save_generator
    from stylegan_inv.generators.io.layouts import from_nvidia as from_nvidia
    from stylegan_inv.generators.io.layouts import to_nvidia as to_nvidia
    from stylegan_inv.generators.io.rosinality_layout import from_rosinality as from_rosinality
    from stylegan_inv.generators.io.rosinality_layout import to_rosinality as to_rosinality
    from stylegan_inv.generators.io.weight_files import file_hash as file_hash
    from stylegan_inv.generators.layers import channel_table as channel_table
    from stylegan_inv.generators.variants.finetune import finetuned as finetuned

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "discriminator": ["Discriminator"],
        "frozen.cuda_graphs": ["GraphedSynthesis"],
        "generator": ["Generator"],
        "io.formats": [
            "embedded_generators",
            "load_discriminator",
            "load_generator",
            "save_discriminator",
            "save_generator",
        ],
        "io.layouts": ["from_nvidia", "to_nvidia"],
        "io.rosinality_layout": ["from_rosinality", "to_rosinality"],
        "io.weight_files": ["file_hash"],
        "layers": ["channel_table"],
        "variants.finetune": ["finetuned"],
    },
)
