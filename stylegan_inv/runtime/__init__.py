"""What a training run needs besides the model: run folder, resuming, checkpoint files, loggers and ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stylegan_inv.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from stylegan_inv.runtime.loggers import make_loggers as make_loggers

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "loggers": ["make_loggers"],
    },
)
