"""Where the pictures of an edit come from: random codes, codes on disk, or images that a run inverts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader

from stylegan_inv.config import instantiate
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.invert.inputs import Images, Inputs
from stylegan_inv.latents.edits.subjects import Subjects, whole
from stylegan_inv.latents.saved_codes import Latents, holds_latents, read_difference, read_latents, read_noise
from stylegan_inv.latents.statistics import map_codes, sample_z
from stylegan_inv.latents.truncation import truncate
from stylegan_inv.loading import load_inverter
from stylegan_inv.methods.common.base import Inversion
from stylegan_inv.runtime.device import device_named
from stylegan_inv.runtime.run_folder import RunFolder, results_folder


@dataclass
class Source:
    """Pictures that are found and counted, but not yet made.

    Attributes:
        generator: of their codes.
        count: pictures.
        random: whether they are random samples.
        output: folder for the results.
        load: makes or inverts them.
    """

    generator: Generator
    count: int
    random: bool
    output: Path
    load: Callable[[], Subjects]


def find_subjects(cfg: DictConfig, edit: str) -> Source:
    """Find what is to be edited and load the networks.

    Args:
        cfg: the edit command's config.
        edit: name of the edit, for the default output folder.

    Raises:
        UserError: missing or unreadable inputs, or inputs that do not go together.
    """
    whole(cfg.batch_size, "batch_size", 1)
    if cfg.input is None:
        if cfg.run is not None:
            raise UserError(f"run={cfg.run}: got no input; give input=<images>, or leave run out for random samples")
        return _random(cfg, _output(cfg, Path("outputs/edits"), f"{edit}_seed{cfg.seed}"))
    source = Path(cfg.input)
    if holds_latents(source):
        if cfg.run is not None:
            raise UserError(f"run={cfg.run}: not needed, {source} holds codes already; leave run out")
        folder = source if source.is_dir() else source.parent
        return _from_latents(cfg, folder, read_latents(source), _output(cfg, folder, f"edit_{edit}"))
    if cfg.run is None:
        raise UserError(
            f"input={source}: images need a run that inverts them, run=outputs/...; or give latents.safetensors"
        )
    if cfg.mode not in ("crop", "fit") or cfg.on_bad_image not in ("error", "skip"):
        raise UserError(f"mode={cfg.mode}, on_bad_image={cfg.on_bad_image}: expected crop or fit, and error or skip")
    output = _output(cfg, results_folder(cfg.run) / "edits", f"{edit}_{_name_of(source)}")
    if source.is_dir() and output.resolve().is_relative_to(source.resolve()):
        raise UserError(f"output={output}: lies inside input={source}, whose images the next call would take it for")
    return _from_images(cfg, output)


def _random(cfg: DictConfig, output: Path) -> Source:
    count, seed = whole(cfg.samples, "samples", 1), whole(cfg.seed, "seed", 0)
    if isinstance(cfg.psi, bool) or not isinstance(cfg.psi, (int, float)):
        raise UserError(f"psi={cfg.psi}: expected a number, 1 for untruncated samples")
    generator = _generator(cfg)
    if generator.c_dim:
        raise UserError(f"generator.source={cfg.generator.source}: is conditional, random samples need one that is not")

    def load() -> Subjects:
        z = sample_z(generator, count, seed)
        w = map_codes(generator, z)[:, None].expand(-1, generator.num_ws, -1)
        names = [f"seed {seed}, {k}" for k in range(count)]
        return Subjects(generator, truncate(w, generator.w_avg, cfg.psi), names, z=z, batch_size=cfg.batch_size)

    return Source(generator, count, True, output, load)


def _from_latents(cfg: DictConfig, folder: Path, latents: Latents, output: Path) -> Source:
    generator = _generator(cfg)
    made_for = latents.metadata.get("generator_hash")
    if latents.w.shape[1:] != (generator.num_ws, generator.w_dim) or made_for not in (None, generator.source_hash):
        raise UserError(
            f"input={cfg.input}: holds codes {tuple(latents.w.shape[1:])} of another generator "
            f"({str(made_for)[:12]}...) than the one here; give that one, generator=file generator.source=<file>"
        )
    noise = [read_noise(folder, name) for name in latents.reconstructions]
    differences = [read_difference(folder, name) for name in latents.reconstructions]

    def load() -> Subjects:
        return Subjects(
            generator,
            latents.w.to(generator.w_avg),
            latents.names,
            noise=_stacked([maps for maps in noise if maps is not None], generator),
            differences=[one for one in differences if one is not None] or None,
            batch_size=cfg.batch_size,
        )

    for found in (noise, differences):
        if None in found and any(one is not None for one in found):
            raise UserError(f"{folder}: has noise or tuned generators for some images alone; invert them again")
    return Source(generator, len(latents.w), False, output, load)


def _from_images(cfg: DictConfig, output: Path) -> Source:
    images = Images.of(str(cfg.input), "input", cfg.on_bad_image)
    method: Any = load_inverter(cfg.run, device_named(cfg.device))
    dataset = _dataset_of(Path(cfg.run))
    size = cfg.resolution or method.input_size
    inputs, task = Inputs(images, size, cfg.mode), instantiate(dataset.get("task"))

    def load() -> Subjects:
        seen, found = [], []
        for batch in DataLoader(inputs, cfg.batch_size, num_workers=cfg.num_workers):
            source = batch["image"].to(method.device)
            seen.append(batch["image"])
            found.append(method.invert(source if task is None else task.read(source)))
        return subjects_of(method.generator, found, images.names, torch.cat(seen), cfg.batch_size)

    return Source(method.generator, len(images.names), False, output, load)


def subjects_of(
    generator: Generator,
    found: Sequence[Inversion],
    names: list[str],
    images: Tensor | None = None,
    batch_size: int = 16,
) -> Subjects:
    """Subjects of the inversions of several batches: codes, noise maps and tuned generators joined."""
    differences: list[Mapping[str, Tensor]] = []
    for one in found:
        parts = one.weights or {}
        differences += [{name: part[row] for name, part in parts.items()} for row in range(len(one.w)) if parts]
    return Subjects(
        generator,
        torch.cat([one.w.detach() for one in found]),
        names,
        images,
        noise=_stacked([one.noise for one in found if one.noise is not None], generator),
        differences=differences or None,
        batch_size=batch_size,
    )


def _stacked(noise: Sequence[Sequence[Tensor]], generator: Generator) -> list[Tensor] | None:
    """Noise maps of several batches, joined layer by layer."""
    layers = zip(*noise, strict=True)
    return [torch.cat([maps.detach() for maps in layer]).to(generator.w_avg) for layer in layers] or None


def _dataset_of(run: Path) -> dict[str, Any]:
    """What the run's config says of its data; nothing for other people's checkpoints."""
    folder = RunFolder.of(run)
    return dict((folder and folder.dataset_config()) or {})


def _name_of(source: Path) -> str:
    return source.stem if source.is_file() else source.resolve().name.replace(":", "_")


def _generator(cfg: DictConfig) -> Generator:
    generator = instantiate(cfg.generator)
    return generator.to(device_named(cfg.device))


def _output(cfg: DictConfig, root: Path, name: str) -> Path:
    return root / name if cfg.output is None else Path(cfg.output)
