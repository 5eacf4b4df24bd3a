"""Encoders from images to latent codes, and face networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stylegan_inv.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from stylegan_inv.encoders.face_network import FaceNetwork as FaceNetwork
    from stylegan_inv.encoders.face_network import load_face_network as load_face_network
    from stylegan_inv.encoders.factor_embedding import FactorEmbedding as FactorEmbedding
    from stylegan_inv.encoders.feature_space.feature_fusion import FeatureFusion as FeatureFusion
    from stylegan_inv.encoders.feature_space.feature_fusion import SmallFeatureFusion as SmallFeatureFusion
    from stylegan_inv.encoders.feature_space.feature_style import FeatureStyleEncoder as FeatureStyleEncoder
    from stylegan_inv.encoders.feature_space.small_feature_style import (
        SmallFeatureStyleEncoder as SmallFeatureStyleEncoder,
    )
    from stylegan_inv.encoders.fpn import FPNEncoder as FPNEncoder
    from stylegan_inv.encoders.irse import ir_se as ir_se
    from stylegan_inv.encoders.last_layer import LastLayerEncoder as LastLayerEncoder
    from stylegan_inv.encoders.refinement.residual_encoders import ConsultationEncoder as ConsultationEncoder
    from stylegan_inv.encoders.refinement.residual_encoders import ResidualAligner as ResidualAligner
    from stylegan_inv.encoders.resnet_backbone import resnet34 as resnet34
    from stylegan_inv.encoders.single_level import SingleLevelEncoder as SingleLevelEncoder
    from stylegan_inv.encoders.single_w import SingleWEncoder as SingleWEncoder
    from stylegan_inv.encoders.small import SmallEncoder as SmallEncoder
    from stylegan_inv.encoders.unet import UNet as UNet

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "face_network": ["FaceNetwork", "load_face_network"],
        "factor_embedding": ["FactorEmbedding"],
        "feature_space.feature_fusion": ["FeatureFusion", "SmallFeatureFusion"],
        "feature_space.feature_style": ["FeatureStyleEncoder"],
        "feature_space.small_feature_style": ["SmallFeatureStyleEncoder"],
        "fpn": ["FPNEncoder"],
        "irse": ["ir_se"],
        "last_layer": ["LastLayerEncoder"],
        "refinement.residual_encoders": ["ConsultationEncoder", "ResidualAligner"],
        "resnet_backbone": ["resnet34"],
        "single_level": ["SingleLevelEncoder"],
        "single_w": ["SingleWEncoder"],
        "small": ["SmallEncoder"],
        "unet": ["UNet"],
    },
)
