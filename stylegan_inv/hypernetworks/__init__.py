"""Hypernetworks, which predict changes of the generator's weights from images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stylegan_inv.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from stylegan_inv.hypernetworks.layerwise_encoder import LayerwiseEncoder as LayerwiseEncoder
    from stylegan_inv.hypernetworks.shared_weights import SharedWeightsHypernetwork as SharedWeightsHypernetwork
    from stylegan_inv.hypernetworks.small_hypernetwork import SmallHypernetwork as SmallHypernetwork
    from stylegan_inv.hypernetworks.small_layerwise_encoder import SmallLayerwiseEncoder as SmallLayerwiseEncoder
    from stylegan_inv.hypernetworks.weight_regressors import WeightRegressors as WeightRegressors

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "layerwise_encoder": ["LayerwiseEncoder"],
        "shared_weights": ["SharedWeightsHypernetwork"],
        "small_hypernetwork": ["SmallHypernetwork"],
        "small_layerwise_encoder": ["SmallLayerwiseEncoder"],
        "weight_regressors": ["WeightRegressors"],
    },
)
