"""A holder for networks that are used, but neither trained nor saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


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

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Frozen:
        # .to(), .cuda(), .double() all come through here.
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
