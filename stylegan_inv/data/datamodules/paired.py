"""Data in pairs: what the method sees and what it is to produce are two pictures, or a label map and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from stylegan_inv.data.datamodules.image_folders import FolderDataModule
from stylegan_inv.data.datamodules.synthetic_faces import FacesDataModule
from stylegan_inv.data.synthfaces.dataset import SynthFaces
from stylegan_inv.errors import UserError


class Paired(Dataset[dict[str, Any]]):
    """The items of one data set with the ``image`` of another's as ``source``, or under another name.

    Args:
        targets: Gives the items.
        sources: Of the same length and order; what it draws at random has to be drawn from the same numbers.
        name: Entry to add.
    """

    def __init__(self, targets: Dataset[Any], sources: Dataset[Any], name: str = "source") -> None:
        self.targets, self.sources, self.name = targets, sources, name

    def __len__(self) -> int:
        return len(self.targets)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The items of a batch."""
        targets, sources = (data.__getitems__(indices) for data in (self.targets, self.sources))  # type: ignore[attr-defined]
        return [{**t, self.name: s["image"]} for t, s in zip(targets, sources, strict=True)]


class PairedFolderDataModule(FolderDataModule):
    """Targets with a source for each, found by its name without the suffix: ``a/1.jpg`` and ``a/1.png``.

    Args:
        source_root: Place of all sources, arranged as the targets are below their own.
        sources: ``images``, or ``labels``: pictures whose levels are classes, which become the entry ``label``.
        **kwargs: See :class:`.FolderDataModule`. Pairs are cut and mirrored together; a pair
            of which one half is bad is bad.
    """

    def __init__(self, *, source_root: str | Path, sources: str = "images", **kwargs: Any) -> None:
        if sources not in ("images", "labels"):
            raise UserError(f"dataset.sources={sources!r}: expected images or labels")
        kwargs["source_root" if sources == "images" else "label_root"] = source_root
        super().__init__(**kwargs)


class PairedFacesDataModule(FacesDataModule):
    """SynthFaces, each beside another picture of the same person: the source as always, the target with some changes.

    With ``{yaw: 0, pitch: 0}`` the target looks ahead; with ``{eyeglasses: none}`` it has taken off the glasses; with
    ``target_obstacles=0`` nothing covers it.

    Args:
        target_overrides: Factors that the target has fixed.
        target_obstacles: Probability that something covers the target; None: as for the source. What covers a face and
            where is the same in both, if it does.
        paired_training: False pairs validation and test only, to measure what is learnt without pairs.
        **kwargs: See :class:`.FacesDataModule`.
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
        self.make("val")  # a wrong factor is said now

    def make(self, split: str) -> SynthFaces | Paired:  # type: ignore[override]  # noqa: D102
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
        return Paired(targets, sources)
