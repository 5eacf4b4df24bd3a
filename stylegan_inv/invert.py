"""Invert images with a trained method: ``python -m stylegan_inv.invert run=outputs/restyle/... input=photos/``.

Leaves ``latents.safetensors`` (the codes ``w`` (N, L, D) and which file each belongs to), ``reconstructions/`` and
``contact_sheet.png`` (input, steps, difference). Bad input is found before a network is loaded or a file is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader

import stylegan_inv
from stylegan_inv.config import entry_point, instantiate
from stylegan_inv.data.folder import FolderImages
from stylegan_inv.data.images import BadImage, check_image, list_images, name_list
from stylegan_inv.errors import UserError
from stylegan_inv.latents.mixing import mix_styles
from stylegan_inv.runtime.device import device_named
from stylegan_inv.runtime.inversions import LATENTS, RECONSTRUCTIONS, InversionWriter, check_output
from stylegan_inv.runtime.weights import TABLE

if TYPE_CHECKING:  # Lightning takes seconds to import; bad input is to be answered before
    from stylegan_inv.data.tasks import Task
    from stylegan_inv.methods.base import Inversion, InversionMethod


@dataclass
class Job:
    """Everything that is checked and loaded before the first file is written."""

    method: InversionMethod
    images: FolderImages
    output: Path
    task: Task | None
    variants: list[Callable[[Tensor], Inversion]]


def prepare(cfg: DictConfig) -> Job:
    """Check every input and load the method.

    Raises:
        UserError: A missing or unreadable input, an output that cannot be written, a run that does not load.
    """
    run, source = Path(cfg.run), Path(cfg.input)
    _check_options(cfg)
    device = device_named(cfg.device)
    if not run.exists() and cfg.run not in TABLE:
        raise UserError(
            f"run={run}: no such run folder, checkpoint or name of known weights; give the folder that "
            "stylegan_inv.train printed"
        )
    files = list_images(source) if not source.is_file() else [source]
    folder = source if source.is_dir() else source.parent
    output = _output_folder(cfg, run, source)
    check_output(output, cfg.overwrite)
    files = _readable(files, cfg.on_bad_image)

    method: Any = stylegan_inv.load_inverter(run, device)
    if cfg.start is not None:
        if not hasattr(method, "start_from"):
            raise UserError(f"start={cfg.start}: {type(method).__name__} does not refine, expected a run of ReStyle")
        method.start_from(stylegan_inv.load_inverter(cfg.start, device))
    expected = getattr(getattr(method, "encoder", None), "resolution", None)
    size = cfg.resolution or _trained_with(run, "resolution") or expected or min(method.generator.resolution, 256)
    task = instantiate(_trained_with(run, "task"))
    return Job(method, FolderImages(folder, size, files=files, mode=cfg.mode), output, task, _variants(cfg, method))


@entry_point("invert", prepare)
def main(cfg: DictConfig, job: Job) -> None:
    """Invert the images in batches and write the results."""
    metadata = {
        "generator_hash": str(job.method.generator.source_hash),
        "method": type(job.method).__name__,
        "run": str(Path(cfg.run).resolve()),
    }
    writer = InversionWriter(job.output, job.images.names, metadata, compare=job.task is None)
    loader = DataLoader(job.images, cfg.batch_size, num_workers=cfg.num_workers)
    console = Console()
    count = math.ceil(len(job.images) / cfg.batch_size)
    for batch in track(loader, "inverting", total=count, console=console, disable=not console.is_terminal):
        images = batch["image"].to(job.method.device)
        # No torch.no_grad() here: methods that optimise each image need gradients. The method's weights need none.
        source = images if job.task is None else job.task.read(images)
        writer.add(images, job.method.invert(source), [variant(source).image for variant in job.variants])
    writer.close()

    error = f", mean squared error {writer.squared_error / len(job.images):.4f}" if writer.compare else ""
    print(f"{len(job.images)} images inverted{error}")
    for what, path in {
        "codes": job.output / LATENTS,
        "images": job.output / RECONSTRUCTIONS,
        "picture": writer.sheets[0] if len(writer.sheets) == 1 else f"{writer.sheets[0]} ... {writer.sheets[-1].name}",
        "output": job.output,
    }.items():
        print(f"{what + ':':<12}{path}")


def _check_options(cfg: DictConfig) -> None:
    if cfg.on_bad_image not in ("error", "skip"):
        raise UserError(f"on_bad_image={cfg.on_bad_image}: expected error or skip")
    if cfg.mode not in ("crop", "fit"):
        raise UserError(f"mode={cfg.mode}: expected crop or fit")
    for key, least in (("batch_size", 1), ("num_workers", 0), ("resolution", 16), ("variants", 0)):
        value = cfg[key]
        if value is None and key == "resolution":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UserError(f"{key}={value}: expected a whole number of at least {least}")


def _output_folder(cfg: DictConfig, run: Path, source: Path) -> Path:
    if cfg.output is None:
        run_dir = run if run.is_dir() else run.parent.parent
        if not (run_dir / "config.yaml").is_file():
            run_dir = Path("outputs") / run.stem  # somebody else's checkpoint
        return run_dir / "inversions" / (source.stem if source.is_file() else source.resolve().name)
    output = Path(cfg.output)
    if source.is_dir() and output.resolve().is_relative_to(source.resolve()):
        # The reconstructions would be among the inputs of the next call.
        raise UserError(f"output={output}: lies inside input={source}; give a folder outside of it")
    return output


def _readable(files: list[Path], on_bad_image: str) -> list[Path]:
    """Decode every file once: better to hear of a broken one now than in the middle of a long run."""
    good, bad = [], []
    for file in files:
        try:
            check_image(file)
            good.append(file)
        except BadImage as error:
            bad.append(str(error))
    if bad and (on_bad_image == "error" or not good):
        more = "" if len(bad) == 1 else f" (and {len(bad) - 1} more of {len(files)} files cannot be read)"
        hint = "; or give on_bad_image=skip" if good else ""
        raise UserError(f"{bad[0]}{more}{hint}")
    if bad:
        print(f"{len(bad)} of {len(files)} files cannot be read and are left out: {name_list(bad)}")
    return good


def _variants(cfg: DictConfig, method: Any) -> list[Callable[[Tensor], Inversion]]:
    """What makes each of the variants of pSp's multi-modal synthesis; one z a variant, the same for all images."""
    if not cfg.variants:
        return []
    if not hasattr(method, "variants"):
        raise UserError(f"variants={cfg.variants}: {type(method).__name__} makes none, expected a run of pSp or e4e")
    # The official script takes layers 8 to 17 of the 18 of 1024 px.
    count = method.generator.num_ws
    layers = list(range(round(count * 8 / 18), count) if cfg.layers is None else cfg.layers)
    mix_styles(method.average_codes(1), method.average_codes(1), layers)  # a layer that does not exist is said now
    z = torch.randn(cfg.variants, 1, method.generator.z_dim, generator=torch.Generator().manual_seed(0))
    return [partial(method.variants, z=row.to(method.device), layers=layers) for row in z]


def _trained_with(run: Path, key: str) -> Any:
    """An entry of ``dataset`` in the run's config, or None."""
    config = (run if run.is_dir() else run.parent.parent) / "config.yaml"
    return OmegaConf.select(OmegaConf.load(config), f"dataset.{key}") if config.is_file() else None


if __name__ == "__main__":
    main()
