"""Writes NVIDIA's ``network-snapshot-*.pkl``: G, D and the moving average of G, for the code of NVIDIA to load.

NVIDIA's pickles hold the source text of their classes (``torch_utils.persistence``), which NVIDIA's loader executes.
The text that is written here is `SOURCE`: it builds the network of the reader's own checkout, which is
NVlabs/stylegan2-ada-pytorch (d72cc7d) or NVlabs/stylegan3 (c233a91), and loads the tensors. What is loaded is an object
of that checkout's class.
`nvidia_pickle` reads the file without executing the text.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators.discriminator import Discriminator
from stylegan_inv.generators.generator import Generator
from stylegan_inv.generators.io.building import build_discriminator, build_generator
from stylegan_inv.generators.io.layouts import to_nvidia
from stylegan_inv.generators.io.nvidia_pickle import StoredNetwork
from stylegan_inv.generators.io.weight_files import read_weights

#: Version of ``torch_utils.persistence``, the same in both repositories.
_VERSION = 6
#: Executed by NVIDIA's loader, in the reader's checkout.
SOURCE = '''"""Written by stylegan_inv: builds a network of the checkout that reads it, and loads its tensors."""

import importlib.util

from training import augment

nested = importlib.util.find_spec("training.networks_stylegan2") is None
if nested:
    from training import networks  # NVlabs/stylegan2-ada-pytorch
else:
    from training import networks_stylegan2 as networks  # NVlabs/stylegan3


def stored(original):
    class Stored(original):
        def __setstate__(self, state):
            arguments = dict(state["arguments"])
            synthesis = arguments.pop("synthesis_kwargs", None)
            if synthesis is not None:
                arguments.update(dict(synthesis_kwargs=synthesis) if nested else synthesis)
            self.__class__ = original
            self.__init__(**arguments)
            missing, unknown = self.load_state_dict(state["tensors"], strict=False)
            assert not unknown and all(name.endswith(("Hz_geom", "Hz_fbank")) for name in missing), (missing, unknown)
            self.eval().requires_grad_(False)
    return Stored


Generator = stored(networks.Generator)
Discriminator = stored(networks.Discriminator)
AugmentPipe = stored(augment.AugmentPipe)
'''


@dataclass
class Snapshot:
    """The state of a training of StyleGAN2.

    Attributes:
        generator: G.
        discriminator: D.
        generator_ema: Moving average of the weights of G.
        augment: Arguments of NVIDIA's ``AugmentPipe`` and its ``p``; None without adaptive augmentation.
        training_set: Arguments of NVIDIA's data set, for its metrics; None if they are unknown.
    """

    generator: Generator
    discriminator: Discriminator
    generator_ema: Generator
    augment: Mapping[str, float] | None = None
    training_set: Mapping[str, Any] | None = None


def load_snapshot(path: Path) -> Snapshot:
    """Reads G, D and the moving average of G from a file, without executing anything in it.

    Raises:
        UserError: One of the networks is missing.
    """
    content, metadata = read_weights(path)
    try:
        average = build_generator(content, metadata)[0]
        has_trained_weights = any(isinstance(content.get(name), Mapping | StoredNetwork) for name in ("G", "g"))
        generator = build_generator(content, metadata, ema=False)[0] if has_trained_weights else average
        return Snapshot(generator, build_discriminator(content, metadata), average)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def save_snapshot(snapshot: Snapshot, path: Path) -> None:
    """Writes a snapshot.

    Args:
        snapshot: The networks.
        path: The file.

    Raises:
        UserError: A network that NVIDIA's classes cannot represent.
    """
    networks: dict[str, Generator | Discriminator] = {
        "G": snapshot.generator,
        "D": snapshot.discriminator,
        "G_ema": snapshot.generator_ema,
    }
    parts = {name: _network(network) for name, network in networks.items()}
    parts["augment_pipe"] = _pickled(None) if snapshot.augment is None else _augment_pipe(snapshot.augment)
    training_set = None if snapshot.training_set is None else dict(snapshot.training_set)
    parts = {"training_set_kwargs": _pickled(training_set), **parts}
    items = b"".join(_pickled(name) + part for name, part in parts.items())
    path.write_bytes(pickle.PROTO + b"\x03" + pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS + pickle.STOP)


def _network(network: Generator | Discriminator) -> bytes:
    tensors = to_nvidia({key: value.detach().cpu().clone() for key, value in network.state_dict().items()})
    config = network.config
    if config.get("style") == "adain" or config["progressive"]:
        raise UserError("NVIDIA's StyleGAN2 has no networks of the first StyleGAN and none that grow; give --to ours")
    base, most = _channel_arguments(network)
    common: dict[str, Any] = {
        "c_dim": config["c_dim"],
        "img_resolution": config["resolution"],
        "img_channels": config["img_channels"],
    }
    layers: dict[str, Any] = {
        "channel_base": base,
        "channel_max": most,
        "num_fp16_res": 0,
        "conv_clamp": config["conv_clamp"],
    }
    if isinstance(network, Discriminator):
        mbstd = {"mbstd_group_size": config["mbstd_group_size"], "mbstd_num_channels": config["mbstd_features"]}
        mapping = {"num_layers": config["mapping_layers"]}
        arguments = {**common, **layers, "mapping_kwargs": mapping, "epilogue_kwargs": mbstd}
        return _persistent("Discriminator", arguments, tensors)
    mapping = {"num_layers": config["mapping_layers"], "lr_multiplier": config["mapping_lr_multiplier"]}
    sizes = {"z_dim": config["z_dim"], "w_dim": config["w_dim"]}
    arguments = {**common, **sizes, "mapping_kwargs": mapping, "synthesis_kwargs": layers}
    return _persistent("Generator", arguments, tensors)


def _channel_arguments(network: Generator | Discriminator) -> tuple[int, int]:
    """Returns ``channel_base`` and ``channel_max`` of a table of channels."""
    table = network.channels
    base, most = table[network.resolution] * network.resolution, max(table.values())
    if any(count != min(base // resolution, most) for resolution, count in table.items()):
        raise UserError(
            f"has the channels {dict(table)}; NVIDIA's classes have min(channel_base // resolution, channel_max) of "
            "them; give --to nvidia, a state dict"
        )
    return base, most


def _augment_pipe(augment: Mapping[str, float]) -> bytes:
    from torch import tensor

    arguments = {name: value for name, value in augment.items() if name != "p"}
    return _persistent("AugmentPipe", arguments, {"p": tensor(float(augment["p"]))})


def _persistent(kind: str, arguments: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """Returns the instructions that call the function of NVIDIA's persistence for an object."""
    state = {"arguments": dict(arguments), "tensors": dict(tensors)}
    meta = {"type": "class", "version": _VERSION, "module_src": SOURCE, "class_name": kind, "state": state}
    name = b"torch_utils.persistence\n_reconstruct_persistent_obj\n"
    return pickle.GLOBAL + name + _pickled(meta) + pickle.TUPLE1 + pickle.REDUCE


def _pickled(value: Any) -> bytes:
    """Returns the instructions that make a value, without the first and the last one, to be put in a row.

    Protocol 3 has no frames, and refers to earlier objects by numbers that each part sets anew.
    """
    return pickle.dumps(value, protocol=3)[2:-1]
