"""Options of the invert command: their checks, the output folder, and the settings that identify a command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from stylegan_inv.errors import UserError
from stylegan_inv.invert.inputs import Images
from stylegan_inv.runtime.resumable_job import file_identities
from stylegan_inv.runtime.run_folder import checkpoint_of, results_folder
from stylegan_inv.utils.checks import LARGEST_SEED, one_of, real_number, true_or_false, whole_number


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
        UserError: The folder is inside the input folder.
    """
    source = Path(str(cfg.input))
    if cfg.output is None:
        name = source.stem if source.is_file() else source.resolve().name.replace(":", "_")
        if run is None:
            return Path("outputs", str(cfg.get("method_name")), "inversions", name)
        return results_folder(run, "inversions", name)
    output = Path(cfg.output)
    if source.is_dir() and output.resolve().is_relative_to(source.resolve()):
        # The reconstructions would be inputs of the next call.
        raise UserError(f"output={output}: is inside input={source}; give a folder outside of it")
    return output


def command_settings(cfg: DictConfig, run: str | None, images: Images, reference: Images | None) -> dict[str, Any]:
    """Returns the settings that identify a command: two commands with equal settings have equal results."""
    keys = ("start", "mask", "mode", "resolution", "batch_size", "seed", "variants", "layers", "shard_images")
    checkpoint = None if run is None else checkpoint_of(run)
    chosen_class = {} if cfg["class"] is None else {"class": cfg["class"]}
    return {
        "run": run,
        **{key: cfg[key] for key in keys},
        **chosen_class,
        "checkpoint": file_identities([checkpoint] if checkpoint is not None and checkpoint.is_file() else None),
        "method": OmegaConf.to_container(cfg.method, resolve=True) if cfg.get("method") else None,
        "names": [images.names, None if reference is None else reference.names],
        "files": [file_identities(images.files), file_identities(None if reference is None else reference.files)],
    }
