"""A holder for networks that are used, but neither trained nor saved."""

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

    A perceptual or identity network inside a loss must follow ``.to(device)``, but its weights must not appear in
    ``parameters()`` (optimiser, DDP broadcast) or in ``state_dict()`` (every checkpoint would carry a copy), and
    ``train()`` must not wake its batch norm. One network may sit in many holders: they share it.

    Args:
        network: the network; set to ``eval()`` and ``requires_grad_(False)`` in place.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        network.eval().requires_grad_(False)
        self._held = (network,)  # in a tuple: nn.Module does not register it

    @property
    def network(self) -> Any:
        """The network itself."""
        return self._held[0]

    @property
    def hash(self) -> str:
        """sha256 of the weights as they were before they followed anybody to another precision."""
        if self.network not in _HASHES:
            _HASHES[self.network] = state_hash(self.network)
        return _HASHES[self.network]

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Frozen:
        # .to(), .cuda(), .double() all come through here.
        _ = self.hash
        self._held[0]._apply(fn, recurse)
        super()._apply(fn, recurse)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Frozen:
        # A copy of a method (a moving average, a twin) shares what nobody changes.
        twin = memo[id(self)] = Frozen(self._held[0])
        return twin

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the network."""
        return self._held[0](*args, **kwargs)

    def extra_repr(self) -> str:
        """Names the held class; its tree is not printed."""
        return type(self._held[0]).__name__


def state_hash(network: nn.Module) -> str:
    """sha256 of a network's state: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        if isinstance(value, Tensor):
            plain = value.detach().cpu().contiguous()
            digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
            digest.update(plain.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def frozen_hashes(module: nn.Module) -> dict[str, str]:
    """Path in ``module`` -> hash of every network that it holds frozen, for its checkpoints to name."""
    return {name: part.hash for name, part in module.named_modules() if isinstance(part, Frozen)}


def check_frozen(module: nn.Module, made_with: Mapping[str, str]) -> None:
    """Compare the networks that ``module`` holds frozen with those that a checkpoint names.

    Args:
        module: it may hold fewer or others, as a loss term more or less is no other network.
        made_with: :func:`frozen_hashes` of the module that was saved.

    Raises:
        UserError: a network of the same place with other weights.
    """
    held = {name: part for name, part in module.named_modules() if isinstance(part, Frozen) and name in made_with}
    for name, part in held.items():
        if part.hash != made_with[name]:
            where = name.removesuffix(".frozen").replace("loss.terms.", "loss.")
            raise UserError(
                f"checkpoint was trained with network {made_with[name][:12]} in {where}, got {part.hash[:12]}; give "
                "the file it was trained with, or leave this part out"
            )
