"""The crop of an aligned portrait that the papers' identity loss and frontalisation losses look at."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

SIZE = 256
"""The papers compare at this size; other images are brought to it first (pSp's ``face_pool``)."""

# Not symmetric: it imitates the detector's crop that the recognition network was trained with (author, pSp issue 99).
ROWS, COLUMNS = slice(35, 223), slice(32, 220)


def face_crop(image: Tensor) -> Tensor:
    """Rows 35:223 and columns 32:220 of a face aligned as in FFHQ: (B, C, H, W) -> (B, C, 188, 188).

    Source: pSp, ``criteria/id_loss.py``; other sizes are pooled as in e4e's.
    """
    if image.shape[-2:] != (SIZE, SIZE):
        image = F.adaptive_avg_pool2d(image, (SIZE, SIZE))
    return image[..., ROWS, COLUMNS]
