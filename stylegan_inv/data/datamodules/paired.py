"""Datasets of pairs: a source image or label map that the method sees, and the target image that it produces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from stylegan_inv.data.datamodules.folder_datamodule import FolderDataModule
from stylegan_inv.data.datamodules.loaders import size_of
from stylegan_inv.data.datamodules.synthfaces_datamodule import SynthFacesDataModule
from stylegan_inv.data.synthfaces.dataset import SynthFaces
from stylegan_inv.utils.checks import one_of


class PairedDataset(Dataset[dict[str, Any]]):
    """The samples of one dataset with the ``image`` of another dataset as ``source``.

    Args:
        targets: Dataset of the targets.
        sources: Dataset of the sources, of the same length and order. Its random numbers must be those of the targets.
        name: Key of the source in a sample.
    """

    def __init__(self, targets: Dataset[Any], sources: Dataset[Any], name: str = "source") -> None:
        self.targets, self.sources, self.name = targets, sources, name

    def __len__(self) -> int:
        return size_of(self.targets)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Returns the samples of a batch."""
        targets, sources = (data.__getitems__(indices) for data in (self.targets, self.sources))  # type: ignore[attr-defined]
        return [{**t, self.name: s["image"]} for t, s in zip(targets, sources, strict=True)]


class PairedFolderDataModule(FolderDataModule):
    """Image files with a source for each target, matched by name without the suffix: ``a/1.jpg`` and ``a/1.png``.

    Pairs are cropped and flipped together. A pair is unreadable if one of its files is.

    Args:
        source_root: Folder or archive of all sources, with the names that the targets have in theirs.
        sources: ``images``, or ``labels`` for label maps, which become the entry ``label``.
        **kwargs: See :class:`.FolderDataModule`.
    """

    def __init__(self, *, source_root: str | Path, sources: str = "images", **kwargs: Any) -> None:
        one_of("dataset.sources", sources, ("images", "labels"))
        kwargs["source_root" if sources == "images" else "label_root"] = source_root
        super().__init__(**kwargs)


class PairedSynthFacesDataModule(SynthFacesDataModule):
    """SynthFaces as sources, and the same faces with some factors changed as targets.

    With ``{yaw: 0, pitch: 0}`` the target is frontal; with ``{eyeglasses: none}`` it has no glasses; with
    ``target_obstacles=0`` nothing covers it.

    Args:
        target_overrides: Factors to fix in the targets.
        target_obstacles: Probability that an obstacle covers the target; None uses that of the source. An obstacle
            that is in both images is the same in both.
        paired_training: False gives pairs in validation and test only, to evaluate what is learnt without pairs.
        **kwargs: See :class:`.SynthFacesDataModule`.
    """

    def __init__(
        self,
        *,
        target_overrides: Mapping[str, Any] | None = None,
        target_obstacles: float | None = None,
        paired_training: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.target_overrides, self.target_obstacles = dict(target_overrides or {}), target_obstacles
        self.paired_training = paired_training
        self.make("val")  # raises now if a factor is wrong, and not when the first batch is rendered

    def make(self, split: str) -> SynthFaces | PairedDataset:  # type: ignore[override]  # noqa: D102
        sources = super().make(split)
        if split == "train" and not self.paired_training:
            return sources
        targets = SynthFaces(
            sources.resolution,
            sources.seed,
            sources.size,
            obstacles=sources.obstacles if self.target_obstacles is None else self.target_obstacles,
            overrides={**sources.overrides, **self.target_overrides},
            correlations=sources.correlations,
            identity_groups=sources.identity_groups,
        )
        return PairedDataset(targets, sources)
