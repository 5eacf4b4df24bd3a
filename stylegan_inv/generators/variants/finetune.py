"""Generators that are fine-tuned from another one for a new domain, whose codes keep their meaning."""

from __future__ import annotations

from pathlib import Path

from stylegan_inv.errors import UserError
from stylegan_inv.generators.class_choice import ALL
from stylegan_inv.generators.generator import Generator
from stylegan_inv.generators.io.formats import load_generator


def finetuned(
    source: str | Path, from_resolution: int = 4, mapping_trains: bool = False, ema: bool = True
) -> Generator:
    """Returns a trained generator whose synthesis network trains from one resolution upwards; the rest is frozen.

    While the mapping network is frozen, a code stands for the same person in both generators, which toonification
    (Pinkney and Adler, arXiv 2010.05334) and encoder bootstrapping (ReStyle) rely on.

    Args:
        source: See :func:`.load_generator`.
        from_resolution: First resolution that trains; 4 trains the whole synthesis network, 16 keeps pose and outline,
            which the layers of 4 and 8 px determine.
        mapping_trains: Whether the mapping network trains too.
        ema: Whether to start from the moving average of the weights; False starts from the trained weights.

    Raises:
        UserError: The generator has no layers of that resolution, or the source cannot be read.
    """
    generator = load_generator(source, class_label=ALL, ema=ema)
    synthesis = generator.synthesis
    if from_resolution not in synthesis.resolutions:
        raise UserError(
            f"generator.from_resolution={from_resolution}: expected one of {', '.join(map(str, synthesis.resolutions))}"
        )
    for resolution in synthesis.resolutions:
        synthesis.get_submodule(f"b{resolution}").requires_grad_(resolution >= from_resolution)
    generator.mapping.requires_grad_(bool(mapping_trains))
    return generator.train()
