"""What others have published for photographs, beside which our pages put the figures of the embedded world."""

from __future__ import annotations

from dataclasses import dataclass

HYPERSTYLE = "HyperStyle, arXiv 2111.15666, table 1"
GANINVERTER = "GANInverter's benchmark"
#: Said wherever the figures stand side by side.
NOT_THE_SAME = (
    "The published figures are not the same quantity: photographs of CelebA-HQ instead of drawn faces, a generator of "
    "1024 px trained on FFHQ instead of one of 64 px, LPIPS with AlexNet and the identity of CurricularFace instead of "
    "the embedded `face_eval`, and hundreds of thousands of training steps instead of 16,000 passes. Orders among "
    "methods may be compared, values may not."
)


@dataclass(frozen=True)
class Published:
    """Of the 2,824 test images of CelebA-HQ; MSE in squared units of [-1, 1].

    Attributes:
        mse: Mean squared error.
        lpips: With AlexNet.
        identity: Cosine by CurricularFace, on faces that MTCNN finds.
        seconds: For an image, on a GPU.
        source: Who tabulated it.
    """

    mse: str
    lpips: str
    identity: str
    seconds: str
    source: str


#: Entrant of the benchmark -> published figures. IntereStyle's tables were not at hand; none is given from memory.
PUBLISHED = {
    "psp_synthfaces": Published("0.034", "0.17", "0.56", "0.106", HYPERSTYLE),
    "e4e_synthfaces": Published("0.052", "0.20", "0.50", "0.106", HYPERSTYLE),
    "restyle_synthfaces": Published("0.030", "0.13", "0.66", "0.366", HYPERSTYLE),
    "restyle_e4e_synthfaces": Published("0.041", "0.19", "0.52", "0.366", HYPERSTYLE),
    "projector": Published("0.067", "0.20", "0.32", "", GANINVERTER),
    "image2stylegan": Published("0.024", "0.11", "0.77", "", f"{GANINVERTER}: optimisation in W+"),
    "pti": Published("0.015", "0.09", "0.85", "55.7", HYPERSTYLE),
}
