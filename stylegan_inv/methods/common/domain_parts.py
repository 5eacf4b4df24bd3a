"""The parts of a method that belong to a domain, by the names that the user gives them."""

from __future__ import annotations

from collections.abc import Mapping

import pytorch_lightning as pl
from torch import nn

from stylegan_inv.generators import Discriminator, Generator
from stylegan_inv.losses.compose import LossTerms
from stylegan_inv.methods.common.base import InversionMethod
from stylegan_inv.utils.domains import HasDomain
from stylegan_inv.utils.frozen_module import Frozen


def domain_parts(method: pl.LightningModule) -> dict[str, object]:
    """Returns name -> part, for `utils.domains.check_domains`.

    The networks that a training of generators learns or starts from are left out: they may be of another domain.

    Args:
        method: An inversion method or another training.
    """
    parts: dict[str, object] = {}
    if isinstance(method, InversionMethod):
        parts["generator"] = method.generator
    for name, child in method.named_children():
        part = child.network if isinstance(child, Frozen) else child
        if isinstance(part, LossTerms):
            parts |= {f"{name}.{term}": part.terms[term] for term, weight in part.weights.items() if weight}
        elif name == "metrics" and isinstance(part, nn.ModuleDict):
            parts |= {f"{name}.{metric}": module for metric, module in part.items()}
        elif isinstance(part, InversionMethod):  # the starting point
            parts |= _of_start(name, part)
        elif isinstance(part, HasDomain) and not isinstance(part, Generator | Discriminator):
            parts[name] = part
    return parts


def run_parts(method: InversionMethod) -> Mapping[str, object]:
    """Returns the parts of a method that was loaded: the method, or the generator if the method's domain is unknown."""
    return {"generator": method.generator} if method.domain is None else {"run": method}


def image_domain(method: InversionMethod) -> str | None:
    """Returns the domain of the images that a method renders; None if it is unknown."""
    return method.generator.domain or method.domain


def _of_start(name: str, start: InversionMethod) -> dict[str, object]:
    if start.domain is not None:
        return {name: start}
    return {f"{name}.{part}": value for part, value in domain_parts(start).items() if part != "generator"}
