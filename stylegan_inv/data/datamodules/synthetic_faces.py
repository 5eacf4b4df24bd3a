"""SynthFaces for Lightning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stylegan_inv.data.datamodules.base import SPLITS, ImageDataModule, check_whole
from stylegan_inv.data.synthfaces.dataset import SynthFaces


class FacesDataModule(ImageDataModule):
    """SynthFaces, rendered on the fly: seed 0 trains, seed 1 validates, seed 2 tests.

    Args:
        resolution: Side in pixels.
        train_size: Distinct training images.
        val_size: Validation images.
        test_size: Test images.
        obstacles: Probability that something covers a part of the face, in all splits.
        overrides: Factors to fix, e.g. ``{yaw: 0.0}``.
        correlations: Correlations between factors, e.g. ``{"age,eyeglasses": 0.6}``.
        identity_groups: That many consecutive training images show the same person.
        **kwargs: See :class:`ImageDataModule`.
    """

    def __init__(
        self,
        *,
        resolution: int = 64,
        train_size: int = 70000,
        val_size: int = 256,
        test_size: int = 1000,
        obstacles: float = 0.0,
        overrides: Mapping[str, Any] | None = None,
        correlations: Mapping[Any, float] | None = None,
        identity_groups: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.resolution = resolution
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        for split, size in self.sizes.items():
            check_whole(f"dataset.{split}_size", size, 1)
        self._common: dict[str, Any] = {
            "obstacles": obstacles,
            "overrides": dict(overrides or {}),
            "correlations": dict(correlations or {}),
        }
        self._identity_groups = identity_groups

    def make(self, split: str) -> SynthFaces:  # noqa: D102
        groups = self._identity_groups if split == "train" else 1
        return SynthFaces(
            self.resolution, SPLITS.index(split), self.sizes[split], identity_groups=groups, **self._common
        )
