"""Metrics (torchmetrics), most of which keep one value per image, and their functional forms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stylegan_inv.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from stylegan_inv.metrics.base import PerImageMetric as PerImageMetric
    from stylegan_inv.metrics.base import SetMetric as SetMetric
    from stylegan_inv.metrics.editing_consistency import LatentEditingConsistency as LatentEditingConsistency
    from stylegan_inv.metrics.face_similarity import AttributeScores as AttributeScores
    from stylegan_inv.metrics.face_similarity import IdentitySimilarity as IdentitySimilarity
    from stylegan_inv.metrics.face_similarity import VerificationAUC as VerificationAUC
    from stylegan_inv.metrics.fid import FID as FID
    from stylegan_inv.metrics.fid import KID as KID
    from stylegan_inv.metrics.frechet import FrechetDistance as FrechetDistance
    from stylegan_inv.metrics.full_set import FullFID as FullFID
    from stylegan_inv.metrics.full_set import FullFrechetDistance as FullFrechetDistance
    from stylegan_inv.metrics.image import MSE as MSE
    from stylegan_inv.metrics.image import MSSSIM as MSSSIM
    from stylegan_inv.metrics.image import PSNR as PSNR
    from stylegan_inv.metrics.image import SSIM as SSIM
    from stylegan_inv.metrics.image import AverageImageRatio as AverageImageRatio
    from stylegan_inv.metrics.kernel import KernelDistance as KernelDistance
    from stylegan_inv.metrics.latent import CodeSpread as CodeSpread
    from stylegan_inv.metrics.latent import DistanceToW as DistanceToW
    from stylegan_inv.metrics.latent import StyleSpaceDistance as StyleSpaceDistance
    from stylegan_inv.metrics.perceptual_distance import EmbeddedPerceptualDistance as EmbeddedPerceptualDistance
    from stylegan_inv.metrics.perceptual_distance import LPIPSDistance as LPIPSDistance
    from stylegan_inv.metrics.precision_recall import PrecisionRecall as PrecisionRecall
    from stylegan_inv.metrics.recognition import load_curricularface as load_curricularface

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "base": ["PerImageMetric", "SetMetric"],
        "face_similarity": ["AttributeScores", "IdentitySimilarity", "VerificationAUC"],
        "fid": ["FID", "KID"],
        "frechet": ["FrechetDistance"],
        "full_set": ["FullFID", "FullFrechetDistance"],
        "image": ["AverageImageRatio", "MSE", "MSSSIM", "PSNR", "SSIM"],
        "kernel": ["KernelDistance"],
        "editing_consistency": ["LatentEditingConsistency"],
        "latent": ["CodeSpread", "DistanceToW", "StyleSpaceDistance"],
        "perceptual_distance": ["EmbeddedPerceptualDistance", "LPIPSDistance"],
        "precision_recall": ["PrecisionRecall"],
        "recognition": ["load_curricularface"],
    },
)
