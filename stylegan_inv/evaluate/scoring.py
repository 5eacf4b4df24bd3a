"""Computes every metric of every image, of its region of interest, and of every refinement step."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from stylegan_inv.data.images.image_files import from_uint8, to_uint8
from stylegan_inv.errors import UserError
from stylegan_inv.evaluate.columns import Column, is_ambiguous
from stylegan_inv.evaluate.set_states import SetStates
from stylegan_inv.methods.common.base import pool
from stylegan_inv.metrics.base import PerImageMetric, PerItemMetric, SetMetric
from stylegan_inv.metrics.latent import CodeMetric

_STEPS_SHOWN = 10


@dataclass
class Comparison:
    """A batch of reconstructions with their targets.

    Attributes:
        index: Indices of the images in their data set, (B,).
        names: Names of the images.
        target: (B, 3, S, S) in [-1, 1].
        image: Reconstructions (B, 3, R, R), of any resolution.
        mask: Region of interest (B, 1, S, S) in [0, 1], or None.
        w: Latent codes (B, L, D), or None.
        steps: Number of a refinement step, from 1 -> its reconstructions (B, 3, R, R); without the last step, whose
            reconstructions are ``image``.
        last_step: Number of the last step; 0 for methods without steps.
        position: Position of the batch in the data set; None takes the index of the first image.
    """

    index: Tensor
    names: Sequence[str]
    target: Tensor
    image: Tensor
    mask: Tensor | None = None
    w: Tensor | None = None
    steps: Mapping[int, Tensor] = field(default_factory=dict)
    last_step: int = 0
    position: int | None = None


class Scores:
    """The values of all metrics of an evaluation.

    Each value belongs to one image of the data set, so neither the batch size nor the order of the batches matters.
    Scores of other processes can be merged; if the batches are the same, the result is the same bit for bit.

    Args:
        metrics: Name -> metric of pairs of images, of latent codes, or of two sets of images.
        quantise: Round reconstructions to 8 bits first, as image files do; otherwise only clamp them to [-1, 1].
        device: Device of the metrics.

    Raises:
        UserError: A metric of another kind, or whose name is ambiguous.
    """

    def __init__(
        self, metrics: Mapping[str, Metric], quantise: bool = True, device: str | torch.device = "cpu"
    ) -> None:
        for name in metrics:
            if is_ambiguous(name):
                raise UserError(f"metrics.{name}: names must not contain _interest or _step; give another name")
            if not isinstance(metrics[name], PerImageMetric | CodeMetric | SetMetric):
                raise UserError(
                    f"metrics.{name}: is a {type(metrics[name]).__name__}, expected one that compares pairs of images "
                    "(PerImageMetric), codes (CodeMetric) or sets of images (SetMetric)"
                )
        metrics = {name: metric.to(device) for name, metric in metrics.items()}
        self.pairs = {name: m for name, m in metrics.items() if isinstance(m, PerImageMetric)}
        self.codes = {name: m for name, m in metrics.items() if isinstance(m, CodeMetric)}
        self.sets = {name: m for name, m in metrics.items() if isinstance(m, SetMetric)}
        self.quantise, self.device = quantise, torch.device(device)
        self.names: dict[int, str] = {}
        self.not_finite = 0
        self.columns: dict[Column, PerItemMetric] = {}
        self._set_states = {name: SetStates(metric) for name, metric in self.sets.items()}
        self._descriptions: dict[str, str] = {}

    def add(self, batch: Comparison) -> None:
        """Scores a batch."""
        index, target, mask = batch.index, batch.target.to(self.device), batch.mask
        mask = None if mask is None else mask.to(self.device)
        self.names.update(zip(index.tolist(), batch.names, strict=True))
        self.not_finite += int((~batch.image.isfinite().flatten(1).all(dim=1)).sum())
        image = self.prepared(batch.image, target.shape[-1])
        self._add_pairs(image, target, index, mask, *([0, batch.last_step] if batch.last_step else [0]))
        for step, reconstruction in batch.steps.items():
            self._add_pairs(self.prepared(reconstruction, target.shape[-1]), target, index, mask, step)
        if batch.w is not None:
            for name in self.codes:
                self._metric(Column(name)).update(batch.w, index)
        for states in self._set_states.values():
            states.update(int(index[0]) if batch.position is None else batch.position, target, image)

    def add_all(self, batches: Iterable[Comparison]) -> Scores:
        """Scores batches and returns the object itself."""
        for batch in batches:
            self.add(batch)
        return self

    def state(self) -> dict[str, Any]:
        """Returns what `merge` needs, as plain containers of tensors."""
        return {
            "names": self.names,
            "not_finite": self.not_finite,
            "columns": [
                (column.metric, column.interest, column.step, *(t.cpu() for t in metric.per_image()))
                for column, metric in self.columns.items()
            ],
            "sets": {name: states.state() for name, states in self._set_states.items()},
            "descriptions": self.describe() if self.names else {},
        }

    def merge(self, state: Mapping[str, Any]) -> None:
        """Adds the `state` of scores of another process with the same metrics."""
        self.names |= state["names"]
        self.not_finite += state["not_finite"]
        for name, interest, step, index, values in state["columns"]:
            self._metric(Column(name, interest, step)).record(values.to(self.device), index)
        for name, states in state["sets"].items():
            self._set_states[name].merge(states)
        self._descriptions = self._descriptions or state["descriptions"]

    def check(self) -> None:
        """Raises a `UserError` if no image was scored, or no reconstruction is finite."""
        if not self.names:
            raise UserError("evaluation: no image was left to score, expected at least one")
        if self.not_finite >= len(self.names):
            raise UserError(
                f"evaluation: the reconstructions of all {len(self.names)} images hold NaN or infinity; check the run"
            )

    def prepared(self, image: Tensor, size: int) -> Tensor:
        """Returns reconstructions as they are scored: quantised or clamped, then pooled to (B, 3, size, size)."""
        image = image.detach().to(self.device).float()
        return pool(from_uint8(to_uint8(image)) if self.quantise else image.clamp(-1, 1), size)

    def rows(self) -> tuple[list[int], dict[Column, Tensor]]:
        """Returns the indices of the images in order, and the values (N,) of each column; NaN for missing values."""
        order = sorted(self.names)
        position = {index: row for row, index in enumerate(order)}
        values = {}
        for column in sorted(self.columns, key=self._rank):
            index, value = self.columns[column].per_image()
            values[column] = torch.full((len(order),), torch.nan, dtype=torch.float64)
            values[column][[position[i] for i in index.tolist()]] = value.cpu()
        return order, values

    def describe(self) -> dict[str, str]:
        """Returns metric -> its unit and what it was computed with."""
        if self._descriptions:
            return self._descriptions
        metrics: dict[str, PerItemMetric | SetMetric] = {**self.pairs, **self.codes, **self.sets}
        return {name: metric.describe() for name, metric in metrics.items()}

    def higher_is_better(self) -> dict[str, bool | None]:
        """Returns name of a column or of a metric of sets -> whether higher is better; None if neither is."""
        columns = {str(column): metric.higher_is_better for column, metric in self.columns.items()}
        return {**columns, **{name: metric.higher_is_better for name, metric in self.sets.items()}}

    def set_values(self) -> dict[str, float]:
        """Returns the values of the metrics of sets, computed on whole images."""
        values: dict[str, float] = {}
        for name, states in self._set_states.items():
            result = states.compute()
            parts = {f"{name}_{part}": value for part, value in result.items()} if isinstance(result, dict) else {}
            values |= {part: float(value) for part, value in (parts or {name: result}).items()}
        return values

    def _add_pairs(self, image: Tensor, target: Tensor, index: Tensor, mask: Tensor | None, *steps: int) -> None:
        """Scores reconstructions once, for the columns of one or two steps."""
        for name in self.pairs:
            for interest, region in ((False, None), (True, mask)):
                if interest and mask is None:
                    continue
                metric = self._metric(Column(name, interest, steps[0]))
                metric.update(image, target, index, region)
                for step in steps[1:]:
                    values: Tensor = metric.values[-1]
                    self._metric(Column(name, interest, step)).record(values, index)

    def _metric(self, column: Column) -> PerItemMetric:
        """Returns the metric that holds the values of a column."""
        if column not in self.columns:
            metric: PerItemMetric = {**self.pairs, **self.codes}[column.metric]
            # The plain column uses the metric itself, so that its description is complete. Copies share the networks.
            self.columns[column] = metric if column == Column(column.metric) else copy.deepcopy(metric)
            self.columns[column].reset()
        return self.columns[column]

    def _rank(self, column: Column) -> tuple[int, bool, int]:
        """Sort key of columns: final values, then steps; whole images, then regions of interest."""
        return column.step, column.interest, [*self.pairs, *self.codes].index(column.metric)


def chosen_steps(count: int, limit: int = _STEPS_SHOWN) -> list[int]:
    """Returns the numbers of at most ``limit`` of ``count`` steps, evenly spaced, with the first and the last."""
    if count <= limit:
        return list(range(1, count + 1))
    return [1 + round(i * (count - 1) / (limit - 1)) for i in range(limit)]
