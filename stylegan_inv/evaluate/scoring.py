"""Scoring reconstructions: every metric on every image, on its region of interest, and at every refinement step."""

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
from stylegan_inv.evaluate.set_states import SetStates
from stylegan_inv.methods.common.base import pool
from stylegan_inv.metrics.base import PerImageMetric, PerItemMetric, SetMetric
from stylegan_inv.metrics.latent import CodeMetric

INTEREST, STEP = "_interest", "_step"
STEPS_SHOWN = 10


@dataclass
class Comparison:
    """A batch of reconstructions beside what they shall be.

    Attributes:
        index: Of the images in their data set, (B,).
        names: Of the images, for people.
        target: (B, 3, S, S) in [-1, 1].
        image: Reconstructions (B, 3, R, R), of any resolution.
        mask: Region of interest (B, 1, S, S) in [0, 1], or None.
        w: Codes (B, L, D), or None.
        steps: Number of a refinement step, from 1 -> its pictures (B, 3, R, R); without the last step ...
        last_step: ... whose pictures are ``image``, and which has this number; 0 where there are no steps.
        place: In the order of the batches; None: that of the first image (a replaced one has its replacement's index).
    """

    index: Tensor
    names: Sequence[str]
    target: Tensor
    image: Tensor
    mask: Tensor | None = None
    w: Tensor | None = None
    steps: Mapping[int, Tensor] = field(default_factory=dict)
    last_step: int = 0
    place: int | None = None


class Scores:
    """All metrics of an evaluation.

    Columns come up as they are met: ``mse`` of the whole image, ``mse_interest`` of the region of interest where images
    have masks, ``mse_step1`` of the first refinement step. Every value belongs to one image of the data set, so neither
    the batch size nor the order matters. Scores of other processes can be merged; the batches being the same, so is
    every bit of the result.

    Args:
        metrics: Name -> metric of pairs of images, of codes, or of two sets of images (``update(images, real)``).
        quantise: Round reconstructions to 8 bits first, as files have them; else they are only clamped to [-1, 1].
        device: Where to compute.
    """

    def __init__(
        self, metrics: Mapping[str, Metric], quantise: bool = True, device: str | torch.device = "cpu"
    ) -> None:
        for name in metrics:
            if name.endswith(INTEREST) or STEP in name:
                raise UserError(f"metrics.{name}: names must not contain {INTEREST} or {STEP}; give another name")
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
        self.columns: dict[str, PerItemMetric] = {}
        self._set_states = {name: SetStates(metric) for name, metric in self.sets.items()}
        self._described: dict[str, str] = {}

    def add(self, batch: Comparison) -> None:
        """Score a batch."""
        index, target, mask = batch.index, batch.target.to(self.device), batch.mask
        mask = None if mask is None else mask.to(self.device)
        self.names.update(zip(index.tolist(), batch.names, strict=True))
        self.not_finite += int((~batch.image.isfinite().flatten(1).all(dim=1)).sum())
        image = self.seen(batch.image, target.shape[-1])
        self._add_pairs(image, target, index, mask, "", *([f"{STEP}{batch.last_step}"] if batch.last_step else []))
        for number, picture in batch.steps.items():
            self._add_pairs(self.seen(picture, target.shape[-1]), target, index, mask, f"{STEP}{number}")
        if batch.w is not None:
            for name, code_metric in self.codes.items():
                self._column(name, code_metric).update(batch.w, index)
        for states in self._set_states.values():
            states.update(int(index[0]) if batch.place is None else batch.place, target, image)

    def add_all(self, batches: Iterable[Comparison]) -> Scores:
        """Score them all."""
        for batch in batches:
            self.add(batch)
        return self

    def state(self) -> dict[str, Any]:
        """Everything that `merge` needs, as plain containers of tensors."""
        return {
            "names": self.names,
            "not_finite": self.not_finite,
            "columns": {name: [t.cpu() for t in column.per_image()] for name, column in self.columns.items()},
            "sets": {name: states.state() for name, states in self._set_states.items()},
            "described": self.describe() if self.names else {},
        }

    def merge(self, state: Mapping[str, Any]) -> None:
        """Add the `state` of another process's scores, by the same metrics."""
        self.names |= state["names"]
        self.not_finite += state["not_finite"]
        for name, (index, values) in state["columns"].items():
            base = name.partition(STEP)[0].removesuffix(INTEREST)
            column = self._column(name, {**self.pairs, **self.codes}[base])
            column.record(values.to(self.device), index)
        for name, states in state["sets"].items():
            self._set_states[name].merge(states)
        self._described = self._described or state["described"]

    def check(self) -> None:
        """Raise a UserError if no image was scored."""
        if not self.names:
            raise UserError("evaluation: no image was left to score, expected at least one")

    def seen(self, image: Tensor, size: int) -> Tensor:
        """Reconstructions as they are scored: quantised or clamped, then brought to (B, 3, size, size)."""
        image = image.detach().to(self.device).float()
        return pool(from_uint8(to_uint8(image)) if self.quantise else image.clamp(-1, 1), size)

    def rows(self) -> tuple[list[int], dict[str, Tensor]]:
        """Indices of the images in order, and the values (N,) of each column; NaN where an image has none."""
        order = sorted(self.names)
        place = {index: row for row, index in enumerate(order)}
        values = {}
        for name in sorted(self.columns, key=self._rank):
            index, value = self.columns[name].per_image()
            values[name] = torch.full((len(order),), torch.nan, dtype=torch.float64)
            values[name][[place[i] for i in index.tolist()]] = value.cpu()
        return order, values

    def describe(self) -> dict[str, str]:
        """What each metric measures by what, as it turned out."""
        if self._described:
            return self._described
        metrics: dict[str, PerItemMetric | SetMetric] = {**self.pairs, **self.codes, **self.sets}
        return {name: metric.describe() for name, metric in metrics.items()}

    def set_values(self) -> dict[str, float]:
        """The metrics of sets, of the whole images."""
        values: dict[str, float] = {}
        for name, states in self._set_states.items():
            result = states.compute()
            parts = {f"{name}_{part}": value for part, value in result.items()} if isinstance(result, dict) else {}
            values |= {part: float(value) for part, value in (parts or {name: result}).items()}
        return values

    def _add_pairs(
        self, image: Tensor, target: Tensor, index: Tensor, mask: Tensor | None, suffix: str, *same: str
    ) -> None:
        """Score pictures for the columns with a suffix; ``same`` columns get the same values."""
        for name, metric in self.pairs.items():
            for kind, region in (("", None), (INTEREST, mask)):
                if kind and mask is None:
                    continue
                column = self._column(name + kind + suffix, metric)
                column.update(image, target, index, region)
                for other in same:
                    last: Tensor = column.values[-1]
                    self._column(name + kind + other, metric).record(last, index)

    def _column(self, name: str, like: PerItemMetric) -> PerItemMetric:
        if name not in self.columns:
            # The first column is the metric itself, so that it can describe what it met; networks are shared.
            self.columns[name] = like if name in self.pairs or name in self.codes else copy.deepcopy(like)
            self.columns[name].reset()
        return self.columns[name]

    def _rank(self, name: str) -> tuple[int, bool, int]:
        """Final values first, then steps; a metric's region of interest after its whole."""
        plain, _, step = name.partition(STEP)
        order = [*self.pairs, *self.codes]
        return int(step or 0), plain.endswith(INTEREST), order.index(plain.removesuffix(INTEREST))


def chosen_steps(count: int, limit: int = STEPS_SHOWN) -> list[int]:
    """Numbers from 1 of at most ``limit`` of ``count`` steps, evenly spaced, with the first and the last."""
    if count <= limit:
        return list(range(1, count + 1))
    return [1 + round(i * (count - 1) / (limit - 1)) for i in range(limit)]
