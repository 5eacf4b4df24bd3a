"""Metrics of latent codes (B, L, D): distance to W, and differences between layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stylegan_inv.generators import Generator
from stylegan_inv.losses.latent.style_alignment import sampled_anchors, style_vectors
from stylegan_inv.metrics.base import PerItemMetric
from stylegan_inv.utils.frozen_module import Frozen


class CodeMetric(PerItemMetric):
    """A metric with one value per code. Subclasses implement `score`; their first argument is the generator."""

    higher_is_better = False

    def score(self, w: Tensor) -> Tensor:
        """Returns values (B,) of codes (B, L, D)."""
        raise NotImplementedError

    def update(self, w: Tensor, index: Tensor | None = None) -> None:
        """Adds a batch.

        Args:
            w: Codes (B, L, D).
            index: Data set indices (B,) of their images, if they are known.
        """
        with torch.no_grad():
            self.record(self.score(w.detach().float()), index)


class DistanceToW(CodeMetric):
    """Distance to W: Euclidean distance of each layer's code to the nearest of many samples of W, mean over layers.

    It is divided by the distance of a new sample of W to its nearest sample, so 1 means "as close as W is to itself"
    for every generator. Codes near the latent average, where W is dense, have values below 1.

    Args:
        generator: Generator whose mapping network draws the samples, without truncation.
        samples: Number of samples.
        seed: Seed of the samples.
        **kwargs: Arguments of torchmetrics.Metric.
    """

    domain: str | None = None
    samples: Tensor
    own_distance: Tensor

    def __init__(self, generator: Generator, samples: int = 10000, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        new = max(1, samples // 10)
        w = sample_w(generator, samples + new, seed)
        self.register_buffer("samples", w[:samples], persistent=False)
        self.register_buffer("own_distance", self._nearest(w[samples:]).mean(), persistent=False)

    def score(self, w: Tensor) -> Tensor:
        """Returns the distances, relative to that of W itself."""
        rows = self._nearest(w.flatten(0, 1)).view(w.shape[:2])
        return rows.mean(dim=1) / self.own_distance

    def describe(self) -> str:
        """Returns the number of samples."""
        return f"mean distance of the layers to the nearest of {len(self.samples)} codes of W, relative to W itself"

    def _nearest(self, rows: Tensor) -> Tensor:
        return torch.cat([torch.cdist(chunk, self.samples).min(dim=1).values for chunk in rows.split(256)])


class CodeSpread(CodeMetric):
    """Difference between layers: ``sqrt(mean_l |w_l - mean w|^2)`` divided by the radius of W; 0 for codes of W.

    e4e (Tov et al. 2021, section 4.2) calls codes close to W if this is small and the code of each layer resembles a
    code of W.

    Args:
        generator: Generator whose mapping network draws the samples. The radius is ``sqrt(E |w - w_avg|^2)``.
        samples: Number of samples.
        seed: Seed of the samples.
        **kwargs: Arguments of torchmetrics.Metric.
    """

    domain: str | None = None
    radius: Tensor

    def __init__(self, generator: Generator, samples: int = 10000, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        w = sample_w(generator, samples, seed)
        radius = (w - w.mean(dim=0)).square().sum(dim=1).mean().sqrt()
        self.register_buffer("radius", radius, persistent=False)

    def score(self, w: Tensor) -> Tensor:
        """Returns the spread, relative to the radius of W."""
        deviation = (w - w.mean(dim=1, keepdim=True)).square().sum(dim=2)
        return deviation.mean(dim=1).sqrt() / self.radius

    def describe(self) -> str:
        """Returns the radius."""
        return f"root mean square of the layers' distance to their mean, over the radius of W ({self.radius:.4g})"


class StyleSpaceDistance(CodeMetric):
    """Normalised style space cosine distance (LSAP, arXiv 2209.12746): how far style vectors are from W's.

    The style vectors of the convolutions and of the last ToRGB are compared with their unit mean over W: the mean over
    the layers of ``1 - cosine``. It is 0 only for one image of W alone; samples of W have the distance that the
    protocol names.

    Args:
        generator: Generator whose mapping network draws the samples, without truncation.
        samples: Number of samples. The authors: 100,000.
        seed: Seed of the samples.
        **kwargs: Arguments of torchmetrics.Metric.
    """

    domain: str | None = None
    own_distance: Tensor

    def __init__(self, generator: Generator, samples: int = 10000, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.generator, self.samples = Frozen(generator), samples
        anchors = sampled_anchors(generator, samples, seed)
        self.layers = len(anchors)
        for number, anchor in enumerate(anchors):
            self.register_buffer(f"anchor{number}", F.normalize(anchor, dim=0), persistent=False)
        new = sample_w(generator, max(1, samples // 10), seed + 1)[:, None].expand(-1, generator.num_ws, -1)
        self.register_buffer("own_distance", self.score(new).mean(), persistent=False)

    def distances(self, w: Tensor) -> Tensor:
        """Returns the distances of all layers, (B, L), of codes (B, L, D)."""
        anchors = [self.get_buffer(f"anchor{number}") for number in range(self.layers)]
        vectors = style_vectors(self.generator.network, w.to(anchors[0]))
        return torch.stack([1 - s @ a for s, a in zip(vectors, anchors, strict=True)], dim=1)

    def score(self, w: Tensor) -> Tensor:
        """Returns the mean distances (B,)."""
        return self.distances(w).mean(1)

    def describe(self) -> str:
        """Returns the distance of W itself."""
        return (
            f"mean of 1 - cosine between style vectors and their mean over {self.samples} codes of W; "
            f"{float(self.own_distance):.4f} for W itself"
        )


@torch.no_grad()
def sample_w(generator: Generator, count: int, seed: int) -> Tensor:
    """Returns codes (count, D) of W without truncation; a seed gives the same codes on every device."""
    z = torch.randn(count, generator.z_dim, generator=torch.Generator().manual_seed(seed))
    device = generator.w_avg.device
    return torch.cat([generator.mapping(chunk.to(device))[:, 0] for chunk in z.split(1000)]).float()
