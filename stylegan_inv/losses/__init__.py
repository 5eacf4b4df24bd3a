"""Loss terms, which compare reconstructions with their targets, and the functions that they are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stylegan_inv.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from stylegan_inv.losses.adversarial import AdversarialLoss as AdversarialLoss
    from stylegan_inv.losses.arcface import ArcFaceLoss as ArcFaceLoss
    from stylegan_inv.losses.arcface import load_arcface as load_arcface
    from stylegan_inv.losses.compose import LossInputs as LossInputs
    from stylegan_inv.losses.compose import LossTerms as LossTerms
    from stylegan_inv.losses.faces.feature_cosines import FeatureIdentity as FeatureIdentity
    from stylegan_inv.losses.faces.feature_cosines import ParsingSimilarity as ParsingSimilarity
    from stylegan_inv.losses.features import EmbeddedFeatures as EmbeddedFeatures
    from stylegan_inv.losses.features import LpipsFeatures as LpipsFeatures
    from stylegan_inv.losses.features import Vgg16Features as Vgg16Features
    from stylegan_inv.losses.identity import IdentityLoss as IdentityLoss
    from stylegan_inv.losses.latent.latent_discriminator import LatentDiscriminator as LatentDiscriminator
    from stylegan_inv.losses.latent.regularization import DeltaNorm as DeltaNorm
    from stylegan_inv.losses.latent.regularization import WNorm as WNorm
    from stylegan_inv.losses.latent.style_alignment import StyleAlignment as StyleAlignment
    from stylegan_inv.losses.latent.style_mixing import StyleMixing as StyleMixing
    from stylegan_inv.losses.lpips import LPIPS as LPIPS
    from stylegan_inv.losses.moco import MoCoLoss as MoCoLoss
    from stylegan_inv.losses.paired.image_regression import PairedRegression as PairedRegression
    from stylegan_inv.losses.paired.warm_start import PairedWarmStart as PairedWarmStart
    from stylegan_inv.losses.perceptual import EmbeddedPerceptual as EmbeddedPerceptual
    from stylegan_inv.losses.pixel import L2 as L2

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "adversarial": ["AdversarialLoss"],
        "arcface": ["ArcFaceLoss", "load_arcface"],
        "compose": ["LossInputs", "LossTerms"],
        "faces.feature_cosines": ["FeatureIdentity", "ParsingSimilarity"],
        "features": ["EmbeddedFeatures", "LpipsFeatures", "Vgg16Features"],
        "identity": ["IdentityLoss"],
        "latent.latent_discriminator": ["LatentDiscriminator"],
        "lpips": ["LPIPS"],
        "moco": ["MoCoLoss"],
        "paired.image_regression": ["PairedRegression"],
        "paired.warm_start": ["PairedWarmStart"],
        "perceptual": ["EmbeddedPerceptual"],
        "pixel": ["L2"],
        "latent.regularization": ["DeltaNorm", "WNorm"],
        "latent.style_alignment": ["StyleAlignment"],
        "latent.style_mixing": ["StyleMixing"],
    },
)
