"""The switch of a frozen generator's fast path on the CPU, and the conditions under which it runs.

:meth:`.Generator.freeze` switches it on. The layers then run as one function with its own backward (see
:mod:`.fused_segment`), or as several where features are inserted, changed or returned. It runs for float32 and float64
on the CPU. The modules run instead for weights that require gradients, autocast, ``torch.compile``, ``torch.func``,
forward-mode derivatives, hooks inside the network, and ``ops="ref"``. The fast path computes gradients of styles, noise
maps and features, not of weights, and keeps one tensor for each layer. Second derivatives are supported: a backward
that is itself differentiated runs the modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.generators.frozen.network_plan import Network, Plan, Switches, is_plain, weights_of
from stylegan_inv.generators.ops import dispatch


class FusedSynthesis:
    """The switches of the fast path of one network, and the constants that it computes from the weights when needed.

    Copies and pickles of a network only contain the switches. The constants follow weights that are replaced or changed
    in place. Writes through ``.data``, which PyTorch does not count, are not noticed.

    Args:
        enabled: False until the generator is frozen.
        dtype: See :class:`.Switches`.
        recompute: See :class:`.Switches`.
        native: See :class:`.Switches`.
    """

    def __init__(
        self,
        enabled: bool = False,
        dtype: torch.dtype | None = None,
        recompute: bool | None = None,
        native: bool = True,
    ) -> None:
        self.enabled, self.switches = enabled, Switches(dtype, recompute, native)
        self._constants: tuple[list[tuple[Tensor, int]], Plan] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        switches = self.switches
        return FusedSynthesis, (self.enabled, switches.dtype, switches.recompute, switches.native)

    def clear(self) -> None:
        """Drops the constants; they are computed again when needed."""
        self._constants = None

    def clear_activations(self) -> None:
        """Drops the memory of activations that is kept from one backward to the next forward."""
        if self._constants is not None:
            for layer in self._constants[1].layers:
                layer.spare.clear()

    def plan(self, network: Network, tensors: Sequence[Tensor]) -> Plan | None:
        """Returns the network's constants, or None where the modules must run.

        Args:
            network: The network.
            tensors: Everything that its layers read in this call.
        """
        if not self.enabled or not is_plain(tensors):
            return None
        if dispatch.requested(network.ops) == "ref":
            return None
        weights = weights_of(network)
        dtype = tensors[0].dtype
        if weights is None or any(p.requires_grad or p.is_inference() or p.dtype != dtype for p in weights):
            return None
        if self._constants is not None:
            sources, plan = self._constants
            if all(
                old.data_ptr() == new.data_ptr() and version == new._version and old.device == new.device
                for (old, version), new in zip(sources, weights, strict=True)
            ):
                return plan
        with torch.inference_mode(False), torch.no_grad():
            plan = Plan.of(network, self.switches)
            # The detached tensors keep the memory of the weights, so that no other tensor gets the same address.
            self._constants = [(p.detach(), p._version) for p in weights], plan
        return plan
