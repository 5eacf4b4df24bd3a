"""The images of the edit command that ``stylegan_inv.invert`` has inverted before, from its output folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from omegaconf import DictConfig
from torch import Tensor

from stylegan_inv.edit.edited_images import Source, configured_generator, truncation_centre
from stylegan_inv.edit.joined_inversions import concatenate_noise, own_rule
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.generators.class_choice import ALL
from stylegan_inv.generators.feature_maps import FeatureChange, check_change, join_changes
from stylegan_inv.generators.synthesis_inputs import noise_inputs
from stylegan_inv.generators.variants.low_rank_difference import LowRankDifference
from stylegan_inv.latents.edits.base import EditInputs
from stylegan_inv.latents.saved_codes import Latents, read_difference, read_features, read_kept, read_noise
from stylegan_inv.loading import load_inverter
from stylegan_inv.methods.common.base import Inversion, InversionMethod
from stylegan_inv.runtime.device import device_named
from stylegan_inv.runtime.run_folder import check_run
from stylegan_inv.trust.config_check import checked_trust

T = TypeVar("T")


@dataclass
class _Saved:
    """What the images of a folder have besides their codes; each list has one entry for each image, or is None.

    Attributes:
        noise: Noise maps (1, 1, r, r) for each layer.
        weights: Compressed differences of tuned generators.
        features: Changes of feature maps by layer.
        kept: What networks of the method read.
    """

    noise: list[list[Tensor]] | None
    weights: list[dict[str, Tensor]] | None
    features: list[dict[str, FeatureChange]] | None
    kept: list[dict[str, Tensor]] | None

    @classmethod
    def of(cls, folder: Path, images: Sequence[str]) -> _Saved:
        """Reads the files of all images.

        Raises:
            UserError: Only some of the images have them, or they differ in what they hold.
        """

        def all_of(read: Callable[[Path, str], T | None], what: str) -> list[T] | None:
            found = [one for one in (read(folder, name) for name in images) if one is not None]
            if found and len(found) < len(images):
                raise UserError(f"{folder}: has {what} for only some of the images; invert them again")
            return found or None

        saved = cls(
            all_of(read_noise, "noise"),
            all_of(read_difference, "tuned generators"),
            all_of(read_features, "features"),
            all_of(read_kept, "what edits need"),
        )
        for parts in (saved.features, saved.kept):
            if parts and any(one.keys() != parts[0].keys() for one in parts):
                raise UserError(f"{folder}: has images of different methods; invert them again")
        return saved

    def check(self, generator: Generator, row: int) -> None:
        """Raises a UserError if what belongs to an image belongs to another generator."""
        if self.noise is not None:
            noise_inputs(generator.synthesis.layers(), self.noise[row], 1, generator.w_avg)
        if self.weights is not None:
            LowRankDifference({name: part[None] for name, part in self.weights[row].items()}, generator.synthesis)
        if self.features is not None:
            for name, change in self.features[row].items():
                check_change(generator.synthesis, name, change)


def saved_codes(cfg: DictConfig, folder: Path, latents: Latents, output: Path) -> Source:
    """Returns the images of codes on disk.

    Args:
        cfg: Config of the edit command.
        folder: Output folder of ``stylegan_inv.invert``.
        latents: Codes in this folder.
        output: Output folder of the edit.

    Raises:
        UserError: What is saved does not fit the generator, is incomplete, or needs a run that is not there.
    """
    saved = _Saved.of(folder, latents.reconstructions)
    method = None if saved.kept is None else _method(cfg, folder, latents)
    if method is None and cfg.run is not None:
        raise UserError(f"run={cfg.run}: not needed, {cfg.input} holds codes already; leave run out")
    generator = configured_generator(cfg) if method is None else method.generator
    made_for = latents.metadata.get("generator_hash")
    if latents.w.shape[1:] != (generator.num_ws, generator.w_dim) or made_for not in (None, str(generator.source_hash)):
        raise UserError(
            f"input={cfg.input}: holds codes {tuple(latents.w.shape[1:])} of another generator "
            f"({str(made_for)[:12]}...) than the one here; give that one, generator=file generator.source=<file>"
        )
    for row, name in enumerate(latents.reconstructions):
        try:
            saved.check(generator, row)
        except UserError as error:
            raise UserError(f"{folder}: what belongs to {name} does not fit ({error}); invert it again") from error
    if cfg["class"] is None and generator.c_dim:
        generator.set_class(_stored_class(latents.metadata.get("class")))

    def load() -> EditInputs:
        w = latents.w.to(generator.w_avg)
        layers = saved.features[0] if saved.features else {}
        return EditInputs(
            generator,
            w,
            latents.names,
            noise=concatenate_noise(saved.noise or [], generator),
            features={n: _joined([one[n] for one in saved.features or []], w) for n in layers} or None,
            weights=saved.weights,  # type: ignore[arg-type]  # list is invariant
            batch_size=cfg.batch_size,
            average=truncation_centre(cfg, generator),
            own_rule=None if method is None else own_rule(method, _inversions(w, saved)),
        )

    return Source(generator, len(latents.w), False, output, load, generator.domain)


def _joined(changes: Sequence[FeatureChange], like: Tensor) -> FeatureChange:
    joined = join_changes(changes)
    return joined.to(like) if isinstance(joined, Tensor) else tuple(torch.as_tensor(v).to(like) for v in joined)  # type: ignore[return-value]


def _inversions(w: Tensor, saved: _Saved) -> list[Inversion]:
    """Returns the inversion of each image; what no edit reads, its reconstruction, is left out."""
    found = []
    for row, state in enumerate(saved.kept or []):
        noise = None if saved.noise is None else [m.to(w) for m in saved.noise[row]]
        own = {name: value.to(w) for name, value in state.items()}
        found.append(Inversion(w[row : row + 1], w.new_empty(1, 0), noise=noise, kept=own))
    return found


def _method(cfg: DictConfig, folder: Path, latents: Latents) -> InversionMethod:
    """Returns the method of the run that inverted the images, or of the run that the user gives instead.

    Raises:
        UserError: No run is known, it is not there, or it is one of another method.
    """
    made_by, run = latents.metadata.get("method"), cfg.run or latents.metadata.get("run")
    if not run:
        raise UserError(f"{folder}: {made_by} edits with its networks, and its run is not known; give run=<that run>")
    try:
        check_run("run", run)
    except UserError as error:
        raise UserError(f"{folder}: {made_by} edits with its networks; give run=<the run of it> ({error})") from None
    method = load_inverter(run, device_named(cfg.device), trust=checked_trust(cfg.trust))
    if type(method).__name__ != made_by or not method.edits_with_networks:
        raise UserError(f"{folder}: was inverted by {made_by}, but run={run} holds {type(method).__name__}")
    return method


def _stored_class(text: str | None) -> int | str | None:
    return int(text) if text is not None and re.fullmatch("[0-9]{1,9}", text) else ALL
