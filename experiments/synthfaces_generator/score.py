"""Computes the scores of the generator's card: python experiments/synthfaces_generator/score.py [file or name].

Fréchet distance and precision/recall on the pooled features of the evaluation face network (not FID) between generated
and held-out SynthFaces (seed 2). Two references are another 2,000 held-out faces, and the same faces blurred.
"""

from __future__ import annotations

import argparse
import json

import torch
from torchvision.transforms.functional import gaussian_blur

from stylegan_inv.data.synthfaces.dataset import SynthFaces
from stylegan_inv.generators import load_generator
from stylegan_inv.metrics.frechet import FrechetDistance
from stylegan_inv.metrics.precision_recall import PrecisionRecall

BATCH = 50


def score(real: torch.Tensor, other: torch.Tensor) -> dict[str, float]:
    """Returns the metrics between two sets of images (N, 3, R, R) in [-1, 1]."""
    frechet, coverage = FrechetDistance("face_eval"), PrecisionRecall("face_eval")
    for metric in (frechet, coverage):
        for a, b in zip(real.split(BATCH), other.split(BATCH), strict=True):
            metric.update(a, real=True)
            metric.update(b, real=False)
    values = {"frechet_embedded": float(frechet.compute())}
    values.update({name: float(value) for name, value in coverage.compute().items()})
    return values


@torch.no_grad()
def main() -> None:
    """Prints the scores as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("generator", nargs="?", default="synthfaces64", help="file or embedded name")
    parser.add_argument("--images", type=int, default=2000, help="images of each set, a multiple of 50")
    options = parser.parse_args()
    generator, count = load_generator(options.generator), options.images
    faces = SynthFaces(generator.resolution, seed=2, size=2 * count)
    images = torch.stack(
        [i["image"] for k in range(0, 2 * count, BATCH) for i in faces.__getitems__(range(k, k + BATCH))]
    )
    real, half = images.chunk(2)
    z = torch.randn(count, generator.z_dim, generator=torch.Generator().manual_seed(0))
    fake = torch.cat([generator(part, noise="random").clamp(-1, 1) for part in z.split(BATCH)])
    blurred = gaussian_blur(half, kernel_size=7, sigma=1.0)
    named = {"generated": fake, "real, other half": half, "real, blurred (sigma 1 px)": blurred}
    print(json.dumps({name: score(real, other) for name, other in named.items()}, indent=2))


if __name__ == "__main__":
    main()
