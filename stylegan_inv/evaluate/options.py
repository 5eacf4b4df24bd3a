"""Checks the options of an evaluation before any work."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from stylegan_inv.errors import UserError
from stylegan_inv.evaluate.score_table import check_per_image
from stylegan_inv.runtime.run_folder import check_run
from stylegan_inv.utils.checks import LARGEST_SEED, real_number, true_or_false, whole_number


def check_options(cfg: DictConfig) -> None:
    """Checks the options.

    Raises:
        UserError: Options that contradict each other, or a value out of range.
    """
    if (cfg.run is None) == (cfg.images is None):
        raise UserError("evaluate: expected either run=<run folder>, or images=<folder> targets=<folder>")
    if (cfg.images is None) != (cfg.targets is None) or (cfg.masks is not None and cfg.images is None):
        raise UserError("evaluate: images=<folder> and targets=<folder> go together, and masks=<folder> with them")
    if cfg.run is not None:
        check_run("run", cfg.run)
    for key, allowed in (("split", ("test", "val")), ("on_missing", ("error", "skip"))):
        if cfg[key] not in allowed:
            raise UserError(f"{key}={cfg[key]}: expected {' or '.join(allowed)}")
    for key, least in (("resolution", 16), ("max_images", 1), ("batch_size", 1)):
        if cfg[key] is not None:
            whole_number(key, cfg[key], least)
    whole_number("seed", cfg.seed, 0, LARGEST_SEED)
    for key in ("quantise", "steps", "overwrite"):
        true_or_false(key, cfg[key])
    real_number("lec.strength", cfg.lec.strength)
    whole_number("bootstrap.resamples", cfg.bootstrap.resamples, 1)
    level = real_number("bootstrap.level", cfg.bootstrap.level, above=0, hint="e.g. 0.95")
    if level >= 1:
        raise UserError(f"bootstrap.level={level}: expected a number between 0 and 1, e.g. 0.95")
    real_number("speed.seconds", cfg.speed.seconds, 0)
    sizes = cfg.speed.batch_sizes
    sizes = list(sizes) if OmegaConf.is_list(sizes) else [sizes]
    if not sizes or not all(type(size) is int for size in sizes) or sizes != sorted(set(sizes)) or sizes[0] != 1:
        raise UserError(f"speed.batch_sizes={sizes}: expected ascending whole numbers that begin with 1")
    check_per_image(str(cfg.per_image))
