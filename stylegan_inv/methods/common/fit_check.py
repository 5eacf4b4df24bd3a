"""Whether generator, method, losses and data fit together, found on one picture before any work starts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.losses.compose import LossTerms
from stylegan_inv.methods.common.base import InversionMethod
from stylegan_inv.methods.common.trained import TrainedMethod


def check_fit(method: InversionMethod, batch: Mapping[str, Tensor], trained_on: Collection[str]) -> None:
    """Refuse a training that would stop at its first step, or silently compare what cannot be compared.

    Args:
        method: To be trained.
        batch: Some validation images, with their ``source`` where a task makes one.
        trained_on: Names of the entries of training images; empty if not known.

    Raises:
        UserError: Sizes, channels, masks or a discriminator that do not fit.
    """
    generator, size = method.generator, batch["image"].shape[-1]
    if generator.img_channels != 3:
        raise UserError(f"generator: makes pictures of {generator.img_channels} channels, expected 3 (RGB)")
    if size > generator.resolution:
        raise UserError(
            f"dataset.resolution={size}: larger than the generator's pictures; give dataset.resolution="
            f"{generator.resolution} or less, or another generator"
        )
    channels = method.source(batch).shape[1]
    if channels != method.in_channels:
        raise UserError(
            f"the data have {channels} channels and the method sees {method.in_channels}; give "
            f"method.in_channels={channels} (pSp and e4e have it), or another +task"
        )
    if trained_on and "mask" not in trained_on and (where := _needs_masks(method)):
        raise UserError(
            f"{where}: needs masks of the interest region, but the images have {', '.join(sorted(trained_on))} alone; "
            "give dataset.mask_root=… or dataset=synthfaces"
        )
    for name, term in _terms(method).items():
        resolution = getattr(getattr(term, "discriminator", None), "resolution", size)
        if resolution != size:
            raise UserError(
                f"loss.{name}: its discriminator is for {resolution} px, expected dataset.resolution={size}"
            )


def _terms(method: InversionMethod) -> dict[str, Any]:
    loss: LossTerms | None = method.loss if isinstance(method, TrainedMethod) else None
    return {} if loss is None else dict(loss.terms.items())


def _needs_masks(method: InversionMethod) -> str:
    if "mask" in method.required_entries:
        return type(method).__name__
    for name, term in _terms(method).items():
        if any(getattr(module, "region", None) == "interest" for module in term.modules()):
            return f"loss.{name}.region=interest"
    return ""
