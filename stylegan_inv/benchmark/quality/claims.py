"""Claims of the papers as differences between methods, and whether the benchmark reproduces them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stylegan_inv.benchmark.quality.method_scores import step_column
from stylegan_inv.benchmark.quality.significance import Difference, difference, holm

#: Method -> column -> values (seeds, faces).
Values = Mapping[str, Mapping[str, np.ndarray]]
SIGNIFICANT = 0.05
REPRODUCED, NOT_REPRODUCED, CONTRADICTED = "reproduced", "not reproduced", "contradicted"


@dataclass(frozen=True)
class Claim:
    """A claim that one method is better than another.

    Attributes:
        paper: The paper that makes the claim.
        text: The claim about ``better``.
        column: Column that the claim is about.
        better: Method that should have the lower values.
        worse: Method that ``better`` is compared with.
        against: Column of ``worse``, if it differs from ``column``.
        higher: Whether higher values are better.
    """

    paper: str
    text: str
    column: str
    better: str
    worse: str
    against: str | None = None
    higher: bool = False


@dataclass(frozen=True)
class Verdict:
    """The result for a claim.

    Attributes:
        claim: The claim.
        found: The measured difference, ``better`` minus ``worse``.
        p: Its probability after Holm's correction for the number of claims.
    """

    claim: Claim
    found: Difference
    p: float

    @property
    def word(self) -> str:
        """``reproduced``, ``contradicted``, or ``not reproduced`` if the difference is not significant."""
        if self.p >= SIGNIFICANT:
            return NOT_REPRODUCED
        return REPRODUCED if (self.found.mean > 0) == self.claim.higher else CONTRADICTED

    @property
    def share(self) -> float:
        """Fraction of the faces on which the claim holds."""
        return 1 - self.found.share if self.claim.higher else self.found.share


PSP, E4E, RESTYLE = "psp_synthfaces", "e4e_synthfaces", "restyle_synthfaces"
RESTYLE_E4E, INTERESTYLE, COVERED = "restyle_e4e_synthfaces", "interestyle_synthfaces", "restyle_covered"
I2S, I2SPP, PTI = "image2stylegan", "image2stylegan_pp", "pti"
MSE, ID, W, SPREAD = (f"clear/{name}" for name in ("mse", "id", "w_distance", "w_spread"))
REGION, REGION_COVERED = "clear/mse_interest", "covered/mse_interest"
PERCEPTUAL_COVERED, TARGET, CONSISTENCY = "covered/perceptual_interest", "edits/target", "clear/lec_age"
FIRST_STEP = step_column("mse", 1)

CLAIMS = (
    Claim("ReStyle", "MSE after the fifth iteration is below the first", MSE, RESTYLE, RESTYLE, FIRST_STEP),
    Claim("ReStyle", "MSE is below pSp's", MSE, RESTYLE, PSP),
    Claim("ReStyle", "identity similarity is above pSp's", ID, RESTYLE, PSP, higher=True),
    Claim("ReStyle", "over e4e: MSE is below e4e's", MSE, RESTYLE_E4E, E4E),
    Claim("ReStyle", "over e4e: codes are closer to W than over pSp", W, RESTYLE_E4E, RESTYLE),
    Claim("e4e", "codes are closer to W than pSp's", W, E4E, PSP),
    Claim("e4e", "variation between the layers' codes is below pSp's", SPREAD, E4E, PSP),
    Claim("e4e", "distortion is the price: pSp's MSE is below e4e's", MSE, PSP, E4E),
    Claim("e4e", "edits change the target attribute more than with pSp's codes", TARGET, E4E, PSP, higher=True),
    Claim("e4e", "latent editing consistency is better than pSp's", CONSISTENCY, E4E, PSP),
    Claim("IntereStyle", "region of interest, no obstacle: MSE is below ReStyle's", REGION, INTERESTYLE, RESTYLE),
    Claim("IntereStyle", "region of interest, obstacle: MSE is below ReStyle's", REGION_COVERED, INTERESTYLE, RESTYLE),
    Claim("IntereStyle", "… and below ReStyle's trained with obstacles", REGION_COVERED, INTERESTYLE, COVERED),
    Claim("IntereStyle", "obstacle: perceptual distance is below ReStyle's", PERCEPTUAL_COVERED, INTERESTYLE, RESTYLE),
    Claim("IntereStyle", "… and below ReStyle's trained with obstacles", PERCEPTUAL_COVERED, INTERESTYLE, COVERED),
    Claim("Image2StyleGAN", "optimisation in W+: MSE is below ReStyle's", MSE, I2S, RESTYLE),
    Claim("Image2StyleGAN++", "optimising the noise maps lowers the MSE", MSE, I2SPP, I2S),
    Claim("PTI", "tuning the generator lowers the MSE of the pivot", MSE, PTI, PTI, FIRST_STEP),
    Claim("PTI", "MSE is below e4e's", MSE, PTI, E4E),
    Claim("PTI", "edits change the target attribute more than with Image2StyleGAN", TARGET, PTI, I2S, higher=True),
)


def judge(values: Values, claims: Sequence[Claim] = CLAIMS) -> list[Verdict]:
    """Returns the verdicts on all claims whose methods were measured."""
    found = []
    for claim in claims:
        first = values.get(claim.better, {}).get(claim.column)
        second = values.get(claim.worse, {}).get(claim.against or claim.column)
        if first is not None and second is not None:
            found.append((claim, difference(first, second, same_runs=claim.better == claim.worse)))
    adjusted = holm([result.p for _, result in found])
    return [Verdict(claim, result, p) for (claim, result), p in zip(found, adjusted, strict=True)]
