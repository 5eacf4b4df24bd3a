"""The face crop that the papers' identity and frontalisation losses use."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

SIZE = 256
"""Size in pixels at which the papers compare images; other sizes are resized to it first (pSp's ``face_pool``)."""

# The crop is not symmetric: it imitates the detector's crop that the recognition network was trained on (pSp's author,
# issue 99).
ROWS, COLUMNS = slice(35, 223), slice(32, 220)


def face_crop(image: Tensor) -> Tensor:
    """Returns rows 35:223 and columns 32:220 of faces aligned as in FFHQ.

    Source: pSp, ``criteria/id_loss.py``. Images of other sizes are pooled to 256 px first, as in e4e.

    Args:
        image: (B, C, H, W).

    Returns:
        (B, C, 188, 188).
    """
    if image.shape[-2:] != (SIZE, SIZE):
        image = F.adaptive_avg_pool2d(image, (SIZE, SIZE))
    return image[..., ROWS, COLUMNS]
