"""Ground-truth factors -> w: a stand-in for the mapping network where the world is procedural.

Not a part of StyleGAN2. A mapping network learns slowly what a factor means: hues are circular, hair styles are cut out
of one normal at thresholds, and every picture shows it only one combination. Given as features, the factors can be read
from the first step; afterwards the mapping network learns the embedding's function on millions of codes, which costs no
picture at all (`distill_mapping`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from stylegan_inv.generators.layers import FullyConnected
from stylegan_inv.generators.mapping import MappingNetwork


class FactorEmbedding(nn.Module):
    """Normals (B, K) -> w (B, D) through features of the factors.

    Args:
        features: normals -> features (B, F); for SynthFaces `data.synthfaces_features.factor_features`.
        num_features: F.
        num_normals: K.
        w_dim: D, that of the generator.
        hidden: width of the two hidden layers.
        knots: (column of the normals, position, slope) of ramps; the mapping network that is to learn this embedding
            starts with them as its first layer. Random first weights mix all columns and are slow to find the cuts
            between discrete factors. Seen on SynthFaces, share of the variance of w left unexplained: 46 % after 2,500
            steps from random weights at a rate of 0.002; from knots 26 % after 2,000 steps at 0.01, 19 % at 0.03, and
            8 % after 11,000 at 0.04 (random weights were not tried at the higher rates).
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
        """(B, K) -> (B, D)."""
        return self.layers(self.features(normals).to(normals.device))


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
    """Teach the mapping network to give, for z, the w that the embedding gives for the factors behind z.

    Args:
        embedding: the teacher; left as it is.
        mapping: the pupil, changed in place; its ``w_avg`` is set to the mean of its own codes.
        latents: normals (B, K) -> z (B, Z).
        steps: of Adam, with a rate that falls along a cosine to a hundredth.
        batch_size: fresh codes each step.
        lr: the highest rate.
        seed: of the codes; the global random numbers stay as they were.

    Returns:
        The squared error on the last tenth of the steps, relative to the variance of w.
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
    """Set the first rows of the first layer to ``lrelu(slope * (z[column] - position))``."""
    layer = mapping.get_submodule("fc0")
    assert isinstance(layer, FullyConnected)
    count = min(len(knots), len(layer.weight))
    layer.weight[:count] = 0
    for row, (column, position, slope) in enumerate(knots[:count]):
        layer.weight[row, column] = slope / layer.weight_gain
        layer.bias[row] = -slope * position / layer.bias_gain
