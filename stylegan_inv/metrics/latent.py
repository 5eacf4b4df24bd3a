"""What codes are worth: how far from W they lie, how much their rows differ, whether edits lead back. (B, L, D)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.metrics.base import PerItemMetric
from stylegan_inv.utils.frozen_module import Frozen


class CodeMetric(PerItemMetric):
    """One value for each code. A subclass writes `score`; its first argument is the generator."""

    higher_is_better = False

    def score(self, w: Tensor) -> Tensor:
        """One value (B,) for each code."""
        raise NotImplementedError

    def update(self, w: Tensor, index: Tensor | None = None) -> None:
        """Adds codes (B, L, D) of images with these data set indices (B,)."""
        with torch.no_grad():
            self.record(self.score(w.detach().float()), index)


class DistanceToW(CodeMetric):
    """How far the nearest code of W is: mean over the L rows of the Euclidean distance to the nearest of many samples.

    Divided by what a fresh code of W has to its own nearest sample, so 1 means "as near as W is to itself", whatever
    the generator. Codes near the mean lie in the dense middle and come out below 1.

    Args:
        generator: Its mapping network makes the samples, without truncation.
        samples: Number of samples.
        seed: Of the samples.
        **kwargs: Of torchmetrics.Metric.
    """

    samples: Tensor
    own_distance: Tensor

    def __init__(self, generator: nn.Module, samples: int = 10000, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        fresh = max(1, samples // 10)
        w = sample_w(generator, samples + fresh, seed)
        self.register_buffer("samples", w[:samples], persistent=False)
        self.register_buffer("own_distance", self._nearest(w[samples:]).mean(), persistent=False)

    def score(self, w: Tensor) -> Tensor:
        """The distances, relative to W's own."""
        rows = self._nearest(w.flatten(0, 1)).view(w.shape[:2])
        return rows.mean(dim=1) / self.own_distance

    def describe(self) -> str:
        """The number of samples."""
        return f"mean distance of the rows to the nearest of {len(self.samples)} codes of W; 1: a fresh code's own"

    def _nearest(self, rows: Tensor) -> Tensor:
        return torch.cat([torch.cdist(chunk, self.samples).min(dim=1).values for chunk in rows.split(256)])


class CodeSpread(CodeMetric):
    """How much the rows of a code differ: ``sqrt(mean_l |w_l - mean w|^2)`` over the radius of W; 0 for codes of W.

    e4e (Tov et al. 2021, section 4.2) calls codes near W when this is small and each row looks like a code of W.

    Args:
        generator: The radius is ``sqrt(E |w - w_avg|^2)`` over its mapping network's samples.
        samples: Number of samples.
        seed: Of the samples.
        **kwargs: Of torchmetrics.Metric.
    """

    radius: Tensor

    def __init__(self, generator: nn.Module, samples: int = 10000, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        w = sample_w(generator, samples, seed)
        radius = (w - w.mean(dim=0)).square().sum(dim=1).mean().sqrt()
        self.register_buffer("radius", radius, persistent=False)

    def score(self, w: Tensor) -> Tensor:
        """The spread, relative to W's radius."""
        deviation = (w - w.mean(dim=1, keepdim=True)).square().sum(dim=2)
        return deviation.mean(dim=1).sqrt() / self.radius

    def describe(self) -> str:
        """The radius."""
        return f"root mean square of the rows' distance from their mean, over the radius of W ({self.radius:.4g})"


@torch.no_grad()
def sample_w(generator: Any, count: int, seed: int) -> Tensor:
    """Codes of W (count, D), untruncated, the same for a seed on every device."""
    z = torch.randn(count, generator.z_dim, generator=torch.Generator().manual_seed(seed))
    device = generator.w_avg.device
    return torch.cat([generator.mapping(chunk.to(device))[:, 0] for chunk in z.split(1000)]).float()


class LatentEditingConsistency(CodeMetric):
    """How far an inverted edit leads back: ``|w - edit^-1(E(G(edit(w))))|_F`` of each code (e4e, section 5.2).

    An identity edit measures the round trip through generator and encoder alone. The official script drops the batches
    beyond the 1st and 99th percentile; here every image counts.

    Args:
        generator: G.
        invert: E: images (B, 3, R, R) of the generator -> codes (B, L, D).
        edit: Codes and a strength -> codes; the strength's negative undoes it.
        strength: Of the edit.
        name: Of the edit, for the protocol.
        **kwargs: Of torchmetrics.Metric.
    """

    def __init__(
        self,
        generator: Any,
        invert: Callable[[Tensor], Tensor],
        edit: Callable[[Tensor, float], Tensor],
        strength: float,
        name: str = "edit",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.generator, self.invert, self.edit = Frozen(generator), invert, edit
        self.strength, self.name = strength, name

    def score(self, w: Tensor) -> Tensor:
        """The distances, in units of W."""
        picture = self.generator.network.synthesis(self.edit(w, self.strength), noise="const")
        with torch.enable_grad():  # methods that optimise each image need gradients
            again = self.invert(picture.detach()).detach()
        return (w - self.edit(again, -self.strength)).flatten(1).norm(dim=1)

    def describe(self) -> str:
        """The edit."""
        return f"latent editing consistency, {self.name} by {self.strength:g}; Frobenius norm in units of W, all images"
