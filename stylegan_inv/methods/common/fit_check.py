"""Checks that generator, method, losses and data fit together, before a training starts."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.losses.adversarial import AdversarialLoss
from stylegan_inv.losses.compose import RegionTerm
from stylegan_inv.methods.common.base import FixedSize, InversionMethod
from stylegan_inv.methods.common.trained import TrainedMethod


def check_fit(method: InversionMethod, batch: Mapping[str, Tensor], trained_on: Collection[str]) -> None:
    """Checks that a method can be trained on some data.

    Args:
        method: Method to be trained.
        batch: Some validation images, with their ``source`` in translation tasks.
        trained_on: Names of the entries of training batches; empty if they are not known.

    Raises:
        UserError: Sizes, channels, masks or a discriminator that do not fit.
    """
    generator, size = method.generator, batch["image"].shape[-1]
    if generator.img_channels != 3:
        raise UserError(f"generator: makes images of {generator.img_channels} channels, expected 3 (RGB)")
    if size > generator.resolution:
        raise UserError(
            f"dataset.resolution={size}: larger than the generator's images; give dataset.resolution="
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
        if not isinstance(term, AdversarialLoss) or not isinstance(term.discriminator, FixedSize):
            continue
        if term.discriminator.resolution != size:
            raise UserError(
                f"loss.{name}: its discriminator is for {term.discriminator.resolution} px, expected "
                f"dataset.resolution={size}"
            )


def _terms(method: InversionMethod) -> dict[str, nn.Module]:
    loss = method.loss if isinstance(method, TrainedMethod) else None
    return {} if loss is None else dict(loss.terms.items())


def _needs_masks(method: InversionMethod) -> str:
    """Returns what needs masks, as the user calls it; empty if nothing does."""
    if "mask" in method.required_entries:
        return type(method).__name__
    for name, term in _terms(method).items():
        if any(isinstance(module, RegionTerm) and module.region == "interest" for module in term.modules()):
            return f"loss.{name}.region=interest"
    return ""
