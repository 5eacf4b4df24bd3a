"""The lines above the table: what was compared, at which size, from which files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from stylegan_inv.methods.base import InversionMethod
from stylegan_inv.runtime.evaluation_sources import PictureFolders
from stylegan_inv.runtime.weights import file_hash


def describe_method(method: InversionMethod, run: Path, dataset: Any, cfg: DictConfig) -> dict[str, str]:
    """Method, generator, data and resolution."""
    generator = method.generator
    file = run / "checkpoints" / "last.ckpt" if run.is_dir() else run
    checkpoint = f", checkpoint sha256 {file_hash(file)[:12]}" if file.is_file() else ""
    options = OmegaConf.to_container(dataset, resolve=True)
    assert isinstance(options, dict)
    target = str(options.pop("_target_")).rpartition(".")[2]
    # What cannot change a figure of the held-out splits.
    for key in ("batch_size", "val_batch_size", "num_workers", "train_size", "horizontal_flip", "seed", "resolution"):
        options.pop(key, None)
    said = ", ".join(f"{key!s}={value}" for key, value in options.items() if value not in (None, {}))
    return {
        "method": f"{type(method).__name__} of {run}{checkpoint}",
        "generator": f"sha256 {str(generator.source_hash)[:12]}, {generator.resolution} px",
        "data": f"{target}, split {cfg.split} ({said})",
        "resolution": _resolution(dataset.resolution, f"{generator.resolution} px", cfg.quantise),
    }


def describe_pictures(pictures: PictureFolders, images: Path, targets: Path, cfg: DictConfig) -> dict[str, str]:
    """Folders and resolution."""
    return {
        "pictures": str(images),
        "originals": str(targets),
        "resolution": _resolution(pictures.resolution, "their own size", cfg.quantise),
    }


def _resolution(size: int, own: str, quantise: bool) -> str:
    levels = "rounded to 8 bits" if quantise else "clamped to [-1, 1], not quantised"
    return (
        f"{size} px, RGB in [-1, 1]; originals: central square, antialiased bilinear; reconstructions: {levels} at "
        f"{own}, then area-averaged to {size} px"
    )
