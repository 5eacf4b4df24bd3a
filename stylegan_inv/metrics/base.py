"""Bases of the metrics: values are kept per image, every image counts once, and ranks may hold any number of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from stylegan_inv.errors import UserError
from stylegan_inv.metrics.networks import masked


class SetMetric(Metric):
    """Compares two sets of images as wholes: ``update(images, real)``."""

    def describe(self) -> str:
        """What was measured by what, for the protocol above a table."""
        return ""


class RowMetric(Metric):
    """A metric whose states are rows, gathered from all ranks.

    torchmetrics gives a rank without data an empty float32 vector, which cannot be gathered with the integer or
    two-dimensional rows of the others. Here it contributes an empty tensor of the right kind.
    """

    full_state_update = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._empty: dict[str, Tensor] = {}

    def add_rows(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> None:
        """Declares a state of rows with ``shape`` each."""
        self.add_state(name, default=[], dist_reduce_fx="cat")
        self._empty[name] = torch.empty(0, *shape, dtype=dtype)

    def rows(self, name: str) -> Tensor:
        """All rows of a state so far."""
        state = getattr(self, name)
        if isinstance(state, Tensor):  # after synchronisation
            return state
        return torch.cat([self._empty[name].to(self.device), *state])

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gathers the rows of all ranks."""
        for name in self._empty:
            if not isinstance(getattr(self, name), Tensor):
                setattr(self, name, [self.rows(name)])
        super().sync(*args, **kwargs)


class PerItemMetric(RowMetric):
    """One value for each image; the values stay available, and the mean is the result.

    A subclass calls `record` in its ``update``. With indices, an image that was seen twice (the padding of a
    distributed sampler) counts once.
    """

    #: For tables: the unit, or what the number refers to.
    unit = ""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_rows("values", dtype=torch.float64)
        self.add_rows("indices", dtype=torch.int64)

    def record(self, values: Tensor, index: Tensor | None = None) -> None:
        """Keeps values (B,) of images with these data set indices (B,); None where they are not known."""
        if index is None:
            index = torch.full((len(values),), -1)
        self.values.append(values.double())  # type: ignore[operator, union-attr]
        self.indices.append(torch.as_tensor(index).to(values.device, torch.int64))  # type: ignore[operator, union-attr]

    def per_image(self) -> tuple[Tensor, Tensor]:
        """Indices and values, sorted by index, each known index once; unknown ones (-1) come first, in order."""
        index, value = self.rows("indices"), self.rows("values")
        order = torch.argsort(index, stable=True)
        index, value = index[order], value[order]
        first = torch.ones_like(index, dtype=torch.bool)
        first[1:] = (index[1:] != index[:-1]) | (index[1:] < 0)
        return index[first], value[first]

    def compute(self) -> Tensor:
        """The mean over images; NaN when there is none."""
        return self.per_image()[1].mean()

    def describe(self) -> str:
        """What was measured by what, for the protocol above a table."""
        return self.unit


class PerImageMetric(PerItemMetric):
    """Compares reconstructions with originals, one value for each pair.

    A subclass writes `score`, and `score_interest` if there is a better way than to blacken what is of no interest.
    """

    def score(self, image: Tensor, target: Tensor) -> Tensor:
        """One value (B,) for each pair of images (B, 3, H, W) in [-1, 1]."""
        raise NotImplementedError

    def score_interest(self, image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """The same for the region that a mask (B, 1, H, W) in [0, 1] marks, NaN where it marks nothing.

        By default both images are multiplied by the mask, as IntereStyle does for its LPIPS and identity.
        """
        values = self.score(masked(image, mask), masked(target, mask))
        return values.where(mask.flatten(1).any(dim=1), torch.nan)

    def update(self, image: Tensor, target: Tensor, index: Tensor | None = None, mask: Tensor | None = None) -> None:
        """Adds a batch.

        Args:
            image: reconstructions (B, 3, H, W), nominally in [-1, 1].
            target: originals, same shape.
            index: data set index of each image (B,), if known.
            mask: judge this region only, (B, 1, H, W) in [0, 1].
        """
        if image.shape != target.shape or image.ndim != 4:
            raise UserError(
                f"{type(self).__name__} got images of shape {tuple(image.shape)} and targets of {tuple(target.shape)}, "
                f"expected two equal (B, 3, H, W)"
            )
        if mask is not None and mask.shape != (len(image), 1, *image.shape[2:]):
            raise UserError(
                f"{type(self).__name__} got masks of shape {tuple(mask.shape)} for images of {tuple(image.shape)}, "
                f"expected (B, 1, H, W) of the same size"
            )
        with torch.no_grad():
            values = self.score(image, target) if mask is None else self.score_interest(image, target, mask)
        self.record(values, index)
