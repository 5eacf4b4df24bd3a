"""Published scores on photographs, which the pages list next to the scores on SynthFaces."""

from __future__ import annotations

from dataclasses import dataclass

HYPERSTYLE = "HyperStyle, arXiv 2111.15666, table 1"
GANINVERTER = "GANInverter's benchmark"
#: Stated wherever the pages list both.
NOT_THE_SAME = (
    "The published scores are a different quantity: photographs of CelebA-HQ instead of rendered faces, a generator of "
    "1024 px trained on FFHQ instead of 64 px, LPIPS with AlexNet and identity with CurricularFace instead of the "
    "embedded `face_eval`, and hundreds of thousands of training steps instead of 16,000 passes. Compare the order of "
    "the methods, not the values."
)


@dataclass(frozen=True)
class Published:
    """Scores on the 2,824 test images of CelebA-HQ; MSE in squared units of [-1, 1].

    Attributes:
        mse: Mean squared error.
        lpips: LPIPS with AlexNet.
        identity: Cosine similarity with CurricularFace, on faces detected by MTCNN.
        seconds: Seconds per image on a GPU.
        source: Table that lists the scores.
    """

    mse: str
    lpips: str
    identity: str
    seconds: str
    source: str


#: Method of the benchmark -> published scores. Scores of IntereStyle are omitted, as its tables were not available.
PUBLISHED = {
    "psp_synthfaces": Published("0.034", "0.17", "0.56", "0.106", HYPERSTYLE),
    "e4e_synthfaces": Published("0.052", "0.20", "0.50", "0.106", HYPERSTYLE),
    "restyle_synthfaces": Published("0.030", "0.13", "0.66", "0.366", HYPERSTYLE),
    "restyle_e4e_synthfaces": Published("0.041", "0.19", "0.52", "0.366", HYPERSTYLE),
    "projector": Published("0.067", "0.20", "0.32", "", GANINVERTER),
    "image2stylegan": Published("0.024", "0.11", "0.77", "", f"{GANINVERTER}: optimisation in W+"),
    "pti": Published("0.015", "0.09", "0.85", "55.7", HYPERSTYLE),
}
