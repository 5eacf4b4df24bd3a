"""Data sets, DataModules, translation tasks and augmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stylegan_inv.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from stylegan_inv.data.augment.ada import ADA as ADA
    from stylegan_inv.data.augment.diffaugment import DiffAugment as DiffAugment
    from stylegan_inv.data.datamodules.afhq import AFHQDataModule as AFHQDataModule
    from stylegan_inv.data.datamodules.base import ImageDataModule as ImageDataModule
    from stylegan_inv.data.datamodules.cached_faces import CachedFacesDataModule as CachedFacesDataModule
    from stylegan_inv.data.datamodules.cars import CarsDataModule as CarsDataModule
    from stylegan_inv.data.datamodules.celeba_hq import CelebAHQDataModule as CelebAHQDataModule
    from stylegan_inv.data.datamodules.celeba_hq import FFHQCelebAHQDataModule as FFHQCelebAHQDataModule
    from stylegan_inv.data.datamodules.image_folders import FolderDataModule as FolderDataModule
    from stylegan_inv.data.datamodules.lsun import LSUNDataModule as LSUNDataModule
    from stylegan_inv.data.datamodules.paired import PairedFacesDataModule as PairedFacesDataModule
    from stylegan_inv.data.datamodules.paired import PairedFolderDataModule as PairedFolderDataModule
    from stylegan_inv.data.datamodules.people import PeopleDataModule as PeopleDataModule
    from stylegan_inv.data.datamodules.synthetic_faces import FacesDataModule as FacesDataModule
    from stylegan_inv.data.synthfaces.dataset import SynthFaces as SynthFaces
    from stylegan_inv.data.synthfaces.factor_features import factor_features as factor_features
    from stylegan_inv.data.synthfaces.factor_features import factor_knots as factor_knots
    from stylegan_inv.data.synthfaces.factors import VECTOR_NAMES as VECTOR_NAMES
    from stylegan_inv.data.tasks.cartoon import Cartoon as Cartoon
    from stylegan_inv.data.tasks.translation import Colorization as Colorization
    from stylegan_inv.data.tasks.translation import Denoising as Denoising
    from stylegan_inv.data.tasks.translation import Frontalization as Frontalization
    from stylegan_inv.data.tasks.translation import Inpainting as Inpainting
    from stylegan_inv.data.tasks.translation import SegmentationToFace as SegmentationToFace
    from stylegan_inv.data.tasks.translation import SketchToFace as SketchToFace
    from stylegan_inv.data.tasks.translation import SuperResolution as SuperResolution
    from stylegan_inv.data.tasks.translation import Task as Task

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "augment.ada": ["ADA"],
        "augment.diffaugment": ["DiffAugment"],
        "datamodules.afhq": ["AFHQDataModule"],
        "datamodules.base": ["ImageDataModule"],
        "datamodules.cached_faces": ["CachedFacesDataModule"],
        "datamodules.cars": ["CarsDataModule"],
        "datamodules.celeba_hq": ["CelebAHQDataModule", "FFHQCelebAHQDataModule"],
        "datamodules.image_folders": ["FolderDataModule"],
        "datamodules.lsun": ["LSUNDataModule"],
        "datamodules.paired": ["PairedFacesDataModule", "PairedFolderDataModule"],
        "datamodules.people": ["PeopleDataModule"],
        "datamodules.synthetic_faces": ["FacesDataModule"],
        "synthfaces.dataset": ["SynthFaces"],
        "synthfaces.factor_features": ["factor_features", "factor_knots"],
        "synthfaces.factors": ["VECTOR_NAMES"],
        "tasks.cartoon": ["Cartoon"],
        "tasks.translation": [
            "Colorization",
            "Denoising",
            "Frontalization",
            "Inpainting",
            "SegmentationToFace",
            "SketchToFace",
            "SuperResolution",
            "Task",
        ],
    },
)
