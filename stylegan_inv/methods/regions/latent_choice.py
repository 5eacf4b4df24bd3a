"""SAM's choice of a latent for each segment, and its masks at the sizes of the feature maps.

Parmar, Li, Lu, Zhang, Zhu, Singh, "Spatially-Adaptive Multilayer Selection for GAN Inversion and Editing", CVPR 2022,
arXiv 2206.08357, section 3.2. Official code: adobe-research/sam_inversion, commit 93d3bd6 (mask_utils.py).
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stylegan_inv.errors import UserError


def segment_means(maps: Tensor, segments: Tensor) -> Tensor:
    """Returns the mean of each map over each segment, (S, K), for S numbers of segments from 0; NaN for absent ones.

    Args:
        maps: (K, H, W).
        segments: Number of the segment at each pixel, (H, W) int64.
    """
    count = int(segments.max()) + 1
    flat = segments.flatten()
    size = torch.zeros(count, dtype=maps.dtype, device=maps.device).index_add_(0, flat, maps.new_ones(flat.shape))
    sums = maps.new_zeros(count, len(maps)).index_add_(0, flat, maps.flatten(1).T)
    return sums / size[:, None]


def choose_latents(maps: Tensor, segments: Tensor, threshold: float) -> Tensor:
    """Returns the index of the latent of each pixel, (H, W) int64.

    A latent is admissible for a segment if the mean of its map there is at most the threshold. The last admissible one
    is taken, which is the most editable; the first one where none is admissible.

    Args:
        maps: Expected perceptual distance of an inversion by each latent alone, (K, H, W), from the latent with the
            best reconstruction to the most editable one.
        segments: Number of the segment at each pixel, (H, W) int64.
        threshold: Largest mean distance, as tau in the paper.
    """
    if maps.ndim != 3 or maps.shape[1:] != segments.shape:
        raise UserError(f"invertibility: got {tuple(maps.shape)}, expected (K, {', '.join(map(str, segments.shape))})")
    admissible = segment_means(maps, segments) <= threshold
    numbers = torch.arange(len(maps), device=maps.device)
    best = (admissible * numbers).amax(1)
    return best[segments]


def shrunk_mask(mask: Tensor, size: int) -> Tensor:
    """Returns a mask (H, W) at the size of a feature map, (size, size), by a Lanczos filter, as the official code.

    The result is soft and is clipped to the values of the mask, which removes the ringing.
    """
    if mask.shape == (size, size):
        return mask
    image = Image.fromarray(mask.detach().float().cpu().numpy()).resize((size, size), Image.Resampling.LANCZOS)
    shrunk = np.clip(np.array(image), 0, float(mask.max()))
    return torch.from_numpy(shrunk).to(mask)
