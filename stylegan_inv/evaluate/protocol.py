"""The lines above the table: what was compared, at which size, from which files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from stylegan_inv.evaluate.image_pairs import PictureFolders
from stylegan_inv.methods.common.base import InversionMethod
from stylegan_inv.runtime.run_folder import RunFolder
from stylegan_inv.weights.download import file_hash


def describe_method(method: InversionMethod, run: Path, dataset: Any, cfg: DictConfig) -> dict[str, str]:
    """Method, generator, data and resolution."""
    generator = method.generator
    folder = RunFolder.of(run)
    file = run if folder is None else folder.checkpoint_file
    checkpoint = f", checkpoint sha256 {file_hash(file)[:12]}" if file.is_file() else ""
    options = OmegaConf.to_container(dataset, resolve=True)
    assert isinstance(options, dict)
    target = str(options.pop("_target_")).rpartition(".")[2]
    # What cannot change a figure of the held-out splits.
    no_matter = {"batch_size", "val_batch_size", "num_workers", "train_size", "horizontal_flip", "seed", "resolution"}
    no_matter.add("val_size" if cfg.split == "test" else "test_size")
    said = ", ".join(f"{key!s}={value}" for key, value in options.items() if key not in no_matter and value)
    return {
        "method": f"{type(method).__name__} of {run}{checkpoint}",
        "generator": f"sha256 {str(generator.source_hash)[:12]}, {generator.resolution} px",
        "data": f"{target}, split {cfg.split} ({said})",
        "resolution": _resolution(dataset.resolution, generator.resolution, cfg.quantise),
        "lec": ", ".join(cfg.lec.directions) or "left out: no direction is given (lec.directions=[smile])",
        "seconds": "median of calls, warm, GPU synchronised; the best batch is the one with the fewest for an image",
    }


def describe_pictures(pictures: PictureFolders, images: Path, targets: Path, cfg: DictConfig) -> dict[str, str]:
    """Folders and resolution."""
    return {
        "pictures": str(images),
        "originals": str(targets),
        "resolution": _resolution(pictures.resolution, None, cfg.quantise),
    }


def _resolution(size: int, own: int | None, quantise: bool) -> str:
    """In words; ``own`` is the side of the reconstructions, None for pictures that may be of many sizes."""
    levels = "rounded to 8 bits" if quantise else "clamped to [-1, 1], not quantised"
    if own != size:
        levels += f" at {'their own size' if own is None else f'{own} px'}, then area-averaged to {size} px"
    return f"{size} px, RGB in [-1, 1]; originals: central square, antialiased bilinear; reconstructions: {levels}"
