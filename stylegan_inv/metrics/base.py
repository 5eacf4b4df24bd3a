"""Base classes of the metrics: one value per image, every image counted once, any distribution of images over ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from stylegan_inv.errors import UserError
from stylegan_inv.metrics.networks import masked


class SetMetric(Metric):
    """Compares two sets of images; subclasses implement ``update(images, real)``."""

    def describe(self) -> str:
        """Returns how the value is measured, for the protocol above a table."""
        return ""


class RowMetric(Metric):
    """A metric whose states are rows, which are gathered from all ranks.

    torchmetrics represents a rank without data by an empty float32 vector, which cannot be gathered with the integer or
    two-dimensional rows of the other ranks. This class uses an empty tensor of the declared shape and type instead.
    """

    full_state_update = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._empty: dict[str, Tensor] = {}

    def add_rows(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> None:
        """Declares a state.

        Args:
            name: Name of the attribute that holds the list of tensors (N, *shape).
            *shape: Shape of one row.
            dtype: Type of the rows.
        """
        self.add_state(name, default=[], dist_reduce_fx="cat")
        self._empty[name] = torch.empty(0, *shape, dtype=dtype)

    def rows(self, name: str) -> Tensor:
        """Returns all rows of a state, (N, *shape)."""
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
    """A metric with one value per image. The values remain available; the result is their mean.

    Subclasses call `record` in ``update``. If indices are passed, an image that occurs twice (the padding of a
    distributed sampler) is counted once.
    """

    #: Unit or reference of the value, for tables.
    unit = ""

    values: list[Tensor]
    indices: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_rows("values", dtype=torch.float64)
        self.add_rows("indices", dtype=torch.int64)

    def record(self, values: Tensor, index: Tensor | None = None) -> None:
        """Stores the values of a batch.

        Args:
            values: (B,).
            index: Data set indices (B,) of the images; None if they are unknown.
        """
        if index is None:
            index = torch.full((len(values),), -1)
        self.values.append(values.double())
        self.indices.append(torch.as_tensor(index).to(values.device, torch.int64))

    def per_image(self) -> tuple[Tensor, Tensor]:
        """Returns indices and values, sorted by index.

        Each known index occurs once. Unknown ones (-1) come first, in the order in which they were recorded.
        """
        index, value = self.rows("indices"), self.rows("values")
        order = torch.argsort(index, stable=True)
        index, value = index[order], value[order]
        first = torch.ones_like(index, dtype=torch.bool)
        first[1:] = (index[1:] != index[:-1]) | (index[1:] < 0)
        return index[first], value[first]

    def compute(self) -> Tensor:
        """Returns the mean over the images; NaN if there are none."""
        return self.per_image()[1].mean()

    def describe(self) -> str:
        """Returns how the value is measured, for the protocol above a table."""
        return self.unit


class PerImageMetric(PerItemMetric):
    """Compares reconstructions with targets, with one value for each pair.

    Subclasses implement `score`, and `score_interest` if multiplying by the mask is not the best way to exclude what is
    outside it.
    """

    def score(self, image: Tensor, target: Tensor) -> Tensor:
        """Returns values (B,) for pairs of images (B, 3, H, W) in [-1, 1]."""
        raise NotImplementedError

    def score_interest(self, image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Returns values (B,) for the region inside a mask (B, 1, H, W) in [0, 1]; NaN for an empty mask.

        By default both images are multiplied by the mask, as IntereStyle does for LPIPS and identity.
        """
        values = self.score(masked(image, mask), masked(target, mask))
        return values.where(mask.flatten(1).any(dim=1), torch.nan)

    def update(self, image: Tensor, target: Tensor, index: Tensor | None = None, mask: Tensor | None = None) -> None:
        """Adds a batch.

        Args:
            image: Reconstructions (B, 3, H, W), nominally in [-1, 1].
            target: Target images of the same shape.
            index: Data set indices (B,), if they are known.
            mask: Region to compare, (B, 1, H, W) in [0, 1]; None compares whole images.

        Raises:
            UserError: The shapes do not match.
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
