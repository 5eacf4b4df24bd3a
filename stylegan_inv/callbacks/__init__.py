"""Lightning callbacks: checkpoints, panels, progress, and checks of a running training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stylegan_inv.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from stylegan_inv.callbacks.artifacts import Artifacts as Artifacts
    from stylegan_inv.callbacks.checkpoints import Checkpoints as Checkpoints
    from stylegan_inv.callbacks.graceful_stop import GracefulStop as GracefulStop
    from stylegan_inv.callbacks.gradient_norm import GradientNorm as GradientNorm
    from stylegan_inv.callbacks.latent_codes import LatentCodes as LatentCodes
    from stylegan_inv.callbacks.learning_rate import LearningRate as LearningRate
    from stylegan_inv.callbacks.non_finite import SkipNonFinite as SkipNonFinite
    from stylegan_inv.callbacks.panels import Panels as Panels
    from stylegan_inv.callbacks.progress import progress_bar as progress_bar
    from stylegan_inv.callbacks.rank_consistency import RankConsistency as RankConsistency
    from stylegan_inv.callbacks.reproducible_steps import ReproducibleSteps as ReproducibleSteps
    from stylegan_inv.callbacks.throughput import Throughput as Throughput
    from stylegan_inv.callbacks.worst_reconstructions import WorstReconstructions as WorstReconstructions

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "artifacts": ["Artifacts"],
        "checkpoints": ["Checkpoints"],
        "reproducible_steps": ["ReproducibleSteps"],
        "graceful_stop": ["GracefulStop"],
        "gradient_norm": ["GradientNorm"],
        "latent_codes": ["LatentCodes"],
        "learning_rate": ["LearningRate"],
        "non_finite": ["SkipNonFinite"],
        "panels": ["Panels"],
        "progress": ["progress_bar"],
        "rank_consistency": ["RankConsistency"],
        "throughput": ["Throughput"],
        "worst_reconstructions": ["WorstReconstructions"],
    },
)
