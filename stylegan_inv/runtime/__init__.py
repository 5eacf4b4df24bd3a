"""What surrounds a training run: its folder, resume, checkpoint files, loggers, ranks."""

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
