"""Variants of an inversion: pSp's multi-modal synthesis, which mixes random codes into some layers (section 4.4)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from omegaconf import DictConfig
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.latents.layer_ranges import appearance_layers
from stylegan_inv.latents.mixing import mix_styles

if TYPE_CHECKING:  # Lightning takes seconds to import; errors in the input are reported before
    from stylegan_inv.methods.common.base import Inversion, InversionMethod


def make_variants(cfg: DictConfig, method: InversionMethod) -> list[Callable[[Tensor], Inversion]]:
    """Returns the variants of pSp's multi-modal synthesis: one random code per variant, the same for all images.

    Raises:
        UserError: The method has no variants, or a layer does not exist.
    """
    if not cfg.variants:
        return []
    from stylegan_inv.methods.common.capabilities import MakesVariants

    if not isinstance(method, MakesVariants):
        raise UserError(f"variants={cfg.variants}: {type(method).__name__} makes none, expected a run of pSp or e4e")
    layers = appearance_layers(method.generator.num_ws) if cfg.layers is None else list(cfg.layers)
    mix_styles(method.average_codes(1), method.average_codes(1), layers)  # raises if a layer does not exist
    z = torch.randn(cfg.variants, 1, method.generator.z_dim, generator=torch.Generator().manual_seed(0))
    return [partial(method.variants, z=row.to(method.device), layers=layers) for row in z]
