"""Writing StyleGAN2 networks for other people's code: rosinality's, NVIDIA's, and that of pSp and its kin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators.discriminator import Discriminator
from stylegan_inv.generators.generator import Generator
from stylegan_inv.generators.io.layouts import State, to_nvidia, to_rosinality
from stylegan_inv.generators.layers import channel_table

LAYOUTS = ("rosinality", "nvidia", "psp")


def exported(network: Generator | Discriminator, layout: str) -> dict[str, Any]:
    """What to `torch.save` so that the code of a layout reads it.

    Args:
        network: the network; its weights are copied.
        layout: ``rosinality`` (``g_ema`` and ``latent_avg``, or ``d``), ``nvidia`` (a state dict) or ``psp``
            (``state_dict`` with ``decoder.*``, ``latent_avg`` for each layer, ``opts``).

    Raises:
        UserError: a network that the layout has no place for.
    """
    if network.config.get("style") == "adain":
        raise UserError(f"the layout {layout} has no place for an original StyleGAN: only ours has")
    sd: State = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
    if layout == "nvidia":
        return dict(to_nvidia(sd))
    if isinstance(network, Discriminator):
        if layout == "psp":
            raise UserError("pSp's layout has no place for an image discriminator: use rosinality or nvidia")
        return {"d": to_rosinality(sd)}
    state = to_rosinality(sd)
    if layout == "rosinality":
        return {"g_ema": state, "latent_avg": sd["mapping.w_avg"]}
    if layout == "psp":
        average = sd["mapping.w_avg"].repeat(network.num_ws, 1)
        opts = {"output_size": network.resolution, "start_from_latent_avg": True}
        return {"state_dict": prefixed("decoder", state), "latent_avg": average, "opts": opts}
    raise UserError(f"layout {layout!r}: expected one of {', '.join(LAYOUTS)}")


def prefixed(prefix: str, state: Mapping[str, Tensor]) -> State:
    """``key`` -> ``prefix.key``."""
    return {f"{prefix}.{key}": value for key, value in state.items()}


def limits(network: Generator | Discriminator, layout: str) -> list[str]:
    """What a layout's own code will not know about this network, one line each."""
    config = network.config
    notes = []
    if layout == "nvidia":
        if config["conv_clamp"] is not None:
            notes.append(f"a state dict does not say conv_clamp={config['conv_clamp']}: give it to NVIDIA's class")
        return notes
    if config["conv_clamp"] is not None:
        notes.append(f"{layout} does not clamp activations (here at {config['conv_clamp']})")
    if not any(network.channels == channel_table(network.resolution, 16384 * m) for m in (1, 2)):
        notes.append(f"{layout}'s class expresses no such table of channels: {network.channels}")
    if isinstance(network, Generator):
        if network.z_dim != network.w_dim:
            notes.append(f"{layout}'s class wants z and w of one size, here {network.z_dim} and {network.w_dim}")
        if config["mapping_lr_multiplier"] != 0.01:
            notes.append(f"{layout}'s class needs lr_mlp={config['mapping_lr_multiplier']}")
    return notes


def save_exported(content: Mapping[str, Any], path: Any) -> None:
    """Write with `torch.save`; plain containers and tensors, so that ``weights_only=True`` reads it."""
    torch.save(dict(content), path)
