"""The networks in official checkpoints of the Feature-Style encoder and StyleFeatureEditor.

Files of InterDigitalInc/FeatureStyleEncoder (``143_enc.pth``) hold the encoder alone: its generator is that of pSp.
Those of ControlGenAI/StyleFeatureEditor hold all networks by prefixes; what ``encoder.`` is depends on the phase.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from stylegan_inv.encoders.feature_space.feature_fusion import FeatureFusion
from stylegan_inv.encoders.feature_space.feature_style import FeatureStyleEncoder
from stylegan_inv.encoders.official.architecture import infer_encoder
from stylegan_inv.encoders.official.official_checkpoint import OfficialCheckpoint
from stylegan_inv.errors import UserError
from stylegan_inv.generators.io.layouts import State
from stylegan_inv.generators.io.weight_files import misfits, with_counters

Network = TypeVar("Network", bound=nn.Module)
#: A generator of 8192 px has 24.
_MOST_STYLES, _MOST_UNITS = 64, 256
#: Side of the images that the official encoders read, in pixels.
_INPUT_SIZE = 256
#: Side of the feature map of each method.
_SIZES = {"fse": 16, "sfe": 64}


@dataclass
class FeatureNetworks:
    """The networks of a file, in evaluation mode.

    Attributes:
        encoder: The Feature-Style encoder, or that of the inverter.
        fuser: The fuser of the inverter; None for the Feature-Style encoder.
        editor: The feature editor; None in files of the first phase.
        embedder: The encoder of e4e; None in files without it.
    """

    encoder: FeatureStyleEncoder
    fuser: FeatureFusion | None = None
    editor: FeatureFusion | None = None
    embedder: nn.Module | None = None


def build_feature_networks(checkpoint: OfficialCheckpoint) -> FeatureNetworks:
    """Builds the networks of a checkpoint of the kind ``fse`` or ``sfe``.

    Raises:
        UserError: Missing or unexpected keys.
    """
    if checkpoint.kind == "fse":
        return FeatureNetworks(_encoder(checkpoint.encoder, _SIZES["fse"]))
    inverter = checkpoint.others.get("inverter")
    editor = None if inverter is None else checkpoint.encoder
    parts = _split(checkpoint.encoder if inverter is None else inverter, "fs_backbone", "fuser")
    embedder = checkpoint.others.get("e4e_encoder")
    return FeatureNetworks(
        _encoder(parts["fs_backbone"], _SIZES["sfe"]),
        _fusion(parts["fuser"]),
        None if editor is None else _fusion(editor),
        None if embedder is None else _embedder(embedder),
    )


def _split(state: State, *names: str) -> dict[str, State]:
    """Returns the parts of a state dict by their prefixes."""
    found: dict[str, State] = {name: {} for name in names}
    for key, value in state.items():
        name, _, rest = key.partition(".")
        if name not in found:
            raise UserError(f"contains {ascii(key)[:80]} in the inverter, expected {' and '.join(names)} alone")
        found[name][rest] = value
    return found


def _encoder(state: State, feature_size: int) -> FeatureStyleEncoder:
    channels = tuple(_size(state, f"block_{i}.0.conv1.weight", 0) for i in range(1, 5))
    units = tuple(1 + _largest(state, rf"block_{i}\.(\d{{1,3}})\.", _MOST_UNITS) for i in range(1, 5))
    styles = 1 + _largest(state, r"styles\.(\d{1,3})\.", _MOST_STYLES)
    with torch.device("meta"):  # a file may claim sizes that it does not have
        encoder = FeatureStyleEncoder(
            styles,
            _size(state, "styles.0.weight", 0),
            _size(state, "conv.0.weight", 1),
            feature_channels=_size(state, "content_layer.4.weight", 0),
            feature_size=feature_size,
            input_size=_INPUT_SIZE,
            channels=channels,
            units=units,
        )
    return _loaded(encoder, state)


def _fusion(state: State) -> FeatureFusion:
    units = 1 + _largest(state, r"body\.(\d{1,3})\.", _MOST_UNITS)
    with torch.device("meta"):
        network = FeatureFusion(_size(state, "conv.weight", 0), units)
    return _loaded(network, state)


def _embedder(state: State) -> nn.Module:
    geometry = infer_encoder(state)
    if geometry.num_ws is None or geometry.head != "fpn":
        raise UserError("contains another e4e_encoder than that of e4e with a feature pyramid")
    with torch.device("meta"):
        encoder = geometry.build(geometry.num_ws, progressive=True)
    return _loaded(encoder, state)


def _loaded(network: Network, state: State) -> Network:
    expected = network.state_dict()
    if problems := misfits(expected, state):
        raise UserError(f"does not fit {type(network).__name__}: {problems}")
    copies = {key: value.clone().contiguous() for key, value in with_counters(expected, state).items()}
    network.load_state_dict(copies, assign=True)
    return network.eval()


def _largest(state: State, pattern: str, most: int) -> int:
    found = [int(match[1]) for key in state if (match := re.match(pattern, key))]
    if not found or max(found) >= most:
        raise UserError(f"has no encoder of the expected layout ({pattern}), or one of more than {most} parts")
    return max(found)


def _size(state: State, key: str, axis: int) -> int:
    value: Tensor | None = state.get(key)
    if value is None or value.ndim <= axis or not value.numel():
        raise UserError(f"contains no {key} of the expected shape")
    return value.shape[axis]
