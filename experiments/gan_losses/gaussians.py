"""Mode collapse in the plane: the losses of `method.loss` on a ring of eight Gaussians.

    python experiments/gan_losses/gaussians.py

The data are eight Gaussians of standard deviation 0.05 on a circle of radius 2 (Metz et al., Unrolled GANs, ICLR 2017,
appendix A). Generator and discriminator are multilayer perceptrons; losses and regularisers are those of
``method=stylegan2``. Writes ``gaussians.json`` (figures of every seed) and ``gaussians.png`` (samples of the first one)
into ``experiments/gan_losses``, or into the folder that is given.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.losses.adversarial import discriminator_loss, generator_loss
from stylegan_inv.losses.gan_regularization import r1_penalty

HERE = Path(__file__).parent
#: As in DCGAN (Radford et al., ICLR 2016).
BETAS = (0.5, 0.999)
MODES, RADIUS, DEVIATION = 8, 2.0, 0.05


@dataclass(frozen=True)
class Game:
    """A loss with its regularisers."""

    title: str
    loss: str
    r1: float = 0.0
    r2: float = 0.0


GAMES = (
    Game("minimax", "minimax"),
    Game("non-saturating", "nonsaturating"),
    Game("hinge", "hinge"),
    Game("minimax, R1", "minimax", r1=0.1),
    Game("non-saturating, R1", "nonsaturating", r1=0.1),
    Game("hinge, R1", "hinge", r1=0.1),
    Game("WGAN, R1", "wgan", r1=0.1),
    Game("relativistic, R1 and R2", "relativistic", r1=0.1, r2=0.1),
)


def real_points(count: int, random: torch.Generator) -> Tensor:
    """Returns points (count, 2) of the data."""
    angle = torch.randint(MODES, (count,), generator=random) * (2 * math.pi / MODES)
    centre = RADIUS * torch.stack([angle.cos(), angle.sin()], dim=1)
    return centre + DEVIATION * torch.randn(count, 2, generator=random)


def coverage(points: Tensor, least: float = 0.01) -> dict[str, float]:
    """Returns how many modes hold points, and the fraction of points that are near one.

    A point belongs to a mode if it lies within three standard deviations of its centre; a mode is covered if at least
    ``least`` of all points belong to it.
    """
    angle = torch.arange(MODES) * (2 * math.pi / MODES)
    centres = RADIUS * torch.stack([angle.cos(), angle.sin()], dim=1)
    distance, nearest = torch.cdist(points, centres).min(dim=1)
    near = distance < 3 * DEVIATION
    share = torch.bincount(nearest[near], minlength=MODES) / len(points)
    return {"modes": int((share >= least).sum()), "near": float(near.float().mean())}


def network(inputs: int, outputs: int, width: int) -> nn.Sequential:
    """Returns a multilayer perceptron with two hidden layers."""
    return nn.Sequential(
        nn.Linear(inputs, width), nn.LeakyReLU(0.2),
        nn.Linear(width, width), nn.LeakyReLU(0.2),
        nn.Linear(width, outputs),
    )  # fmt: skip


def train(game: Game, seed: int, steps: int, batch: int = 256, z_dim: int = 16, width: int = 128) -> Tensor:
    """Trains generator and discriminator in turn and returns 2,000 points of the generator."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    generator, discriminator = network(z_dim, 2, width), network(2, 1, width)
    of_generator, of_discriminator = (
        torch.optim.Adam(net.parameters(), lr=1e-3, betas=BETAS) for net in (generator, discriminator)
    )
    for _ in range(steps):
        real, fake = real_points(batch, random), generator(torch.randn(batch, z_dim, generator=random)).detach()
        real.requires_grad_(bool(game.r1))
        fake.requires_grad_(bool(game.r2))
        real_logits, fake_logits = discriminator(real), discriminator(fake)
        loss = discriminator_loss(real_logits, fake_logits, game.loss)
        if game.r1:
            loss = loss + game.r1 / 2 * r1_penalty(real_logits, real)
        if game.r2:
            loss = loss + game.r2 / 2 * r1_penalty(fake_logits, fake)
        of_discriminator.zero_grad()
        loss.backward()
        of_discriminator.step()

        fake_logits = discriminator(generator(torch.randn(batch, z_dim, generator=random)))
        with torch.no_grad():
            real_logits = discriminator(real_points(batch, random))
        of_generator.zero_grad()
        generator_loss(fake_logits, game.loss, real_logits).backward()
        of_generator.step()
    with torch.no_grad():
        points: Tensor = generator(torch.randn(2000, z_dim, generator=random))
    return points


def draw(samples: dict[str, Tensor], rows: list[dict[str, Any]], path: Path) -> None:
    """Draws the samples of each game over the centres of the modes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(samples) // 2, figsize=(1.9 * len(samples) // 2, 4.3))
    real = real_points(2000, torch.Generator().manual_seed(0))
    for axis, (title, points) in zip(axes.flat, samples.items(), strict=True):
        axis.scatter(*real.T, s=6, c="#bbbbbb", linewidths=0)
        axis.scatter(*points.T, s=2, c="#c0392b", linewidths=0, alpha=0.5)
        modes = next(row["modes"] for row in rows if row["title"] == title)
        axis.set_title(f"{title}\n{modes} of {MODES} modes", fontsize=8)
        axis.set(xlim=(-3, 3), ylim=(-3, 3), xticks=[], yticks=[], aspect="equal")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Trains every game with every seed, prints the table, and writes figures and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", nargs="?", type=Path, default=HERE)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    first: dict[str, Tensor] = {}
    for game in GAMES:
        for seed in range(options.seeds):
            points = train(game, seed, options.steps)
            first.setdefault(game.title, points)
            rows.append({**asdict(game), "seed": seed, "steps": options.steps, **coverage(points)})
        own = [row for row in rows if row["title"] == game.title]
        modes = ", ".join(str(row["modes"]) for row in own)
        near = sum(row["near"] for row in own) / len(own)
        print(f"{game.title:26} modes {modes:10} near a mode {near:.0%}", flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "gaussians.json").write_text(json.dumps(rows, indent=1) + "\n")
    draw(first, rows, options.output / "gaussians.png")


if __name__ == "__main__":
    main()
