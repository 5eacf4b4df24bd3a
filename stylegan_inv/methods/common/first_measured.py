"""Methods that cost as much to invert as to measure: the panel shows what the validation has already found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from stylegan_inv.methods.common.base import Inversion, InversionMethod


class FirstMeasured(InversionMethod):
    """Keeps the first batch of a validation and its inversion as ``measured``, which the panels take."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.measured: tuple[dict[str, Tensor], Inversion] | None = None

    def on_validation_epoch_start(self) -> None:  # noqa: D102
        super().on_validation_epoch_start()
        self.measured = None

    def score(self, batch: Mapping[str, Tensor], inversion: Inversion) -> None:  # noqa: D102
        super().score(batch, inversion)
        self.measured = self.measured or (dict(batch), inversion)
