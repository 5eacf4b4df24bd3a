"""The networks of HFGI's checkpoints besides the encoder and the generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from stylegan_inv.encoders.official.official_checkpoint import OfficialCheckpoint
from stylegan_inv.encoders.refinement.residual_encoders import ConsultationEncoder, ResidualAligner
from stylegan_inv.errors import UserError
from stylegan_inv.generators.generator import Generator
from stylegan_inv.generators.io.layouts import State
from stylegan_inv.generators.io.weight_files import misfits, with_counters

Network = TypeVar("Network", bound=nn.Module)
#: The feature map that the official code modulates, at every size of the generator.
LAYER = "b64.conv0"


def hfgi_networks(checkpoint: OfficialCheckpoint, generator: Generator) -> tuple[ConsultationEncoder, ResidualAligner]:
    """Builds the consultation encoder and the aligner of a checkpoint, in evaluation mode.

    Raises:
        UserError: One of them is missing or another network, or the generator does not have the feature map.
    """
    layers = generator.synthesis.named_layers()
    if LAYER not in layers:
        raise UserError(f"has a generator of {generator.resolution} px, expected at least 64 px, where HFGI acts")
    for name in ("residue", "grid_align"):
        if name not in checkpoint.others:
            raise UserError(f"has no {name}, expected the file of HFGI with encoder, residue, grid_align and decoder")
    channels = len(layers[LAYER].weight)
    return (
        _filled(lambda: ConsultationEncoder(channels), checkpoint.others["residue"], "residue"),
        _filled(ResidualAligner, checkpoint.others["grid_align"], "grid_align"),
    )


def _filled(build: Callable[[], Network], state: State, what: str) -> Network:
    with torch.device("meta"):
        network = build()
    expected = network.state_dict()
    if problems := misfits(expected, state):
        raise UserError(f"has a {what} that is not HFGI's for this generator: {problems}")
    copies = {key: value.clone().contiguous() for key, value in with_counters(expected, state).items()}
    network.load_state_dict(copies, assign=True)
    return network.eval()
