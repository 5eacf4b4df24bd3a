"""The images of the edit command: random samples, codes on disk, or images that a method inverts."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader

from stylegan_inv.config import instantiate
from stylegan_inv.data.images.resizing import Geometry
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.generators.class_choice import ALL
from stylegan_inv.generators.synthesis_inputs import noise_inputs
from stylegan_inv.generators.variants.low_rank_difference import LowRankDifference
from stylegan_inv.invert.input_warnings import InputCheck, InputWarnings
from stylegan_inv.invert.inputs import Images, IndexedInputs, collate
from stylegan_inv.invert.method_setup import check_size_and_task, default_run
from stylegan_inv.latents.edits.base import EditInputs
from stylegan_inv.latents.saved_codes import Latents, holds_latents, read_difference, read_latents, read_noise
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


@dataclass
class Source:
    """Images whose number is known, but which have not been rendered or inverted yet.

    Attributes:
        generator: Generator of their codes.
        count: Number of images.
        random: Whether they are random samples.
        output: Output folder.
        load: Renders or inverts the images.
        domain: Domain of the generator's images; None if it is unknown.
        warnings: What is wrong with the input images; complete when they are loaded. None for samples and codes.
    """

    generator: Generator
    count: int
    random: bool
    output: Path
    load: Callable[[], EditInputs]
    domain: str | None
    warnings: InputWarnings | None = None


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
        if cfg.run is not None:
            raise UserError(f"run={cfg.run}: not needed, {path} holds codes already; leave run out")
        folder = path if path.is_dir() else path.parent
        return _saved_codes(cfg, folder, read_latents(path), _output(cfg, folder, f"edit_{edit}"))
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
    generator = _load_generator(cfg)
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
        average = _average(cfg, generator)
        return EditInputs(generator, truncate(w, average, psi), names, z=z, batch_size=cfg.batch_size, average=average)

    return Source(generator, count, True, output, load, generator.domain)


def _saved_codes(cfg: DictConfig, folder: Path, latents: Latents, output: Path) -> Source:
    generator = _load_generator(cfg)
    made_for = latents.metadata.get("generator_hash")
    if latents.w.shape[1:] != (generator.num_ws, generator.w_dim) or made_for not in (None, generator.source_hash):
        raise UserError(
            f"input={cfg.input}: holds codes {tuple(latents.w.shape[1:])} of another generator "
            f"({str(made_for)[:12]}...) than the one here; give that one, generator=file generator.source=<file>"
        )
    noise = [read_noise(folder, name) for name in latents.reconstructions]
    weights = [read_difference(folder, name) for name in latents.reconstructions]
    for found in (noise, weights):
        if None in found and any(one is not None for one in found):
            raise UserError(f"{folder}: has noise or tuned generators for only some of the images; invert them again")
    for name, maps, difference in zip(latents.reconstructions, noise, weights, strict=True):
        try:
            _check_tensors(generator, maps, difference)
        except UserError as error:
            raise UserError(f"{folder}: what belongs to {name} does not fit ({error}); invert it again") from error

    if cfg["class"] is None and generator.c_dim:
        generator.set_class(_stored_class(latents.metadata.get("class")))

    def load() -> EditInputs:
        return EditInputs(
            generator,
            latents.w.to(generator.w_avg),
            latents.names,
            noise=_concatenate_noise([maps for maps in noise if maps is not None], generator),
            weights=[one for one in weights if one is not None] or None,
            batch_size=cfg.batch_size,
            average=_average(cfg, generator),
        )

    return Source(generator, len(latents.w), False, output, load, generator.domain)


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
        edited = from_inversions(method.generator, found, images.names, torch.cat(targets), cfg.batch_size)
        with method.with_classes(classes):
            edited.average = _average(cfg, method.generator)
        return edited

    return Source(method.generator, len(images.names), False, output, load, image_domain(method), warnings)


def from_inversions(
    generator: Generator,
    inversions: Sequence[Inversion],
    names: list[str],
    images: Tensor | None = None,
    batch_size: int = 16,
) -> EditInputs:
    """Returns the concatenated inversions of several batches.

    Args:
        generator: Generator of the codes.
        inversions: Inversion of each batch.
        names: Name of each image.
        images: Inverted images (N, 3, S, S), for tables.
        batch_size: Number of images that are rendered at once.
    """
    weights: list[Mapping[str, Tensor]] = []
    for one in inversions:
        if one.weights is not None:
            weights += [{name: part[row] for name, part in one.weights.items()} for row in range(len(one.w))]
    features = [one.features for one in inversions if one.features is not None]
    return EditInputs(
        generator,
        torch.cat([one.w.detach() for one in inversions]),
        names,
        images,
        noise=_concatenate_noise([one.noise for one in inversions if one.noise is not None], generator),
        features={layer: torch.cat([one[layer].detach() for one in features]) for layer in features[0]}
        if features
        else None,
        weights=weights or None,
        batch_size=batch_size,
    )


def _finite(values: Tensor) -> Tensor:
    """Returns which rows of (B, ...) hold neither NaN nor infinity, (B,)."""
    return values.isfinite().flatten(1).all(1)


def _concatenate_noise(noise: Sequence[Sequence[Tensor]], generator: Generator) -> list[Tensor] | None:
    """Returns the noise maps of several batches, concatenated layer by layer; None without batches."""
    layers = zip(*noise, strict=True)
    return [torch.cat([maps.detach() for maps in layer]).to(generator.w_avg) for layer in layers] or None


def _load_generator(cfg: DictConfig) -> Generator:
    generator: Generator = instantiate(cfg.generator)
    if generator.img_channels != 3:
        raise UserError(f"generator: makes images of {generator.img_channels} channels, expected 3 (RGB)")
    return generator.to(device_named(cfg.device))


def _average(cfg: DictConfig, generator: Generator) -> Tensor:
    """Returns the latent average that codes are truncated towards, (D,), or (N, 1, D) for images of several classes."""
    return generator.w_avg if cfg.truncate_to == "class" else generator.mapping.w_avg


def _stored_class(text: str | None) -> int | str | None:
    return int(text) if text is not None and re.fullmatch("[0-9]{1,9}", text) else ALL


def _check_tensors(
    generator: Generator, noise: Sequence[Tensor] | None, difference: Mapping[str, Tensor] | None
) -> None:
    """Raises a UserError if noise maps or a tuned generator belong to another generator."""
    if noise is not None:
        noise_inputs(generator.synthesis.layers(), noise, 1, generator.w_avg)
    if difference is not None:
        LowRankDifference({name: part[None] for name, part in difference.items()}, generator.synthesis)


def _output(cfg: DictConfig, root: Path, name: str) -> Path:
    return root / name if cfg.output is None else Path(str(cfg.output))
