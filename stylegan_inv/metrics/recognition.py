"""CurricularFace, with which the papers measure identity; it is independent of the ArcFace network of their losses."""

from __future__ import annotations

import functools

from stylegan_inv.encoders.irse import curricularface
from stylegan_inv.losses.arcface import ArcFace
from stylegan_inv.losses.network_files import load_exactly, read_state

SOURCE = "CurricularFace_Backbone.pth of HuangYG123/CurricularFace (IR-101)"


class CurricularFace(ArcFace):
    """Embeds aligned portraits with CurricularFace.

    Paper: faces are detected and aligned by MTCNN; images without a detection are skipped (pSp,
    ``scripts/calc_id_loss_parallel.py``). Here: the crop of the identity loss, which needs no detector, so that every
    image counts for every method.
    """


@functools.cache
def load_curricularface(path: str | None) -> CurricularFace:
    """Loads the official file; repeated calls return the same object.

    Args:
        path: The file, or its name in the weights table, ``curricularface``.

    Raises:
        UserError: There is no such file, or it holds something else.
    """
    network = curricularface()
    load_exactly(network, read_state(path, SOURCE), path, SOURCE)
    return CurricularFace(network).eval().requires_grad_(False)
