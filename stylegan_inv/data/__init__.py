"""Datasets, DataModules, translation tasks and augmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stylegan_inv.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from stylegan_inv.data.augment.ada import ADA as ADA
    from stylegan_inv.data.augment.diffaugment import DiffAugment as DiffAugment
    from stylegan_inv.data.datamodules.afhq import AFHQDataModule as AFHQDataModule
    from stylegan_inv.data.datamodules.base import ImageDataModule as ImageDataModule
    from stylegan_inv.data.datamodules.cached_synthfaces import CachedSynthFacesDataModule as CachedSynthFacesDataModule
    from stylegan_inv.data.datamodules.cars import CarsDataModule as CarsDataModule
    from stylegan_inv.data.datamodules.celeba_hq import CelebAHQDataModule as CelebAHQDataModule
    from stylegan_inv.data.datamodules.celeba_hq import FFHQCelebAHQDataModule as FFHQCelebAHQDataModule
    from stylegan_inv.data.datamodules.folder_datamodule import FolderDataModule as FolderDataModule
    from stylegan_inv.data.datamodules.lsun import LSUNDataModule as LSUNDataModule
    from stylegan_inv.data.datamodules.paired import PairedFolderDataModule as PairedFolderDataModule
    from stylegan_inv.data.datamodules.paired import PairedSynthFacesDataModule as PairedSynthFacesDataModule
    from stylegan_inv.data.datamodules.people import PeopleDataModule as PeopleDataModule
    from stylegan_inv.data.datamodules.synthfaces_datamodule import SynthFacesDataModule as SynthFacesDataModule
    from stylegan_inv.data.synthfaces.dataset import SynthFaces as SynthFaces
    from stylegan_inv.data.synthfaces.factor_features import factor_features as factor_features
    from stylegan_inv.data.synthfaces.factor_features import factor_knots as factor_knots
    from stylegan_inv.data.synthfaces.factor_specs import VECTOR_NAMES as VECTOR_NAMES
    from stylegan_inv.data.tasks.base import Task as Task
    from stylegan_inv.data.tasks.cartoon import Cartoon as Cartoon
    from stylegan_inv.data.tasks.frontalization import Frontalization as Frontalization
    from stylegan_inv.data.tasks.inpainting import Inpainting as Inpainting
    from stylegan_inv.data.tasks.label_maps import SegmentationToFace as SegmentationToFace
    from stylegan_inv.data.tasks.restoration import Colorization as Colorization
    from stylegan_inv.data.tasks.restoration import Denoising as Denoising
    from stylegan_inv.data.tasks.restoration import SuperResolution as SuperResolution
    from stylegan_inv.data.tasks.sketch import SketchToFace as SketchToFace

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "augment.ada": ["ADA"],
        "augment.diffaugment": ["DiffAugment"],
        "datamodules.afhq": ["AFHQDataModule"],
        "datamodules.base": ["ImageDataModule"],
        "datamodules.cached_synthfaces": ["CachedSynthFacesDataModule"],
        "datamodules.cars": ["CarsDataModule"],
        "datamodules.celeba_hq": ["CelebAHQDataModule", "FFHQCelebAHQDataModule"],
        "datamodules.folder_datamodule": ["FolderDataModule"],
        "datamodules.lsun": ["LSUNDataModule"],
        "datamodules.paired": ["PairedFolderDataModule", "PairedSynthFacesDataModule"],
        "datamodules.people": ["PeopleDataModule"],
        "datamodules.synthfaces_datamodule": ["SynthFacesDataModule"],
        "synthfaces.dataset": ["SynthFaces"],
        "synthfaces.factor_features": ["factor_features", "factor_knots"],
        "synthfaces.factor_specs": ["VECTOR_NAMES"],
        "tasks.base": ["Task"],
        "tasks.cartoon": ["Cartoon"],
        "tasks.frontalization": ["Frontalization"],
        "tasks.inpainting": ["Inpainting"],
        "tasks.restoration": ["Colorization", "Denoising", "SuperResolution"],
        "tasks.label_maps": ["SegmentationToFace"],
        "tasks.sketch": ["SketchToFace"],
    },
)
