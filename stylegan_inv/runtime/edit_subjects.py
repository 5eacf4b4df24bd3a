"""Where the pictures of an edit come from: random codes, codes on disk, or images that a run inverts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader

from stylegan_inv import invert
from stylegan_inv.config import CONF_DIR
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator, load_generator
from stylegan_inv.latents.edits.subjects import Subjects, whole
from stylegan_inv.latents.statistics import map_codes, sample_z
from stylegan_inv.latents.truncation import truncate
from stylegan_inv.runtime.device import device_named
from stylegan_inv.runtime.inversions import LATENTS, Latents, read_latents

#: Keys that edit and invert share.
_OF_INVERT = ("run", "input", "overwrite", "on_bad_image", "mode", "resolution", "batch_size", "num_workers", "device")


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
    if source.name == LATENTS or (source / LATENTS).is_file():
        if cfg.run is not None:
            raise UserError(f"run={cfg.run}: not needed, {source} holds codes already; leave run out")
        folder = source if source.is_dir() else source.parent
        return _from_latents(cfg, read_latents(source), _output(cfg, folder, f"edit_{edit}"))
    if cfg.run is None:
        raise UserError(
            f"input={source}: images need a run that inverts them, run=outputs/...; or give latents.safetensors"
        )
    run = Path(cfg.run)
    root = (run if run.is_dir() else run.parent.parent) if run.exists() else Path("outputs") / run.stem
    return _from_images(cfg, _output(cfg, root / "edits", f"{edit}_{source.stem if source.is_file() else source.name}"))


def _random(cfg: DictConfig, output: Path) -> Source:
    count, seed = whole(cfg.samples, "samples", 1), whole(cfg.seed, "seed", 0)
    if isinstance(cfg.psi, bool) or not isinstance(cfg.psi, (int, float)):
        raise UserError(f"psi={cfg.psi}: expected a number, 1 for untruncated samples")
    generator = load_generator(cfg.generator, device=device_named(cfg.device))
    if generator.c_dim:
        raise UserError(f"generator={cfg.generator}: is conditional, random samples need one that is not")

    def load() -> Subjects:
        z = sample_z(generator, count, seed)
        w = map_codes(generator, z)[:, None].expand(-1, generator.num_ws, -1)
        names = [f"seed {seed}, {k}" for k in range(count)]
        return Subjects(generator, truncate(w, generator.w_avg, cfg.psi), names, z=z, batch_size=cfg.batch_size)

    return Source(generator, count, True, output, load)


def _from_latents(cfg: DictConfig, latents: Latents, output: Path) -> Source:
    generator = load_generator(cfg.generator, device=device_named(cfg.device))
    made_for = latents.metadata.get("generator_hash")
    if latents.w.shape[1:] != (generator.num_ws, generator.w_dim) or made_for not in (None, generator.source_hash):
        raise UserError(
            f"input={cfg.input}: holds codes {tuple(latents.w.shape[1:])} of another generator "
            f"({str(made_for)[:12]}...) than generator={cfg.generator}; give generator=<file> of that one"
        )
    w = latents.w.to(generator.w_avg)
    return Source(
        generator, len(w), False, output, lambda: Subjects(generator, w, latents.names, batch_size=cfg.batch_size)
    )


def _from_images(cfg: DictConfig, output: Path) -> Source:
    inverting = OmegaConf.to_container(OmegaConf.load(CONF_DIR / "invert.yaml"))
    assert isinstance(inverting, dict)
    del inverting["hydra"], inverting["defaults"]  # what is left are the keys of the command
    inverting.update({key: cfg[key] for key in _OF_INVERT}, output=str(output))
    job = invert.prepare(OmegaConf.create(inverting))

    def load() -> Subjects:
        images, inversions = [], []
        for batch in DataLoader(job.images, cfg.batch_size, num_workers=cfg.num_workers):
            seen = batch["image"].to(job.method.device)
            found = job.method.invert(seen if job.task is None else job.task.read(seen))
            if found.generator is not None:
                raise UserError(
                    f"run={cfg.run}: its method tunes the generator for each picture, whose edits are not supported yet"
                )
            images.append(batch["image"])
            inversions.append(found)
        w = torch.cat([found.w.detach() for found in inversions])
        noise = None
        if inversions[0].noise is not None:
            layers = zip(*(found.noise or [] for found in inversions), strict=True)
            noise = [torch.cat([maps.detach() for maps in layer]) for layer in layers]
        names = job.images.names
        return Subjects(job.method.generator, w, names, torch.cat(images), noise=noise, batch_size=cfg.batch_size)

    return Source(job.method.generator, len(job.images), False, output, load)


def _output(cfg: DictConfig, root: Path, name: str) -> Path:
    return root / name if cfg.output is None else Path(cfg.output)
