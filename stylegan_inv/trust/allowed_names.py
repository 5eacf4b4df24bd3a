"""The names that the config of a run folder may have as ``_target_``, and how its arguments are checked.

A config describes calls of functions. What a run folder needs are the networks, losses, metrics and data sets of this
package, so nothing else is called for it. A list of what is forbidden would never be complete: the standard library
alone has hundreds of functions that write files or import modules.
"""

from __future__ import annotations

import functools
from importlib import import_module

#: Packages whose public names are built. Reading their lists imports neither torch nor the modules.
_PACKAGES = ("methods", "losses", "metrics", "encoders", "hypernetworks", "data", "optim")
#: Of packages whose other public names write files, build kernels or read further configs.
_SINGLE = (
    "stylegan_inv.config.build_loss_terms",
    "stylegan_inv.generators.Discriminator",
    "stylegan_inv.generators.Generator",
    "stylegan_inv.generators.finetuned",
    "stylegan_inv.generators.load_discriminator",
    "stylegan_inv.generators.load_generator",
)
#: Base classes among them, which do nothing by themselves.
_BASES = (
    "stylegan_inv.data.ImageDataModule",
    "stylegan_inv.data.Task",
    "stylegan_inv.methods.InversionMethod",
    "stylegan_inv.methods.LatentOptimization",
    "stylegan_inv.methods.PerImageMethod",
    "stylegan_inv.methods.TrainedMethod",
    "stylegan_inv.metrics.PerImageMetric",
    "stylegan_inv.metrics.SetMetric",
)
_OPTIMIZERS = ("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "SGD")
_SCHEDULERS = (
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "ExponentialLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "StepLR",
)
#: Function of Hydra that looks up a name -> the names that it may look up.
LOOKED_UP = {
    "hydra.utils.get_object": ("stylegan_inv.data.VECTOR_NAMES",),
    "hydra.utils.get_method": ("stylegan_inv.data.factor_features",),
}
#: Sections of a training that are never built from a run folder, and what they name without further consent.
TRAINING_SECTIONS = ("callbacks", "logger", "trainer")
_TRAINING = (
    "datetime.timedelta",
    "pytorch_lightning.Trainer",
    "pytorch_lightning.callbacks.EMAWeightAveraging",
    "pytorch_lightning.strategies.DDPStrategy",
    "stylegan_inv.runtime.make_loggers",
)

#: Arguments that name a file which is read as data: weights (`generators.io.weight_files`, which executes nothing) or
#: another run, whose config is checked like this one. They may be names of known weights or paths anywhere.
DATA_FILES = ("name_or_path", "network", "path", "pretrained", "source", "start", "trunk", "weights")
#: Arguments that name folders or lists of images, or places to write to: only inside the run folder.
PLACES = (
    "cache_dir",
    "celeba_hq_mapping",
    "celeba_hq_root",
    "dirpath",
    "export",
    "folder",
    "identities",
    "label_root",
    "mapping",
    "mask_root",
    "root",
    "run_dir",
    "source_root",
    "splits",
    "test_root",
    "train_root",
    "val_mask_root",
    "val_root",
)
#: Largest values of arguments that decide how much memory, time or processes building takes.
LARGEST = {
    "batch_size": 1 << 16,
    "channel_base": 1 << 17,
    "channel_max": 1 << 12,
    "channels": 1 << 13,
    "classes": 1 << 10,
    "content_width": 1 << 12,
    "code": 1 << 12,
    "depth": 16,
    "embedding_dim": 1 << 14,
    "encoder_rank": 1 << 12,
    "features": 1 << 12,
    "hidden": 1 << 14,
    "images_per_person": 1 << 12,
    "img_channels": 1 << 10,
    "in_channels": 1 << 10,
    "input_size": 4096,
    "inner": 1 << 12,
    "iterations": 1000,
    "layers": 1 << 10,
    "loss_resolution": 4096,
    "mapping_layers": 64,
    "num_features": 1 << 14,
    "num_normals": 1 << 14,
    "num_workers": 128,
    "num_ws": 64,
    "out_channels": 1 << 10,
    "people": 10_000_000,
    "rank": 1 << 12,
    "resolution": 4096,
    "rounds": 1000,
    "samples": 10_000_000,
    "test_size": 100_000_000,
    "train_size": 100_000_000,
    "units": 256,
    "val_batch_size": 1 << 16,
    "val_people": 100_000,
    "val_size": 100_000_000,
    "w_avg_samples": 10_000_000,
    "w_dim": 1 << 14,
    "width": 1 << 12,
    "z_dim": 1 << 14,
}


@functools.cache
def buildable_names() -> frozenset[str]:
    """Returns the names that are built for a run folder."""
    names = [f"stylegan_inv.{package}.{name}" for package in _PACKAGES for name in _public(package)]
    names += [f"torch.optim.{name}" for name in _OPTIMIZERS]
    names += [f"torch.optim.lr_scheduler.{name}" for name in _SCHEDULERS]
    return frozenset([*names, *_SINGLE, *LOOKED_UP]) - {*_BASES}


@functools.cache
def training_names() -> frozenset[str]:
    """Returns the names that `TRAINING_SECTIONS` may have besides."""
    return frozenset([*(f"stylegan_inv.callbacks.{name}" for name in _public("callbacks")), *_TRAINING])


def _public(package: str) -> list[str]:
    names: list[str] = import_module(f"stylegan_inv.{package}").__all__
    return names
