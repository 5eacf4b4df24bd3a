"""Checks that generator, method, losses and data fit together, before any work starts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.losses.adversarial import AdversarialLoss
from stylegan_inv.losses.compose import RegionTerm
from stylegan_inv.methods.common.base import FixedSize, InversionMethod
from stylegan_inv.methods.common.trained import TrainedMethod


@runtime_checkable
class MakesCodes(Protocol):
    """An encoder that makes codes of one shape.

    Attributes:
        num_ws: Number of codes of an image.
        w_dim: Entries of a code.
    """

    num_ws: int
    w_dim: int


def check_fit(method: InversionMethod, batch: Mapping[str, Tensor], trained_on: Collection[str]) -> None:
    """Checks that a method can be trained on some data.

    Args:
        method: Method to be trained.
        batch: Some validation images, with their ``source`` in translation tasks.
        trained_on: Names of the entries of training batches; empty if they are not known.

    Raises:
        UserError: Sizes, channels, masks or a discriminator that do not fit.
    """
    size, channels, largest = batch["image"].shape[-1], method.source(batch).shape[1], method.generator.resolution
    if size > largest:  # `evaluate` and `invert` may see larger images, the losses of a training must not
        raise UserError(
            f"dataset.resolution={size}: larger than the generator's images; give dataset.resolution={largest} or "
            "less, or another generator"
        )
    check_images(
        method,
        size,
        channels,
        "dataset.resolution",
        f"give method.in_channels={channels} (pSp and e4e have it), or another +task",
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


def check_images(
    method: InversionMethod,
    size: int,
    channels: int = 3,
    key: str = "resolution",
    hint: str = "the method belongs to another translation task than these images",
) -> None:
    """Checks that a method can invert images of some size, and that its reconstructions can be compared with them.

    Args:
        method: The method.
        size: Side length of the images, in pixels.
        channels: Number of channels of the method's inputs.
        key: What the user calls the size.
        hint: What to do about the number of channels.

    Raises:
        UserError: The generator does not make RGB images, the encoder takes another size or makes codes of another
            shape, or the number of channels differs.
    """
    generator = method.generator
    if generator.img_channels != 3:
        raise UserError(f"generator: makes images of {generator.img_channels} channels, expected 3 (RGB)")
    if channels != method.in_channels:
        raise UserError(f"the data have {channels} channels and the method sees {method.in_channels}; {hint}")
    encoder = dict(method.named_children()).get("encoder")
    if isinstance(encoder, FixedSize) and encoder.resolution != size:
        own = encoder.resolution
        raise UserError(f"{key}={size}: the encoder takes images of {own} px; give {key}={own}")
    # A method with several codes has an encoder with as many times the styles of the generator.
    if isinstance(encoder, MakesCodes) and (encoder.num_ws % generator.num_ws or encoder.w_dim != generator.w_dim):
        raise UserError(
            f"the encoder makes codes of {encoder.num_ws} x {encoder.w_dim} and the generator takes "
            f"{generator.num_ws} x {generator.w_dim}; give the generator that the encoder was made for"
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
