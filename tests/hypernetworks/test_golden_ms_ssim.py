"""MS-SSIM as HyperStyle's script computes it, in double precision."""

from __future__ import annotations

import pytest
import torch

from stylegan_inv.metrics.image import MSSSIM, ms_ssim
from tests.golden import arrays, check, needs_golden
from tests.hypernetworks.reference import photographs

NAME = "hyperstyle_msssim"


@needs_golden
def test_guessed_range() -> None:
    a, b = photographs(slice(0, 1)), photographs(slice(1, 2))
    blends = [(1 - t) * a + t * b for t in (0.1, 0.25, 0.4)]

    def score(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return ms_ssim(x, y, guess_range=True)[0]

    check(NAME, "score", torch.stack([score(x, a) for x in blends]))
    check(NAME, "score_swapped", torch.stack([score(a, x) for x in blends]))
    check(NAME, "score_range01", torch.stack([score((x + 1) / 2, (a + 1) / 2) for x in blends]))
    check(NAME, "score_scaled", torch.stack([score(0.6 * x, 0.6 * a) for x in blends]))
    check(NAME, "score_self", score(a, a))
    images = photographs(slice(0, 4))
    nan = torch.stack([score(images[[i]], images[[j]]).isnan() for i, j in ((0, 1), (0, 2), (1, 3))])
    check(NAME, "pairs_nan", nan.double())
    assert not ms_ssim(images[[0]], images[[1]]).isnan().any(), "the default clips"
    low, high = arrays(NAME)["score_range01"], arrays(NAME)["score_scaled"]
    assert abs(float(ms_ssim(0.6 * blends[2], 0.6 * a)) - high[2]) > 1e-3 < abs(high[2] - low[2])


def test_the_metric_has_the_switch() -> None:
    x, y = torch.rand(2, 3, 176, 176) - 0.3, torch.rand(2, 3, 176, 176) - 0.3
    metric = MSSSIM(guess_range=True)
    metric.update(x, y)
    assert float(metric.compute()) == pytest.approx(float(ms_ssim(x, y, guess_range=True).mean()))
    assert "guessed range" in metric.describe() and "guessed" not in MSSSIM().describe()
