"""Exports StyleGAN2 networks for the code of rosinality, of NVIDIA, and of pSp and its successors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators.discriminator import Discriminator
from stylegan_inv.generators.generator import Generator
from stylegan_inv.generators.io.layouts import State, to_nvidia
from stylegan_inv.generators.io.rosinality_layout import to_rosinality
from stylegan_inv.generators.layers import channel_table
from stylegan_inv.utils.checks import one_of

LAYOUTS = ("rosinality", "nvidia", "psp")


def exported(network: Generator | Discriminator, layout: str) -> dict[str, Any]:
    """Returns a network in the form in which the code of a layout reads it with `torch.load`.

    Args:
        network: The network. Its weights are copied.
        layout: ``rosinality`` (``g_ema`` and ``latent_avg``, or ``d``), ``nvidia`` (a state dict) or ``psp``
            (``state_dict`` with ``decoder.*``, ``latent_avg`` for each layer, ``opts``).

    Raises:
        UserError: A network that the layout cannot store.
    """
    one_of("layout", layout, LAYOUTS)
    if network.config.get("style") == "adain":
        raise UserError(f"the layout {layout} cannot store an original StyleGAN: expected --to ours")
    sd: State = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
    if layout == "nvidia":
        return dict(to_nvidia(sd))
    if isinstance(network, Discriminator):
        if layout == "psp":
            raise UserError("pSp's layout cannot store an image discriminator: use rosinality or nvidia")
        return {"d": to_rosinality(sd)}
    state = to_rosinality(sd)
    if layout == "rosinality":
        return {"g_ema": state, "latent_avg": sd["mapping.w_avg"]}
    average = sd["mapping.w_avg"].repeat(network.num_ws, 1)
    opts = {"output_size": network.resolution, "start_from_latent_avg": True}
    return {"state_dict": prefixed("decoder", state), "latent_avg": average, "opts": opts}


def prefixed(prefix: str, state: Mapping[str, Tensor]) -> State:
    """Renames ``key`` to ``prefix.key``."""
    return {f"{prefix}.{key}": value for key, value in state.items()}


def limits(network: Generator | Discriminator, layout: str) -> list[str]:
    """Returns what the code of a layout does not read from the exported file, one line for each setting."""
    config = network.config
    notes = []
    if layout == "nvidia":
        if config["conv_clamp"] is not None:
            notes.append(f"a state dict does not contain conv_clamp={config['conv_clamp']}: pass it to NVIDIA's class")
        return notes
    if config["conv_clamp"] is not None:
        notes.append(f"{layout} does not clamp activations (here at {config['conv_clamp']})")
    if not any(network.channels == channel_table(network.resolution, 16384 * m) for m in (1, 2)):
        notes.append(f"{layout}'s class does not support these numbers of channels: {network.channels}")
    if isinstance(network, Generator):
        if network.z_dim != network.w_dim:
            notes.append(f"{layout}'s class expects z and w of one size, got {network.z_dim} and {network.w_dim}")
        if config["mapping_lr_multiplier"] != 0.01:
            notes.append(f"{layout}'s class needs lr_mlp={config['mapping_lr_multiplier']}")
    return notes


def save_exported(content: Mapping[str, Any], path: Path) -> None:
    """Writes an exported network with `torch.save`; ``torch.load(weights_only=True)`` reads it."""
    torch.save(dict(content), path)
