"""SynthFaces for Lightning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stylegan_inv.data.datamodules.base import SPLITS, ImageDataModule
from stylegan_inv.data.synthfaces.dataset import SynthFaces
from stylegan_inv.utils.checks import whole_number


class SynthFacesDataModule(ImageDataModule):
    """SynthFaces, rendered on the fly: seed 0 for training, seed 1 for validation, seed 2 for test.

    Args:
        resolution: Side in pixels.
        train_size: Number of training images.
        val_size: Number of validation images.
        test_size: Number of test images.
        obstacles: Probability that an obstacle covers a part of the face, in all splits.
        overrides: Factors to fix, e.g. ``{yaw: 0.0}``.
        correlations: Correlations between factors, e.g. ``{"age,eyeglasses": 0.6}``.
        identity_groups: Number of consecutive training images that show the same person.
        domain: See :class:`ImageDataModule`.
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
        domain: str = "synthfaces",
        **kwargs: Any,
    ) -> None:
        super().__init__(domain=domain, **kwargs)
        self.resolution = resolution
        sizes = {"train": train_size, "val": val_size, "test": test_size}
        self.sizes = {split: whole_number(f"dataset.{split}_size", size) for split, size in sizes.items()}
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
