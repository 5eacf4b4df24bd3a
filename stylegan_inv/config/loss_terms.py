"""Builds the weighted sum of loss terms from ``conf/loss``."""

from __future__ import annotations

from typing import Any

from stylegan_inv.config.instantiation import instantiate
from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import real_number


def build_loss_terms(terms: dict[str, Any]) -> Any:
    """Builds the weighted sum of loss terms that ``conf/loss`` describes.

    A term of weight 0 is not built: neither its file nor its network is needed.

    Args:
        terms: Name -> ``_target_``, ``weight`` and arguments of the term.

    Raises:
        UserError: A term without ``_target_``, with a weight that is not a finite number, with a value that was not
            given, or whose file does not exist; or no term with a weight.
    """
    from stylegan_inv.losses.compose import LossTerms

    modules, weights = {}, {}
    for name, node in terms.items():
        node = dict(node)
        if "_target_" not in node or "weight" not in node:
            raise UserError(
                f"loss.{name}: got keys {sorted(node)}, expected a _target_ and a numeric weight, "
                f"e.g. +loss.{name}={{_target_: stylegan_inv.losses.L2, weight: 1.0}}"
            )
        weight = real_number(f"loss.{name}.weight", node.pop("weight"))
        if weight == 0:
            continue
        if missing := _missing_value(node):
            key = f"loss.{name}.{missing}"
            raise UserError(f"{key} was not given; give {key}=…, or leave the term out (~loss.{name})")
        try:
            modules[str(name)] = instantiate(node)
        except UserError as error:
            raise UserError(f"loss.{name}: {error}") from error
        weights[str(name)] = weight
    if not modules:
        raise UserError("loss: got no term with a weight, expected at least one; e.g. loss=reconstruction")
    return LossTerms(modules, weights)


def _missing_value(node: Any, path: str = "") -> str:
    """Returns the dotted key of the first value that is ``???``; empty if there is none."""
    if node == "???":
        return path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    found = (_missing_value(value, f"{path}.{key}".lstrip(".")) for key, value in items)
    return next(filter(None, found), "")
