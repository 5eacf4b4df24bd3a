"""What the papers claim of their methods, as differences between entrants, and whether this world agrees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stylegan_inv.benchmark.significance import Difference, difference, holm

#: Entrant -> column -> values (seeds, faces).
Values = Mapping[str, Mapping[str, np.ndarray]]
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Claim:
    """One sentence.

    Attributes:
        paper: Whose.
        text: What is claimed of ``better``.
        column: Of the comparison.
        better: Entrant that shall have the lower values ...
        worse: ... than this one.
        against: Column of ``worse``, where it is another.
        higher: Higher values are better.
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
    """A claim, what was found, and what follows at 5 % after Holm's correction for the number of claims."""

    claim: Claim
    found: Difference
    p: float

    @property
    def word(self) -> str:
        """``reproduced``, ``contradicted``, or ``not reproduced`` where no difference can be told from chance."""
        if self.p >= SIGNIFICANT:
            return "not reproduced"
        return "reproduced" if (self.found.mean > 0) == self.claim.higher else "contradicted"

    @property
    def share(self) -> float:
        """Of the faces on which the claim holds."""
        return 1 - self.found.share if self.claim.higher else self.found.share


PSP, E4E, RESTYLE = "psp_synthfaces", "e4e_synthfaces", "restyle_synthfaces"
RESTYLE_E4E, INTERESTYLE, COVERED = "restyle_e4e_synthfaces", "interestyle_synthfaces", "restyle_covered"
I2S, I2SPP, PTI = "image2stylegan", "image2stylegan_pp", "pti"
MSE, ID, W, SPREAD = (f"clear/{name}" for name in ("mse", "id", "w_distance", "w_spread"))
REGION, REGION_COVERED = "clear/mse_interest", "covered/mse_interest"
LOOKS_COVERED, WANTED, RETURN = "covered/perceptual_interest", "edits/wanted", "clear/lec_age"
FIRST_STEP = "clear/mse_step1"

CLAIMS = (
    Claim("ReStyle", "refinement lowers the distortion: fifth step below the first", MSE, RESTYLE, RESTYLE, FIRST_STEP),
    Claim("ReStyle", "distortion below pSp's", MSE, RESTYLE, PSP),
    Claim("ReStyle", "identity kept better than by pSp", ID, RESTYLE, PSP, higher=True),
    Claim("ReStyle", "over e4e: distortion below e4e's", MSE, RESTYLE_E4E, E4E),
    Claim("ReStyle", "over e4e: nearer to W than over pSp", W, RESTYLE_E4E, RESTYLE),
    Claim("e4e", "codes nearer to W than pSp's", W, E4E, PSP),
    Claim("e4e", "rows of a code differ less than pSp's", SPREAD, E4E, PSP),
    Claim("e4e", "the price is distortion: pSp's is below e4e's", MSE, PSP, E4E),
    Claim("e4e", "edits move the wanted attribute further than on pSp's codes", WANTED, E4E, PSP, higher=True),
    Claim("e4e", "edits lead back to the code better than pSp's (editing consistency)", RETURN, E4E, PSP),
    Claim("IntereStyle", "region of interest, clear faces: distortion below ReStyle's", REGION, INTERESTYLE, RESTYLE),
    Claim("IntereStyle", "the same, covered faces", REGION_COVERED, INTERESTYLE, RESTYLE),
    Claim("IntereStyle", "… than ReStyle's trained on covered faces too", REGION_COVERED, INTERESTYLE, COVERED),
    Claim("IntereStyle", "covered faces: perceptual distance below ReStyle's", LOOKS_COVERED, INTERESTYLE, RESTYLE),
    Claim("IntereStyle", "… than ReStyle's trained on covered faces too", LOOKS_COVERED, INTERESTYLE, COVERED),
    Claim("Image2StyleGAN", "descent in W+: distortion below ReStyle's", MSE, I2S, RESTYLE),
    Claim("Image2StyleGAN++", "noise maps lower the distortion further", MSE, I2SPP, I2S),
    Claim("PTI", "tuning lowers the distortion of the pivot", MSE, PTI, PTI, FIRST_STEP),
    Claim("PTI", "distortion below e4e's", MSE, PTI, E4E),
    Claim("PTI", "edits move the wanted attribute further than on W+ codes of descent", WANTED, PTI, I2S, higher=True),
)


def judge(values: Values) -> list[Verdict]:
    """The verdicts on all claims whose entrants took part."""
    found = []
    for claim in CLAIMS:
        first = values.get(claim.better, {}).get(claim.column)
        second = values.get(claim.worse, {}).get(claim.against or claim.column)
        if first is not None and second is not None:
            found.append((claim, difference(first, second, same_runs=claim.better == claim.worse)))
    adjusted = holm([result.p for _, result in found])
    return [Verdict(claim, result, p) for (claim, result), p in zip(found, adjusted, strict=True)]
