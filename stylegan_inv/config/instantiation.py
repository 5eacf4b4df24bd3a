"""Builds objects from config nodes."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import hydra
from omegaconf import OmegaConf

from stylegan_inv.errors import UserError
from stylegan_inv.runtime.run_folder import check_run

_UNKNOWN_ARGUMENT = re.compile(r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword argument '(\w+)'")
_MISSING_ARGUMENTS = re.compile(
    r"(\w+)(?:\.__init__)?\(\) missing \d+ required (?:keyword-only|positional) arguments?: (.+)$"
)
#: Values of ``method.start`` that are not the run of another method.
STARTS = ("average", "random")


def instantiate(node: Any, **kwargs: Any) -> Any:
    """Builds the object that a config node describes.

    Args:
        node: Config with ``_target_``.
        **kwargs: Further arguments of the constructor.

    Raises:
        UserError: Raised by the constructor, without Hydra's own exception; a module that cannot be imported; an
            argument that the constructor does not have, as when a method sets an option of another encoder; or one that
            it needs and does not get, as an encoder of another method.
    """
    try:
        return hydra.utils.instantiate(node, _convert_="all", **kwargs)
    except hydra.errors.InstantiationException as error:
        cause = error.__cause__ or error.__context__
        while cause is not None:
            if isinstance(cause, UserError):
                raise cause from None
            if isinstance(cause, ImportError):
                raise UserError(f"{cause}; give a _target_ that Python can import from here") from error
            if unknown := _UNKNOWN_ARGUMENT.search(str(cause)):
                raise UserError(
                    f"{unknown[1]} has no option {unknown[2]}; a method, an encoder or a "
                    f"recipe sets it, so choose an option of the group that has it, or leave it out"
                ) from error
            if missing := _MISSING_ARGUMENTS.search(str(cause)):
                raise UserError(
                    f"{missing[1]} needs {missing[2].replace(chr(39), '')}, which the method does not give; choose "
                    "another method, or another option of the group (encoder=, hypernetwork=) that it belongs to"
                ) from error
            cause = cause.__cause__ or cause.__context__
        raise


def instantiate_part(name: str, node: Any, **kwargs: Any) -> Any:
    """Builds a part of a training, such as the Trainer; any error of its constructor is bad input.

    Args:
        name: What the user calls it, e.g. ``callbacks.panels``.
        node: Config with ``_target_``.
        **kwargs: Further arguments of the constructor.

    Raises:
        UserError: The object cannot be built.
    """
    try:
        return instantiate(node, **kwargs)
    except UserError:
        raise
    except hydra.errors.InstantiationException as error:
        cause = error.__cause__ or error
        raise UserError(f"{name}: {' '.join(str(cause).split())}") from error


def instantiate_method(node: Any, trust: Collection[str] = (), **kwargs: Any) -> Any:
    """Builds a method. A ``start`` that names a run, a shipped encoder or published weights is loaded.

    Args:
        node: Config of the method.
        trust: Modules that the run of ``start`` may name, see `loading.load_inverter`.
        **kwargs: Further arguments of its constructor.

    Raises:
        UserError: See :func:`instantiate`; or ``start`` is neither one of `STARTS` nor a run.
    """
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node, resolve=True)
    return instantiate(_with_loaded_start(node, list(trust)), **kwargs)


def start_of(node: Any) -> str | None:
    """Returns the run or the published weights that a method starts from; None if it starts from a constant."""
    while isinstance(node, dict):
        node = node.get("start")
    return node if isinstance(node, str) and node not in STARTS else None


def _with_loaded_start(node: Any, trust: list[str]) -> Any:
    start = node.get("start") if isinstance(node, dict) else None
    if isinstance(start, dict):
        return {**node, "start": _with_loaded_start(start, trust)}
    if not isinstance(start, str) or start in STARTS:
        return node
    try:
        check_run("method.start", start)
    except UserError as error:
        raise UserError(f"{error}, or one of {', '.join(STARTS)}") from None
    return {**node, "start": {"_target_": "stylegan_inv.load_inverter", "path": start, "trust": trust}}
