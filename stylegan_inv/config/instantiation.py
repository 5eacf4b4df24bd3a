"""Builds objects from config nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
from omegaconf import OmegaConf

from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import real_number
from stylegan_inv.weights.table import TABLE

#: Values of ``method.start`` that are not the run of another method.
STARTS = ("average", "random")


def instantiate(node: Any, **kwargs: Any) -> Any:
    """Builds the object that a config node describes.

    Args:
        node: Config with ``_target_``.
        **kwargs: Further arguments of the constructor.

    Raises:
        UserError: Raised by the constructor; Hydra's own exception is removed.
    """
    try:
        return hydra.utils.instantiate(node, _convert_="all", **kwargs)
    except hydra.errors.InstantiationException as error:
        cause = error.__cause__ or error.__context__
        while cause is not None:
            if isinstance(cause, UserError):
                raise cause from None
            cause = cause.__cause__ or cause.__context__
        raise


def instantiate_method(node: Any, **kwargs: Any) -> Any:
    """Builds a method. A ``start`` that names a run or published weights is loaded.

    Args:
        node: Config of the method.
        **kwargs: Further arguments of its constructor.

    Raises:
        UserError: See :func:`instantiate`; or ``start`` is neither one of `STARTS` nor a run.
    """
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node, resolve=True)
    return instantiate(_with_loaded_start(node), **kwargs)


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
        raise UserError("loss: got no term with a weight, expected at least one; e.g. loss=embedded")
    return LossTerms(modules, weights)


def _with_loaded_start(node: Any) -> Any:
    start = node.get("start") if isinstance(node, dict) else None
    if isinstance(start, dict):
        return {**node, "start": _with_loaded_start(start)}
    if not isinstance(start, str) or start in STARTS:
        return node
    if not Path(start).exists() and start not in TABLE:
        words = " or ".join(map(repr, STARTS))
        raise UserError(f"method.start={start!r}: expected {words}, or the run folder of a trained method")
    return {**node, "start": {"_target_": "stylegan_inv.load_inverter", "path": start}}


def _missing_value(node: Any, path: str = "") -> str:
    """Returns the dotted key of the first value that is ``???``; empty if there is none."""
    if node == "???":
        return path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    found = (_missing_value(value, f"{path}.{key}".lstrip(".")) for key, value in items)
    return next(filter(None, found), "")
