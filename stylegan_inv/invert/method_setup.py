"""The method of the invert command: whether it fits the options, and its starting point."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import hydra
import torch
from omegaconf import DictConfig

from stylegan_inv.config import instantiate_method
from stylegan_inv.errors import UserError
from stylegan_inv.loading import load_inverter

if TYPE_CHECKING:  # Lightning takes seconds to import; errors in the input are reported before
    from stylegan_inv.methods.common.base import InversionMethod


def check_method(cfg: DictConfig) -> None:
    """Raises a UserError unless either a run or a method without training is given."""
    if cfg.get("method") is None:
        if cfg.run is None:
            raise UserError("got neither run nor method; give run=<folder of a training run>, or method=projector, …")
    elif cfg.run is not None:
        raise UserError(f"got run={cfg.run} and method={cfg.method_name}; expected one of them")
    elif _is_trained(hydra.utils.get_class(cfg.method._target_)):
        raise UserError(
            f"method={cfg.method_name}: must be trained first; give run=<the folder that "
            f"`python -m stylegan_inv.train method={cfg.method_name}` printed>, or method=projector, image2stylegan, …"
        )


def load_method(cfg: DictConfig, run: Path | None, device: str | torch.device) -> InversionMethod:
    """Returns the method in evaluation mode, with the starting point that ``start`` names.

    Raises:
        UserError: The method cannot be loaded, or it does not fit ``start``, ``mask`` or ``reference``.
    """
    from stylegan_inv.methods.common.capabilities import StartsFromMethod

    method: InversionMethod = instantiate_method(cfg.method) if run is None else load_inverter(run, device)
    method = method.to(device).eval().requires_grad_(False)
    if cfg.start is not None:
        if not isinstance(method, StartsFromMethod):
            raise UserError(f"start={cfg.start}: {type(method).__name__} does not refine, expected a run of ReStyle")
        method.start_from(load_inverter(cfg.start, device))
    _check_inputs(cfg, method)
    return method


def _is_trained(kind: type) -> bool:
    from stylegan_inv.methods.common.base import InversionMethod
    from stylegan_inv.methods.common.trained import TrainedMethod

    return issubclass(kind, TrainedMethod) or not issubclass(kind, InversionMethod)


def _check_inputs(cfg: DictConfig, method: InversionMethod) -> None:
    from stylegan_inv.methods.common.per_image import PerImageMethod

    takes_and_needs = {"reference": (False, False), "mask": (False, False)}
    if isinstance(method, PerImageMethod):
        takes_and_needs["reference"] = method.takes_reference, method.needs_reference
        takes_and_needs["mask"] = method.takes_mask, method.needs_mask
    for key, (takes, needs) in takes_and_needs.items():
        if needs and cfg[key] is None:
            raise UserError(f"{type(method).__name__} needs a {key} with these stages; give {key}=…")
        if cfg[key] is not None and not takes:
            raise UserError(f"{key}={cfg[key]}: {type(method).__name__} takes none; method=image2stylegan_pp does")
