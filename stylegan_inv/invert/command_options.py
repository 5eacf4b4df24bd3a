"""Options of the invert command: their checks, the output folder, and the settings that identify a command."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from stylegan_inv.data.images.image_files import list_images
from stylegan_inv.data.images.mask_shapes import is_description
from stylegan_inv.data.sources.class_labels import CLASSES
from stylegan_inv.errors import UserError
from stylegan_inv.generators.class_choice import PER_IMAGE
from stylegan_inv.invert.inputs import Images
from stylegan_inv.invert.output_folder import is_result
from stylegan_inv.runtime.resumable_job import file_identities
from stylegan_inv.runtime.run_folder import checkpoint_of, results_folder
from stylegan_inv.utils.checks import LARGEST_SEED, one_of, real_number, true_or_false, whole_number
from stylegan_inv.utils.files import real_path


def check_options(cfg: DictConfig) -> None:
    """Raises a UserError for a number or a word that is not allowed."""
    one_of("on_bad_image", cfg.on_bad_image, ("error", "skip"))
    one_of("mode", cfg.mode, ("crop", "fit"))
    for name, least in {"batch_size": 1, "num_workers": 0, "variants": 0, "shard_images": 1}.items():
        whole_number(name, cfg[name], least)
    whole_number("seed", cfg.seed, 0, LARGEST_SEED)
    real_number("save_every_seconds", cfg.save_every_seconds, 0)
    true_or_false("overwrite", cfg.overwrite)
    if cfg.resolution is not None:
        whole_number("resolution", cfg.resolution, 16)


def output_folder(cfg: DictConfig, run: str | None) -> Path:
    """Returns the folder of the results.

    Raises:
        UserError: The folder is inside the input folder, or an input is one of its results.
    """
    source = Path(str(cfg.input))
    if cfg.output is not None:
        output = Path(str(cfg.output))  # an interpolation may be a number
    else:
        name = source.stem if source.is_file() else real_path(source).name.replace(":", "_")
        output = (
            Path("outputs", str(cfg.get("method_name")), "inversions", name)
            if run is None
            else results_folder(run, "inversions", name)
        )
    if source.is_dir() and real_path(output).is_relative_to(real_path(source)):
        # The reconstructions would be inputs of the next call.
        raise UserError(f"output={output}: is inside input={source}; give a folder outside of it")
    for key in ("input", "reference", "mask"):
        path = None if cfg[key] is None else Path(str(cfg[key]))
        if path is not None and path.exists() and is_result(real_path(output), real_path(path)):
            raise UserError(f"{key}={path}: is a result in output={output}, which this command would replace; copy it")
    return output


def command_settings(cfg: DictConfig, run: str | None, images: Images, reference: Images | None) -> dict[str, Any]:
    """Returns the settings that identify a command: two commands with equal settings have equal results."""
    keys = ("start", "mask", "mode", "resolution", "batch_size", "seed", "variants", "layers", "shard_images")
    checkpoint = None if run is None else checkpoint_of(run)
    chosen_class = {} if cfg["class"] is None else {"class": cfg["class"]}
    method: Any = OmegaConf.to_container(cfg.method, resolve=True) if cfg.get("method") else None
    others = file_identities(list(_other_files(cfg, method, images)))
    return {
        "run": run,
        **{key: cfg[key] for key in keys},
        **chosen_class,
        "checkpoint": file_identities([checkpoint] if checkpoint is not None and checkpoint.is_file() else None),
        "method": method,
        "names": [images.names, None if reference is None else reference.names],
        "files": [file_identities(images.files), file_identities(None if reference is None else reference.files)],
        **({"other_files": others} if others else {}),
    }


def _other_files(cfg: DictConfig, method: Any, images: Images) -> Iterator[Path]:
    """Yields the files that the result depends on besides the images and the checkpoint of the run."""
    if cfg.mask is not None and not is_description(str(cfg.mask)):
        mask = Path(str(cfg.mask))
        yield from list_images(mask) if mask.is_dir() else [mask]
    if cfg.start is not None and (start := checkpoint_of(cfg.start)) is not None:
        yield start
    if cfg["class"] == PER_IMAGE and (folder := images.folder) is not None:
        yield folder / CLASSES
    waiting = [method]  # weights of the generator and of the networks of losses
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict | list):
            waiting += node.values() if isinstance(node, dict) else node
        elif isinstance(node, str) and os.path.isfile(node):
            yield Path(node)
