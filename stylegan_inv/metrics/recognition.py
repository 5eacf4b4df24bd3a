"""CurricularFace, by which the papers measure identity: independent of the ArcFace network in their losses."""

from __future__ import annotations

import functools

from stylegan_inv.encoders.irse import curricularface
from stylegan_inv.losses.arcface import ArcFace
from stylegan_inv.losses.network_files import load_exactly, read_state

SOURCE = "CurricularFace_Backbone.pth of HuangYG123/CurricularFace (IR-101)"


class CurricularFace(ArcFace):
    """CurricularFace on aligned portraits.

    Paper: faces found and aligned by MTCNN, images without one left out. Here: the crop of the identity loss, which
    needs no detector, so that every image counts for every method (pSp, ``scripts/calc_id_loss_parallel.py``).
    """


@functools.cache
def load_curricularface(path: str | None) -> CurricularFace:
    """The network of the official file; the same file gives the same object.

    Args:
        path: The file, or its name in the weights table, ``curricularface``.

    Raises:
        UserError: No such file, or one with something else.
    """
    network = curricularface()
    load_exactly(network, read_state(path, SOURCE), path, SOURCE)
    return CurricularFace(network).eval().requires_grad_(False)
