"""Holds networks that are used, but neither trained nor saved."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError

_HASHES: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()


class Frozen(nn.Module):
    """Holds a network outside the module tree and keeps it frozen.

    A perceptual or identity network in a loss must follow ``.to(device)``. But its weights must not be part of
    ``parameters()`` (optimiser, DDP broadcast) or of ``state_dict()`` (every checkpoint would contain a copy), and
    ``train()`` must not switch its batch norm to training mode. Several holders may share one network.

    Args:
        network: The network; set to ``eval()`` and ``requires_grad_(False)`` in place.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        network.eval().requires_grad_(False)
        self._held = (network,)  # nn.Module does not register modules in a tuple

    @property
    def network(self) -> Any:
        """The network."""
        return self._held[0]

    @property
    def hash(self) -> str:
        """The sha256 of the weights before they were converted to another precision."""
        if self.network not in _HASHES:
            _HASHES[self.network] = state_hash(self.network)
        return _HASHES[self.network]

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Frozen:
        # nn.Module calls this in .to(), .cuda() and .double().
        _ = self.hash
        self._held[0]._apply(fn, recurse)
        super()._apply(fn, recurse)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Frozen:
        # Copies of a method, such as a moving average, share the network, as nothing changes it.
        twin = memo[id(self)] = Frozen(self._held[0])
        return twin

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the network."""
        return self._held[0](*args, **kwargs)

    def extra_repr(self) -> str:
        """Returns the class of the network, whose submodules are not printed."""
        return type(self._held[0]).__name__


def state_hash(network: nn.Module) -> str:
    """Returns the sha256 of a network's state: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        if isinstance(value, Tensor):
            plain = value.detach().cpu().contiguous()
            digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
            digest.update(plain.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def frozen_hashes(module: nn.Module) -> dict[str, str]:
    """Returns path in ``module`` -> hash of the frozen network there; checkpoints store it."""
    return {name: part.hash for name, part in module.named_modules() if isinstance(part, Frozen)}


def check_frozen(module: nn.Module, made_with: Mapping[str, str]) -> None:
    """Checks that the frozen networks of a module are those that its checkpoint was trained with.

    Networks that only one of them has, for example because a loss term was added, are not compared.

    Args:
        module: The module.
        made_with: :func:`frozen_hashes` of the module that was saved.

    Raises:
        UserError: A network with other weights at the same path.
    """
    held = {name: part for name, part in module.named_modules() if isinstance(part, Frozen) and name in made_with}
    for name, part in held.items():
        if part.hash != made_with[name]:
            where = name.removesuffix(".frozen").replace("loss.terms.", "loss.")
            advice = "the file it was trained with, or leave this part out"
            if name == "start":
                where, advice = "method.start", "the run it was trained with, as it was"
            raise UserError(
                f"checkpoint was trained with network {made_with[name][:12]} in {where}, got {part.hash[:12]}; "
                f"give {advice}"
            )
