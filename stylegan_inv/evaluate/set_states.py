"""Keeps the states of a metric of two sets so that its value does not depend on the order of the batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat, dim_zero_sum

from stylegan_inv.errors import UserError
from stylegan_inv.metrics.base import SetMetric
from stylegan_inv.utils.compat import mark_updated, state_reductions


class SetStates:
    """Takes the states out of a metric after each batch, and restores them to compute its value.

    Rows are stored by batch and concatenated in the order of the batches. Sums are compensated: the rounding error of
    each addition is summed too (Knuth's two-sum), so that the order of the additions changes no bit of the result.

    Args:
        metric: Metric whose states are lists of rows, or sums.

    Raises:
        UserError: A state of another kind, which cannot be merged over batches.
    """

    def __init__(self, metric: SetMetric) -> None:
        self.metric = metric
        metric.reset()
        self.rows: dict[str, dict[int, Tensor]] = {}
        self.sums: dict[str, tuple[Tensor, Tensor]] = {}
        self._defaults: dict[str, Tensor] = {}
        reductions = state_reductions(metric)
        for name, state in metric.metric_state.items():
            kind = reductions[name]
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
        """Adds a batch.

        Args:
            batch: Position of the batch.
            target: Real images (B, 3, S, S).
            image: Reconstructions (B, 3, S, S).
        """
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
        """Returns the value of the metric over all batches."""
        device = self.metric.device
        self._empty()
        for name, rows in self.rows.items():
            setattr(self.metric, name, [rows[batch].to(device) for batch in sorted(rows)])
        for name, (total, lost) in self.sums.items():
            setattr(self.metric, name, total + lost)
        mark_updated(self.metric)
        return self.metric.compute()

    def state(self) -> dict[str, Any]:
        """Returns all states as plain containers of tensors."""
        return {"rows": self.rows, "sums": {name: [t.cpu() for t in both] for name, both in self.sums.items()}}

    def merge(self, state: Mapping[str, Any]) -> None:
        """Adds the `state` of another process."""
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
    """Returns the sum of two tensors, and the accumulated rounding error.

    Args:
        total: Sum so far.
        lost: Rounding error so far.
        value: Tensor to add.
    """
    added = total + value
    if not added.is_floating_point():
        return added, lost
    part = added - total
    return added, lost + ((total - (added - part)) + (value - part))
