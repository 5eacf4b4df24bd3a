"""An embedding that maps ground-truth factors of procedural data to w, in place of the mapping network.

It is not a part of StyleGAN2. A mapping network learns the meaning of a factor slowly: hues are circular, hair styles
are intervals of one normal number, and every image shows a single combination. Features of the factors are informative
from the first step. After training, `distill_mapping` teaches the mapping network the function of the embedding on
millions of codes, without images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from stylegan_inv.generators.layers import FullyConnected
from stylegan_inv.generators.mapping import MappingNetwork


class FactorEmbedding(nn.Module):
    """Maps normal numbers to w through features of the factors that these determine.

    Args:
        features: Maps normal numbers ``(B, K)`` to features ``(B, F)``; for SynthFaces, `data.factor_features`.
        num_features: Number F of features.
        num_normals: Number K of normal numbers.
        w_dim: Size D of w.
        hidden: Width of the two hidden layers.
        knots: Ramps, each given by (column of the normal numbers, position, slope), with which `distill_mapping`
            initialises the first layer of the mapping network. Random weights mix all columns and learn the thresholds
            between discrete factors slowly. Unexplained variance of w on SynthFaces: 46 % after 2,500 steps from random
            weights with lr 0.002; from knots 26 % after 2,000 steps with lr 0.01, 19 % with 0.03, and 8 % after 11,000
            steps with 0.04 (random weights were not tried with the higher learning rates).
    """

    def __init__(
        self,
        features: Callable[[Tensor], Tensor],
        num_features: int,
        num_normals: int,
        w_dim: int = 192,
        hidden: int = 256,
        knots: Sequence[tuple[int, float, float]] = (),
    ) -> None:
        super().__init__()
        self.features, self.num_normals, self.knots = features, num_normals, tuple(knots)
        self.layers = nn.Sequential(
            FullyConnected(num_features, hidden, activation="lrelu"),
            FullyConnected(hidden, hidden, activation="lrelu"),
            FullyConnected(hidden, w_dim),
        )

    def forward(self, normals: Tensor) -> Tensor:
        """Maps normal numbers ``(B, K)`` to codes ``(B, D)``."""
        w: Tensor = self.layers(self.features(normals).to(normals.device))
        return w


def distill_mapping(
    embedding: FactorEmbedding,
    mapping: MappingNetwork,
    latents: Callable[[Tensor], Tensor],
    *,
    steps: int = 11000,
    batch_size: int = 512,
    lr: float = 4e-2,
    seed: int = 0,
) -> float:
    """Trains the mapping network to return, for z, the w that the embedding returns for the factors of z.

    Args:
        embedding: The teacher, which does not change.
        mapping: The student, trained in place. Its ``w_avg`` is set to the mean code of the teacher.
        latents: Maps normal numbers ``(B, K)`` to z ``(B, Z)``.
        steps: Number of steps of Adam. The learning rate follows a cosine to a hundredth.
        batch_size: Number of new codes in each step.
        lr: Highest learning rate.
        seed: Seed of the codes. The global random state does not change.

    Returns:
        The squared error of the last tenth of the steps, relative to the variance of w.
    """
    device = next(mapping.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return _distill(embedding, mapping, latents, steps, batch_size, lr, device)


def _distill(
    embedding: FactorEmbedding,
    mapping: MappingNetwork,
    latents: Callable[[Tensor], Tensor],
    steps: int,
    batch_size: int,
    lr: float,
    device: torch.device,
) -> float:
    def draw(count: int) -> Tensor:
        return torch.randn(count, embedding.num_normals, device=device)

    with torch.no_grad():
        sample = embedding(draw(4096))
        mean, variance = sample.mean(0), sample.var(0).mean()
    _start_from_knots(mapping, embedding.knots)
    optimizer = torch.optim.Adam(mapping.parameters(), lr=lr, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1, (step + 1) / 200) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps))),
    )
    errors: list[float] = []
    for _ in range(steps):
        normals = draw(batch_size)
        with torch.no_grad():
            target = embedding(normals)
        loss = (mapping.w(latents(normals)) - target).square().mean() / variance
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        errors.append(loss.item())
    with torch.no_grad():
        mapping.w_avg.copy_(mean)
    last = errors[-max(1, steps // 10) :]
    return sum(last) / len(last)


@torch.no_grad()
def _start_from_knots(mapping: MappingNetwork, knots: Sequence[tuple[int, float, float]]) -> None:
    """Sets the first units of the first layer to ``lrelu(slope * (z[column] - position))``."""
    layer = mapping.get_submodule("fc0")
    assert isinstance(layer, FullyConnected)
    count = min(len(knots), len(layer.weight))
    layer.weight[:count] = 0
    for row, (column, position, slope) in enumerate(knots[:count]):
        layer.weight[row, column] = slope / layer.weight_gain
        layer.bias[row] = -slope * position / layer.bias_gain
