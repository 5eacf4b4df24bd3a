"""The protocol above the table: what was compared, at which size, from which files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from stylegan_inv.evaluate.image_pairs import ImagePairs
from stylegan_inv.generators import Generator
from stylegan_inv.methods.common.base import InversionMethod
from stylegan_inv.runtime.run_folder import checkpoint_of
from stylegan_inv.weights.download import file_hash

#: Options of a data set that do not affect its held-out splits.
_IRRELEVANT = ("batch_size", "val_batch_size", "num_workers", "train_size", "horizontal_flip", "seed", "resolution")


def describe_method(method: InversionMethod, run: Path, dataset: Any, cfg: DictConfig) -> dict[str, str]:
    """Returns the protocol of a method: the method, its generator, the data and the resolution.

    Args:
        method: The loaded method.
        run: Path or name that the user gave.
        dataset: Config of the data set.
        cfg: Config of the evaluation.
    """
    generator, file = method.generator, checkpoint_of(run)
    checkpoint = f", checkpoint sha256 {file_hash(file)[:12]}" if file is not None and file.is_file() else ""
    options = OmegaConf.to_container(dataset, resolve=True)
    assert isinstance(options, dict)
    name = str(options.pop("_target_")).rpartition(".")[2]
    irrelevant = {*_IRRELEVANT, "val_size" if cfg.split == "test" else "test_size"}
    shown = ", ".join(f"{key!s}={value}" for key, value in options.items() if key not in irrelevant and value)
    size = f"{generator.resolution} px{_class_and_channels(generator)}"
    return {
        "method": f"{type(method).__name__} of {run}{checkpoint}",
        "generator": f"sha256 {str(generator.source_hash)[:12]}, {size}",
        "data": f"{name}, split {cfg.split} ({shown})",
        "resolution": _resolution(dataset.resolution, generator.resolution, cfg.quantise),
        "lec": ", ".join(cfg.lec.directions) or "left out: no direction is given (lec.directions=[smile])",
        "seconds": "median of calls, warm, GPU synchronised; the best batch has the fewest seconds per image",
    }


def _class_and_channels(generator: Generator) -> str:
    classes = "" if generator.mapping.classes is None else f", class {generator.mapping.classes}"
    return f"{classes}, grey" if generator.grey else classes


def describe_pairs(pairs: ImagePairs, images: Path, targets: Path, cfg: DictConfig) -> dict[str, str]:
    """Returns the protocol of image files: the folders and the resolution.

    Args:
        pairs: The matched files.
        images: Folder of the reconstructions.
        targets: Folder of the targets.
        cfg: Config of the evaluation.
    """
    return {
        "reconstructions": str(images),
        "targets": str(targets),
        "resolution": _resolution(pairs.resolution, None, cfg.quantise),
    }


def _resolution(size: int, own: int | None, quantise: bool) -> str:
    """Returns a description of the comparison; ``own`` is the side length of reconstructions, None if it varies."""
    levels = "rounded to 8 bits" if quantise else "clamped to [-1, 1], not quantised"
    if own != size:
        levels += f" at {'their own size' if own is None else f'{own} px'}, then area-averaged to {size} px"
    return f"{size} px, RGB in [-1, 1]; targets: central square, antialiased bilinear; reconstructions: {levels}"
