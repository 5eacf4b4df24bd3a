"""A network with changed weights, which shares everything else with the original."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import one_of

Module = TypeVar("Module", bound=nn.Module)


@runtime_checkable
class ChangesOfImages(Protocol):
    """Differences that are computed when they are read, so that those of one image at a time are in memory.

    Attributes:
        images: Number of images; 1 for the same differences in all images of a batch.
    """

    images: int

    def of_image(self, row: int) -> Mapping[str, Tensor]:
        """Returns name of a parameter -> ``(1, *shape)`` of one image."""


def checked_changes(network: nn.Module, changes: Mapping[str, Tensor], batch: int) -> dict[str, Tensor]:
    """Returns the changes as a dict, checked.

    Args:
        network: The network whose parameters change.
        changes: Name of a parameter -> ``(1 or batch, *shape)``.
        batch: Number of images.

    Raises:
        UserError: A name that the network does not have, or a tensor of another shape.
    """
    parameters = dict(network.named_parameters())
    found: dict[str, Tensor] = {}
    for name in changes:
        one_of("synthesis.weights", name, parameters)
        change, shape = changes[name], tuple(parameters[name].shape)
        if change.ndim == 0 or len(change) not in (1, batch) or tuple(change.shape[1:]) != shape:
            expected = ", ".join(map(str, (f"1 or {batch}", *shape)))
            raise UserError(
                f"synthesis.weights: the difference of {name} is {tuple(change.shape)}, expected ({expected})"
            )
        found[name] = change
    return found


def with_changes(network: Module, changes: Mapping[str, Tensor], row: int) -> Module:
    """Returns a network whose parameters are those of ``network`` plus the changes of one image.

    Modules without a change are shared. Gradients reach the changes and the original parameters.

    Args:
        network: The network, which stays as it is.
        changes: Name of a parameter -> ``(1 or B, *shape)``, see :func:`checked_changes`.
        row: Number of the image.
    """
    copy = _shallow_copy(network)
    copies: dict[str, nn.Module] = {"": copy}
    for name, change in changes.items():
        *path, last = name.split(".")
        parent: nn.Module = copy
        for depth, part in enumerate(path, start=1):
            prefix = ".".join(path[:depth])
            if prefix not in copies:
                copies[prefix] = parent._modules[part] = _shallow_copy(parent.get_submodule(part))
            parent = copies[prefix]
        # Not a Parameter: it has a history. Modules read it by its name all the same.
        changed = _sum(parent.get_parameter(last), change[row if len(change) > 1 else 0])
        parent._parameters[last] = changed  # type: ignore[assignment]
    return copy


def _sum(weight: Tensor, change: Tensor) -> Tensor:
    if not torch.is_inference_mode_enabled():
        return weight + change.to(weight)
    # The fast path of a frozen network does not take tensors of inference mode, whose changes PyTorch does not count.
    with torch.inference_mode(False), torch.no_grad():
        return weight + change.to(weight)


def _shallow_copy(module: Module) -> Module:
    copy = module.__new__(type(module))
    copy.__dict__ = {**module.__dict__, "_parameters": dict(module._parameters), "_modules": dict(module._modules)}
    return copy
