"""StyleGAN2 inversion: many methods around one frozen generator.

>>> import stylegan_inv
>>> generator = stylegan_inv.load_generator("synthfaces64")
>>> method = stylegan_inv.load_inverter("restyle_synthfaces")  # or a run folder

The names load lazily (PEP 562): ``import stylegan_inv`` itself imports neither torch nor Lightning.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stylegan_inv.generators.io.formats import load_generator
    from stylegan_inv.loading import load_inverter
    from stylegan_inv.methods.common.base import Inversion, InversionMethod

__version__ = "0.1.0"

_PUBLIC = {
    "load_generator": "stylegan_inv.generators.io.formats",
    "load_inverter": "stylegan_inv.loading",
    "Inversion": "stylegan_inv.methods.common.base",
    "InversionMethod": "stylegan_inv.methods.common.base",
}
__all__ = ["__version__", "load_generator", "load_inverter", "Inversion", "InversionMethod"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
