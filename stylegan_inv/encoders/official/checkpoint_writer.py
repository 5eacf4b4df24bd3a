"""Writes official checkpoints, in the project's own format and in pSp's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stylegan_inv.encoders.official.official_checkpoint import OfficialCheckpoint, checkpoint_generator
from stylegan_inv.generators.generator import Generator
from stylegan_inv.generators.io.building import CHECKPOINT_KIND
from stylegan_inv.generators.io.layouts import State, detect_layout
from stylegan_inv.generators.io.network_export import prefixed
from stylegan_inv.generators.io.rosinality_layout import to_rosinality


def to_psp(checkpoint: OfficialCheckpoint) -> dict[str, Any]:
    """Returns a checkpoint in the format of pSp's code, for `torch.save`."""
    state: State = {}
    for name, part in checkpoint.networks().items():
        if name == "decoder" and detect_layout(part) == "nvidia generator":
            part = to_rosinality(part)
        if name != "discriminator":
            state |= prefixed(name, part)
    content: dict[str, Any] = {"state_dict": state, "opts": checkpoint.opts}
    if checkpoint.latent_avg is not None:
        content["latent_avg"] = checkpoint.latent_avg
    if checkpoint.discriminator:
        content["discriminator_state_dict"] = checkpoint.discriminator
    return content


def save_checkpoint(checkpoint: OfficialCheckpoint, path: str | Path, metadata: Mapping[str, str]) -> None:
    """Writes a checkpoint as safetensors, with the name of the network as a prefix of its keys.

    A single network keeps its keys, so that code that reads the original can read this file. Tensors that the original
    contains twice (HyperStyle's shared layers) are written once.

    Args:
        checkpoint: The checkpoint.
        path: The file.
        metadata: Further metadata, e.g. the origin of the weights.

    Raises:
        UserError: The decoder is no StyleGAN2 generator.
    """
    from safetensors.torch import save_file

    if checkpoint.networks().keys() == {"encoder"} and checkpoint.latent_avg is None:
        flat = {key: value.contiguous().clone() for key, value in checkpoint.encoder.items()}
        save_file(flat, str(path), metadata={"format": "pt", "kind": checkpoint.kind, **metadata})
        return
    generator: Generator | None = None
    tensors: State = {}
    for name, part in checkpoint.networks().items():
        if name == "decoder":
            generator, _ = checkpoint_generator(checkpoint)
            part = {key: value for key, value in generator.state_dict().items() if key != "mapping.w_avg"}
            if checkpoint.latent_avg is None:
                part["mapping.w_avg"] = generator.w_avg
        tensors |= prefixed(name, part)
    if checkpoint.latent_avg is not None:
        tensors["latent_avg"] = checkpoint.latent_avg
    unique, aliases = _without_duplicates(tensors)
    info = {
        "format": "pt",
        "kind": CHECKPOINT_KIND,
        "checkpoint": checkpoint.kind,
        "opts": json.dumps(checkpoint.opts),
        "aliases": json.dumps(aliases),
        **metadata,
    }
    if generator is not None:
        info["generator"] = json.dumps(generator.config)
    save_file(unique, str(path), metadata=info)


def _without_duplicates(tensors: State) -> tuple[State, dict[str, str]]:
    """Returns copies of the distinct tensors, and for each duplicate the name of its original."""
    first: dict[Any, str] = {}
    unique: State = {}
    aliases: dict[str, str] = {}
    for key, value in tensors.items():
        identity = (value.data_ptr(), value.dtype, tuple(value.shape), value.stride())
        if value.numel() and identity in first:
            aliases[key] = first[identity]
        else:
            first[identity] = key
            unique[key] = value.detach().cpu().contiguous().clone()
    return unique, aliases
