"""The methods: one file per paper, each a LightningModule around the frozen generator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stylegan_inv.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from stylegan_inv.methods.common.base import Inversion as Inversion
    from stylegan_inv.methods.common.base import InversionMethod as InversionMethod
    from stylegan_inv.methods.common.base import Step as Step
    from stylegan_inv.methods.common.discriminators.image_discriminator_training import (
        ImageDiscriminatorTraining as ImageDiscriminatorTraining,
    )
    from stylegan_inv.methods.common.discriminators.latent_discriminator_training import (
        LatentDiscriminatorTraining as LatentDiscriminatorTraining,
    )
    from stylegan_inv.methods.common.embedding_stage import EmbeddingStage as EmbeddingStage
    from stylegan_inv.methods.common.latent_optimization import LatentOptimization as LatentOptimization
    from stylegan_inv.methods.common.per_image import PerImageMethod as PerImageMethod
    from stylegan_inv.methods.common.trained import TrainedMethod as TrainedMethod
    from stylegan_inv.methods.e4e import E4E as E4E
    from stylegan_inv.methods.face_network_training import FaceNetworkTraining as FaceNetworkTraining
    from stylegan_inv.methods.feature_space.dhr import DHR as DHR
    from stylegan_inv.methods.feature_space.fse import FSE as FSE
    from stylegan_inv.methods.feature_space.hfgi import HFGI as HFGI
    from stylegan_inv.methods.feature_space.sam import SAM as SAM
    from stylegan_inv.methods.feature_space.sfe import SFE as SFE
    from stylegan_inv.methods.feature_transfer import FeatureTransfer as FeatureTransfer
    from stylegan_inv.methods.generator.paired_stylegan2 import PairedStyleGAN2Training as PairedStyleGAN2Training
    from stylegan_inv.methods.generator.stylegan2 import StyleGAN2Training as StyleGAN2Training
    from stylegan_inv.methods.generator.stylized_stylegan2 import StylizedStyleGAN2 as StylizedStyleGAN2
    from stylegan_inv.methods.hyperinverter import HyperInverter as HyperInverter
    from stylegan_inv.methods.hyperstyle import HyperStyle as HyperStyle
    from stylegan_inv.methods.image2stylegan import Image2StyleGAN as Image2StyleGAN
    from stylegan_inv.methods.image2stylegan_pp import Image2StyleGANPP as Image2StyleGANPP
    from stylegan_inv.methods.interestyle import IntereStyle as IntereStyle
    from stylegan_inv.methods.interestyle_dual import IntereStyleDual as IntereStyleDual
    from stylegan_inv.methods.projector import Projector as Projector
    from stylegan_inv.methods.psp import PSP as PSP
    from stylegan_inv.methods.pti import PTI as PTI
    from stylegan_inv.methods.pti import Locality as Locality
    from stylegan_inv.methods.regions.domain_mask import DomainRules as DomainRules
    from stylegan_inv.methods.regions.superpixels import Superpixels as Superpixels
    from stylegan_inv.methods.restyle import ReStyle as ReStyle
    from stylegan_inv.methods.restyle_e4e import ReStyleE4E as ReStyleE4E

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "common.base": ["Inversion", "InversionMethod", "Step"],
        "common.discriminators.image_discriminator_training": ["ImageDiscriminatorTraining"],
        "common.discriminators.latent_discriminator_training": ["LatentDiscriminatorTraining"],
        "common.embedding_stage": ["EmbeddingStage"],
        "common.latent_optimization": ["LatentOptimization"],
        "common.per_image": ["PerImageMethod"],
        "common.trained": ["TrainedMethod"],
        "feature_space.dhr": ["DHR"],
        "e4e": ["E4E"],
        "face_network_training": ["FaceNetworkTraining"],
        "feature_transfer": ["FeatureTransfer"],
        "feature_space.fse": ["FSE"],
        "generator.paired_stylegan2": ["PairedStyleGAN2Training"],
        "generator.stylegan2": ["StyleGAN2Training"],
        "generator.stylized_stylegan2": ["StylizedStyleGAN2"],
        "feature_space.hfgi": ["HFGI"],
        "hyperinverter": ["HyperInverter"],
        "hyperstyle": ["HyperStyle"],
        "image2stylegan": ["Image2StyleGAN"],
        "image2stylegan_pp": ["Image2StyleGANPP"],
        "interestyle": ["IntereStyle"],
        "interestyle_dual": ["IntereStyleDual"],
        "projector": ["Projector"],
        "psp": ["PSP"],
        "pti": ["Locality", "PTI"],
        "regions.domain_mask": ["DomainRules"],
        "regions.superpixels": ["Superpixels"],
        "restyle": ["ReStyle"],
        "restyle_e4e": ["ReStyleE4E"],
        "feature_space.sam": ["SAM"],
        "feature_space.sfe": ["SFE"],
    },
)
