"""Superpixels (SLIC, Achanta et al., PAMI 2012): small connected regions of similar colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stylegan_inv.data.images.image_files import to_uint8
from stylegan_inv.utils.checks import real_number, true_or_false, whole_number


@dataclass
class Superpixels:
    """Divides images into superpixels by scikit-image's SLIC, in Lab colours.

    Attributes:
        segments: Approximate number of superpixels. DHR: 200.
        compactness: Weight of the distance in space. DHR: 30.
        sigma: Standard deviation of the Gaussian blur beforehand, in pixels. DHR: 1.
        swap_red_and_blue: Read the channels in the order blue, green, red, as DHR's official code does.
    """

    segments: int = 200
    compactness: float = 30.0
    sigma: float = 1.0
    swap_red_and_blue: bool = False

    def __post_init__(self) -> None:
        whole_number("method.superpixels.segments", self.segments)
        real_number("method.superpixels.compactness", self.compactness, above=0)
        real_number("method.superpixels.sigma", self.sigma, least=0)
        true_or_false("method.superpixels.swap_red_and_blue", self.swap_red_and_blue)

    def __call__(self, images: Tensor) -> Tensor:
        """Returns the number of the superpixel at each pixel, from 1, (B, H, W) int64.

        Args:
            images: (B, 3, H, W), RGB in [-1, 1].
        """
        from skimage.segmentation import slic  # takes a second to import

        labels = []
        for image in to_uint8(images.detach()).cpu():
            pixels = image.permute(1, 2, 0).numpy()
            pixels = np.ascontiguousarray(pixels[..., ::-1]) if self.swap_red_and_blue else pixels
            found = slic(pixels, self.segments, self.compactness, sigma=self.sigma, start_label=1)
            labels.append(torch.from_numpy(found.astype(np.int64)))
        return torch.stack(labels).to(images.device)
