"""Invert images: ``python -m stylegan_inv.invert run=outputs/restyle/... input=photos/`` with a trained method, or
``python -m stylegan_inv.invert method=image2stylegan_pp input=photos/ output=out`` with one that needs no training.

Leaves ``latents.safetensors`` (the codes ``w`` (N, L, D) and which file each belongs to), ``reconstructions/`` and
``contact_sheet.png`` (input, steps, difference), and where each image was optimised ``noise/``, ``generators/`` and the
loss curves. Bad input is found before a network is loaded or a file is written.

Many processes share the images: ``devices=4``, ``torchrun`` or ``srun``. Each takes its share by number and hears from
no other one; the one that ends last writes the codes. Whatever was killed, the same command goes on, also with another
number of processes, and the result does not depend on it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from stylegan_inv.config import entry_point, instantiate, instantiate_method, same_command
from stylegan_inv.errors import UserError
from stylegan_inv.invert.chunks import parts_of
from stylegan_inv.invert.inputs import Images, NumberedInputs
from stylegan_inv.invert.inversion_job import Job, carry_out, finished
from stylegan_inv.latents.mixing import mix_styles
from stylegan_inv.loading import load_inverter
from stylegan_inv.runtime.device import device_named
from stylegan_inv.runtime.rank_processes import die_with_parent, launched, rank_in_errors
from stylegan_inv.runtime.ranks import Ranks
from stylegan_inv.runtime.resumable_job import ResumableJob, file_identities
from stylegan_inv.runtime.run_folder import RunFolder, results_folder
from stylegan_inv.weights.download import TABLE

if TYPE_CHECKING:  # Lightning takes seconds to import; bad input is to be answered before
    from stylegan_inv.methods.common.base import Inversion, InversionMethod


def prepare(cfg: DictConfig) -> Job | None:
    """Check every input and load the method.

    Returns:
        None if the same command has finished before.

    Raises:
        UserError: A missing or unreadable input, an output that cannot be written, a run that does not load.
    """
    ranks = Ranks.for_devices(cfg.devices)
    with rank_in_errors(ranks):
        return _prepare(cfg, ranks)


def _prepare(cfg: DictConfig, ranks: Ranks) -> Job | None:
    _check_options(cfg)
    _check_method(cfg)
    device = device_named(cfg.device, ranks.local_rank)
    run = None if cfg.run is None else Path(cfg.run)
    if run is not None and not run.exists() and cfg.run not in TABLE:
        raise UserError(
            f"run={run}: no such run folder, checkpoint or name of known weights; give the folder that "
            "stylegan_inv.train printed"
        )
    images = Images.listed(str(cfg.input), "input")
    second = None if cfg.second is None else Images.of(str(cfg.second), "second")
    output = _output_folder(cfg, run)
    unfinished = ResumableJob(output, _settings(cfg, images, second))
    # One of many processes may start when the others are done: `overwrite` must not make it begin anew.
    if (ranks.world_size > 1 or not cfg.overwrite) and finished(output, unfinished):
        return None
    unfinished.check(cfg.overwrite)
    parts = dict(enumerate(parts_of(len(images.names), cfg.batch_size)))
    left = {number: parts[number] for number in unfinished.missing_parts(ranks.shard(list(parts)))}
    own = [index for batches in left.values() for batch in batches for index in batch]
    if cfg.on_bad_image == "error":
        images.check(own)
    else:
        images.check_some()

    method: Any = instantiate_method(cfg.method) if run is None else load_inverter(run, device)
    method = method.to(device).eval().requires_grad_(False)
    if cfg.start is not None:
        from stylegan_inv.methods.common.capabilities import StartsFromMethod

        if not isinstance(method, StartsFromMethod):
            raise UserError(f"start={cfg.start}: {type(method).__name__} does not refine, expected a run of ReStyle")
        method.start_from(load_inverter(cfg.start, device))
    for key in ("second", "mask"):
        needs = getattr(method, f"needs_{key}", None)
        if cfg[key] is None and needs:
            raise UserError(f"{type(method).__name__} needs a {key} image or shape with these parts; give {key}=…")
        if cfg[key] is not None and needs is None:
            raise UserError(f"{key}={cfg[key]}: {type(method).__name__} takes none; method=image2stylegan_pp does")
    size = cfg.resolution or method.input_size
    mask = None if cfg.mask is None else str(cfg.mask)
    inputs = NumberedInputs(images, size, cfg.mode, second, mask, on_bad_image=cfg.on_bad_image)
    inputs.check_masks(own)
    task = instantiate(_trained_with(run, "task"))
    return Job(method, inputs, output, task, _variants(cfg, method), unfinished, ranks, left)


def invert(cfg: DictConfig, job: Job | None) -> None:
    """Invert the images in batches and write the results."""
    if job is None:
        return print("this command has finished before; nothing to do (its result is replaced by another command only)")
    die_with_parent()
    with launched(job.ranks, same_command("stylegan_inv.invert")), rank_in_errors(job.ranks):
        carry_out(cfg, job)


def main() -> None:
    """The command line."""
    if not {"-m", "--multirun"} & set(sys.argv):
        # Hydra takes commas for a sweep; in a mask they part numbers and labels.
        sys.argv[1:] = [re.sub(r"""^mask=([^'"\[].*,.*)$""", r'mask="\1"', argument) for argument in sys.argv[1:]]
    entry_point("invert", prepare)(invert)()


def _check_method(cfg: DictConfig) -> None:
    if cfg.get("method") is None:
        if cfg.run is None:
            raise UserError("got neither run nor method; give run=<folder of a training run>, or method=projector, …")
    elif cfg.run is not None:
        raise UserError(f"got run={cfg.run} and method={cfg.method_name}; expected one of them")
    elif not _is_per_image(hydra.utils.get_class(cfg.method._target_)):
        raise UserError(
            f"method={cfg.method_name}: must be trained first; give run=<the folder that "
            f"`python -m stylegan_inv.train method={cfg.method_name}` printed>, or method=projector, image2stylegan, …"
        )


def _settings(cfg: DictConfig, images: Images, second: Images | None) -> dict[str, Any]:
    """What makes two commands the same one."""
    keys = ("run", "start", "mask", "mode", "resolution", "batch_size", "seed", "variants", "layers", "shard_images")
    run = None if cfg.run is None else RunFolder.of(cfg.run)
    checkpoint = run.checkpoint_file if run else None if cfg.run is None else Path(cfg.run)
    return {
        **{key: cfg[key] for key in keys},
        "checkpoint": file_identities([checkpoint] if checkpoint is not None and checkpoint.is_file() else None),
        "method": OmegaConf.to_container(cfg.method, resolve=True) if cfg.get("method") else None,
        "names": [images.names, None if second is None else second.names],
        "files": [file_identities(images.files), file_identities(None if second is None else second.files)],
    }


def _check_options(cfg: DictConfig) -> None:
    if cfg.on_bad_image not in ("error", "skip"):
        raise UserError(f"on_bad_image={cfg.on_bad_image}: expected error or skip")
    if cfg.mode not in ("crop", "fit"):
        raise UserError(f"mode={cfg.mode}: expected crop or fit")
    for key, least in (
        ("batch_size", 1),
        ("num_workers", 0),
        ("resolution", 16),
        ("variants", 0),
        ("shard_images", 1),
        ("seed", 0),
    ):
        value = cfg[key]
        if value is None and key == "resolution":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UserError(f"{key}={value}: expected a whole number of at least {least}")


def _output_folder(cfg: DictConfig, run: Path | None) -> Path:
    source = Path(str(cfg.input))
    if cfg.output is None:
        run_dir = Path("outputs") / str(cfg.get("method_name")) if run is None else results_folder(run)
        name = source.stem if source.is_file() else source.resolve().name.replace(":", "_")
        return run_dir / "inversions" / name
    output = Path(cfg.output)
    if source.is_dir() and output.resolve().is_relative_to(source.resolve()):
        # The reconstructions would be among the inputs of the next call.
        raise UserError(f"output={output}: lies inside input={source}; give a folder outside of it")
    return output


def _variants(cfg: DictConfig, method: InversionMethod) -> list[Callable[[Tensor], Inversion]]:
    """What makes each of the variants of pSp's multi-modal synthesis; one z a variant, the same for all images."""
    if not cfg.variants:
        return []
    from stylegan_inv.methods.common.capabilities import MakesVariants

    if not isinstance(method, MakesVariants):
        raise UserError(f"variants={cfg.variants}: {type(method).__name__} makes none, expected a run of pSp or e4e")
    # The official script takes layers 8 to 17 of the 18 of 1024 px.
    count = method.generator.num_ws
    layers = list(range(round(count * 8 / 18), count) if cfg.layers is None else cfg.layers)
    mix_styles(method.average_codes(1), method.average_codes(1), layers)  # a layer that does not exist is said now
    z = torch.randn(cfg.variants, 1, method.generator.z_dim, generator=torch.Generator().manual_seed(0))
    return [partial(method.variants, z=row.to(method.device), layers=layers) for row in z]


def _is_per_image(kind: type) -> bool:
    from stylegan_inv.methods.common.base import InversionMethod
    from stylegan_inv.methods.common.trained import TrainedMethod

    return issubclass(kind, InversionMethod) and not issubclass(kind, TrainedMethod)


def _trained_with(run: Path | None, key: str) -> Any:
    """An entry of ``dataset`` in the run's config, or None."""
    folder = None if run is None else RunFolder.of(run)
    dataset = None if folder is None else folder.dataset_config()
    return None if dataset is None else dataset.get(key)


if __name__ == "__main__":
    main()
