"""Inverts images: ``python -m stylegan_inv.invert run=outputs/restyle/... input=photos/`` with a trained method, or
``python -m stylegan_inv.invert method=image2stylegan_pp input=photos/ output=out`` with one that needs no training.
With neither, a shipped encoder of SynthFaces inverts: ``python -m stylegan_inv.invert input=synthfaces:0-7``.

Writes ``latents.safetensors`` (the codes ``w`` (N, L, D) and the name of each image's file), ``reconstructions/`` and
``contact_sheet.png`` (input, steps, difference); per-image optimisation also writes ``noise/``, ``generators/`` and the
loss curves. Errors in the input are reported before a network is loaded or a file is written. Images that the method
was not made for are marked in the contact sheet and listed in ``warnings.json``, see `input_warnings`.

Several processes can share the images: ``devices=4``, ``torchrun`` or ``srun``. The processes do not communicate; the
one that finishes last writes the codes. An interrupted command continues when it is started again, also with another
number of processes, and the result does not depend on it.
"""

from __future__ import annotations

import re
import sys

from omegaconf import DictConfig

from stylegan_inv.config import entry_point, same_command
from stylegan_inv.data.images.resizing import Geometry
from stylegan_inv.invert.command_options import check_options, command_settings, output_folder
from stylegan_inv.invert.input_warnings import InputCheck
from stylegan_inv.invert.inputs import Images, IndexedInputs
from stylegan_inv.invert.inversion_job import Job, carry_out, is_finished
from stylegan_inv.invert.method_setup import check_method, check_size_and_task, load_method, select_run
from stylegan_inv.invert.parts import split_into_parts
from stylegan_inv.invert.variants import make_variants
from stylegan_inv.loading import load_task
from stylegan_inv.runtime.device import device_named
from stylegan_inv.runtime.rank_processes import launched, rank_in_errors
from stylegan_inv.runtime.ranks import Ranks
from stylegan_inv.runtime.resumable_job import ResumableJob
from stylegan_inv.trust.config_check import checked_trust


def prepare(cfg: DictConfig) -> Job | None:
    """Checks every input and loads the method.

    Returns:
        None if the same command has finished before.

    Raises:
        UserError: A missing or unreadable input, an output that cannot be written, a run that cannot be loaded.
    """
    ranks = Ranks.for_devices(cfg.devices)
    with rank_in_errors(ranks):
        return _prepare(cfg, ranks)


def _prepare(cfg: DictConfig, ranks: Ranks) -> Job | None:
    check_options(cfg)
    check_method(cfg)
    run = select_run(cfg)
    device = device_named(cfg.device, ranks.local_rank)
    images = Images.find(str(cfg.input), "input")
    reference = None if cfg.reference is None else Images.find_readable(str(cfg.reference), "reference")
    output = output_folder(cfg, run)
    unfinished = ResumableJob(output, command_settings(cfg, run, images, reference))
    # One of several processes may start when the others have finished; `overwrite` must not make it start again.
    if (ranks.world_size > 1 or not cfg.overwrite) and is_finished(output, unfinished):
        return None
    unfinished.check(cfg.overwrite)
    parts = dict(enumerate(split_into_parts(len(images.names), cfg.batch_size)))
    own = {number: parts[number] for number in unfinished.missing_parts(ranks.shard(list(parts)))}
    own_images = [index for batches in own.values() for batch in batches for index in batch]
    if cfg.on_bad_image == "error":
        images.check(own_images)
    else:
        images.check_any()
    method = load_method(cfg, run, device, synthfaces=images.files is None)
    size = cfg.resolution or method.input_size
    task = None if run is None else load_task(run, checked_trust(cfg.trust))
    check_size_and_task(method, size, task)
    mask = None if cfg.mask is None else str(cfg.mask)
    check = (
        InputCheck.of(method, Geometry(size, cfg.mode), reference is None and mask is None) if task is None else None
    )
    inputs = IndexedInputs(
        images,
        size,
        cfg.mode,
        reference,
        mask,
        generator=method.generator,
        on_bad_image=cfg.on_bad_image,
        check=check,
    )
    inputs.check_masks(own_images)
    return Job(run, method, inputs, output, task, make_variants(cfg, method), unfinished, ranks, own)


def invert(cfg: DictConfig, job: Job | None) -> None:
    """Inverts the images in batches and writes the results."""
    if job is None:
        return print("this command has finished before; nothing to do")
    with launched(job.ranks, same_command("stylegan_inv.invert")), rank_in_errors(job.ranks):
        carry_out(cfg, job)


def main() -> None:
    """Runs the command line."""
    if not {"-m", "--multirun"} & set(sys.argv):
        # Hydra reads commas as a sweep; in a mask they separate numbers and labels.
        sys.argv[1:] = [re.sub(r"""^mask=([^'"\[].*,.*)$""", r'mask="\1"', argument) for argument in sys.argv[1:]]
    entry_point("invert", prepare)(invert)()


if __name__ == "__main__":
    main()
