"""The images of the edit command: random samples, codes on disk, or images that a method inverts."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader

from stylegan_inv.data.images.resizing import Geometry
from stylegan_inv.edit.edited_images import Source, configured_generator, truncation_centre
from stylegan_inv.edit.joined_inversions import from_inversions
from stylegan_inv.edit.saved_inversions import saved_codes
from stylegan_inv.errors import UserError
from stylegan_inv.invert.input_warnings import InputCheck, InputWarnings
from stylegan_inv.invert.inputs import Images, IndexedInputs, collate
from stylegan_inv.invert.method_setup import check_size_and_task, default_run
from stylegan_inv.latents.edits.base import EditInputs
from stylegan_inv.latents.saved_codes import holds_latents, read_latents
from stylegan_inv.latents.statistics import map_codes, sample_z
from stylegan_inv.latents.truncation import truncate
from stylegan_inv.loading import load_inverter, load_task
from stylegan_inv.methods.common.base import Inversion, mse, pool
from stylegan_inv.methods.common.domain_parts import image_domain, run_parts
from stylegan_inv.methods.common.reached_distances import relative_distances
from stylegan_inv.runtime.device import device_named
from stylegan_inv.runtime.run_folder import check_run, results_folder
from stylegan_inv.trust.config_check import checked_trust
from stylegan_inv.utils.checks import LARGEST_SEED, one_of, real_number, whole_number
from stylegan_inv.utils.domains import check_domains
from stylegan_inv.utils.files import real_path
from stylegan_inv.utils.parent_process import worker_ending_with
from stylegan_inv.utils.text import file_name_of

#: Largest number of random samples, whose images are tables of 64 rows.
_MOST_SAMPLES = 100_000


def find_source(cfg: DictConfig, edit: str) -> Source:
    """Finds the images that are edited and loads the networks.

    Args:
        cfg: Config of the edit command.
        edit: Name of the edit, for the default output folder.

    Raises:
        UserError: Inputs that are missing, that cannot be read, or that do not fit each other.
    """
    edit = file_name_of(edit)  # of a direction, whose file may give it any name
    whole_number("batch_size", cfg.batch_size)
    whole_number("num_workers", cfg.num_workers, 0)
    if cfg.resolution is not None:
        whole_number("resolution", cfg.resolution, 16)
    one_of("truncate_to", cfg.truncate_to, ("class", "global"))
    if cfg.input is None:
        if cfg.run is not None:
            raise UserError(f"run={cfg.run}: got no input; give input=<images>, or leave run out for random samples")
        return _random_samples(cfg, _output(cfg, Path("outputs/edits"), f"{edit}_seed{cfg.seed}"))
    path = Path(cfg.input)
    if holds_latents(path):
        folder = path if path.is_dir() else path.parent
        return saved_codes(cfg, folder, read_latents(path), _output(cfg, folder, f"edit_{edit}"))
    run = default_run(cfg) if cfg.run is None else str(cfg.run)
    if run is None:
        raise UserError(
            f"input={path}: images need a run that inverts them, run=outputs/...; or give latents.safetensors"
        )
    check_run("run", run)
    one_of("mode", cfg.mode, ("crop", "fit"))
    one_of("on_bad_image", cfg.on_bad_image, ("error", "skip"))
    name = path.stem if path.is_file() else real_path(path).name.replace(":", "_")
    output = results_folder(run, "edits", f"{edit}_{name}") if cfg.output is None else Path(str(cfg.output))
    if path.is_dir() and real_path(output).is_relative_to(real_path(path)):
        raise UserError(f"output={output}: is inside input={path}; its images would be inputs of the next call")
    return _inverted_images(cfg, run, output)


def _random_samples(cfg: DictConfig, output: Path) -> Source:
    count, seed = (
        whole_number("samples", cfg.samples, most=_MOST_SAMPLES),
        whole_number("seed", cfg.seed, 0, LARGEST_SEED),
    )
    psi = real_number("psi", cfg.psi, hint="1 does not truncate")
    generator = configured_generator(cfg)
    if generator.class_per_image:
        raise UserError(
            "class=dataset: random samples belong to no image; give class=<number>, or none for all classes"
        )

    def load() -> EditInputs:
        z = sample_z(generator, count, seed)
        w = map_codes(generator, z)[:, None].expand(-1, generator.num_ws, -1)
        if not bool(w.isfinite().all()):
            raise UserError("generator: its codes are not finite, so that it has no images; give another file")
        names = [f"seed {seed}, {k}" for k in range(count)]
        average = truncation_centre(cfg, generator)
        return EditInputs(generator, truncate(w, average, psi), names, z=z, batch_size=cfg.batch_size, average=average)

    return Source(generator, count, True, output, load, generator.domain)


def _inverted_images(cfg: DictConfig, run: str, output: Path) -> Source:
    images = Images.find_readable(str(cfg.input), "input", cfg.on_bad_image)
    trust = checked_trust(cfg.trust)
    method = load_inverter(run, device_named(cfg.device), trust=trust)
    if images.files is None:
        check_domains(f"the input ({cfg.input}) is", "synthfaces", run_parts(method), cfg.any_domain)
    if cfg["class"] is not None:
        method.set_class(cfg["class"])
    size = cfg.resolution or method.input_size
    task = load_task(run, trust)
    check_size_and_task(method, size, task)
    check = InputCheck.of(method, Geometry(size, cfg.mode), compares=True) if task is None else None
    inputs = IndexedInputs(images, size, cfg.mode, generator=method.generator, check=check)
    classes = inputs.classes
    warnings = InputWarnings([], images.names, str(cfg.input), None if check is None else check.limits)

    def load() -> EditInputs:
        targets: list[Tensor] = []
        found: list[Inversion] = []
        start = worker_ending_with(os.getpid())
        for batch in DataLoader(
            inputs, cfg.batch_size, num_workers=cfg.num_workers, collate_fn=collate, worker_init_fn=start
        ):
            source = batch.tensors["image"].to(method.device)
            targets.append(batch.tensors["image"])
            with method.with_classes(None if classes is None else classes[batch.indices]):
                found.append(method.invert(source if task is None else task.read(source)))
            warnings.findings += batch.findings
            if check is not None:
                distances = mse(pool(found[-1].image.detach(), size), source)
                relative = relative_distances(distances, source)
                warnings.findings += check.check_distances(batch.indices, distances, relative)
        if not any(bool((_finite(one.image) & _finite(one.w)).any()) for one in found):
            count = len(images.names)
            raise UserError(f"input={cfg.input}: none of {count} images was inverted: reconstructions are not finite")
        edited = from_inversions(method.generator, found, images.names, torch.cat(targets), cfg.batch_size, method)
        with method.with_classes(classes):
            edited.average = truncation_centre(cfg, method.generator)
        return edited

    return Source(method.generator, len(images.names), False, output, load, image_domain(method), warnings)


def _finite(values: Tensor) -> Tensor:
    """Returns which rows of (B, ...) hold neither NaN nor infinity, (B,)."""
    return values.isfinite().flatten(1).all(1)


def _output(cfg: DictConfig, root: Path, name: str) -> Path:
    return root / name if cfg.output is None else Path(str(cfg.output))
