"""The states of a metric of two sets, kept so that neither the order of the batches nor who saw which one matters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat, dim_zero_sum

from stylegan_inv.errors import UserError
from stylegan_inv.metrics.base import SetMetric


class SetStates:
    """Takes the states out of a metric after each batch, and puts them back together for its value.

    Rows are kept by batch and joined in the order of the batches. Sums are kept with twice the digits (what a rounding
    loses is summed as well: Knuth's two-sum), so that their order changes no bit of the result.

    Args:
        metric: Its states are lists of rows, or sums.

    Raises:
        UserError: A state of another kind, which cannot be merged over batches.
    """

    def __init__(self, metric: SetMetric) -> None:
        self.metric = metric
        metric.reset()
        self.rows: dict[str, dict[int, Tensor]] = {}
        self.sums: dict[str, tuple[Tensor, Tensor]] = {}
        self._defaults: dict[str, Tensor] = {}
        for name, state in metric.metric_state.items():
            kind = metric._reductions[name]
            if isinstance(state, list) and kind in (dim_zero_cat, None):
                self.rows[name] = {}
            elif isinstance(state, Tensor) and kind is dim_zero_sum:
                self._defaults[name] = state.clone()
                self.sums[name] = (state.clone(), torch.zeros_like(state))
            else:
                raise UserError(
                    f"{type(metric).__name__}: its state {name} is neither a sum nor a list of rows; expected "
                    "add_state(…, dist_reduce_fx='sum') or a list with 'cat'"
                )

    def update(self, batch: int, target: Tensor, image: Tensor) -> None:
        """Take a batch of real images and reconstructions (B, 3, S, S); ``batch`` gives its place in the order."""
        self._empty()
        self.metric.update(target, real=True)
        self.metric.update(image, real=False)
        states = self.metric.metric_state
        for name, rows in self.rows.items():
            if states[name]:
                rows[batch] = torch.cat(list(states[name])).cpu()
        for name, (total, lost) in self.sums.items():
            self.sums[name] = _add(total, lost, states[name])  # type: ignore[arg-type]

    def compute(self) -> Any:
        """The metric's value over all batches."""
        device = self.metric.device
        self._empty()
        for name, rows in self.rows.items():
            setattr(self.metric, name, [rows[batch].to(device) for batch in sorted(rows)])
        for name, (total, lost) in self.sums.items():
            setattr(self.metric, name, total + lost)
        self.metric._update_count = max(1, self.metric._update_count)
        self.metric._computed = None
        return self.metric.compute()

    def state(self) -> dict[str, Any]:
        """Everything, as plain containers of tensors."""
        return {"rows": self.rows, "sums": {name: [t.cpu() for t in both] for name, both in self.sums.items()}}

    def merge(self, state: Mapping[str, Any]) -> None:
        """Add what `state` gave elsewhere."""
        for name, rows in state["rows"].items():
            self.rows[name] |= rows
        for name, (total, lost) in state["sums"].items():
            own, own_lost = self.sums[name]
            self.sums[name] = _add(own, own_lost + lost.to(own), total.to(own))

    def _empty(self) -> None:
        for name in self.rows:
            setattr(self.metric, name, [])
        for name, default in self._defaults.items():
            setattr(self.metric, name, default.clone())


def _add(total: Tensor, lost: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of two tensors, and what its rounding lost added to what was lost before."""
    added = total + value
    if not added.is_floating_point():
        return added, lost
    part = added - total
    return added, lost + ((total - (added - part)) + (value - part))
