"""The hypernetworks of HyperStyle's and HyperInverter's checkpoints, and HyperStyle's layout for our own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from stylegan_inv.encoders.backbone import Layers
from stylegan_inv.encoders.irse import ir_se
from stylegan_inv.encoders.official.architecture import infer_encoder
from stylegan_inv.encoders.official.official_checkpoint import OfficialCheckpoint
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.generators.io.layouts import State
from stylegan_inv.generators.io.rosinality_layout import to_rosinality
from stylegan_inv.generators.io.weight_files import misfits, with_counters
from stylegan_inv.hypernetworks.layerwise_encoder import LayerwiseEncoder
from stylegan_inv.hypernetworks.shared_weights import SharedWeightsHypernetwork
from stylegan_inv.hypernetworks.weight_regressors import WeightRegressors

Network = TypeVar("Network", bound=nn.Module)
#: HyperStyle's code registers the shared module once more in each block that uses it.
_ALIAS = re.compile(r"refinement_blocks\.(\d{1,4})\.hypernet\.(w1|b1|w2|b2)")
_SHARED = "shared_weight_hypernet"


def hyperstyle_network(checkpoint: OfficialCheckpoint, generator: Generator) -> SharedWeightsHypernetwork:
    """Builds HyperStyle's hypernetwork.

    Args:
        checkpoint: The checkpoint.
        generator: Generator whose weights it changes.

    Raises:
        UserError: Another network, one for another generator, or shared tensors that differ.
    """
    state = _without_aliases(checkpoint.others["hypernet"])
    numbers = sorted({int(m[1]) for key in state if (m := re.match(r"refinement_blocks\.(\d{1,4})\.", key))})
    if not numbers or "conv1.weight" not in state:
        raise UserError("has a hypernetwork that is not HyperStyle's: expected refinement_blocks over a ResNet")
    geometry = infer_encoder(state)
    from stylegan_inv.encoders.resnet_backbone import resnet34  # torchvision takes seconds to import

    def build() -> SharedWeightsHypernetwork:
        return SharedWeightsHypernetwork(
            generator.synthesis,
            geometry.in_channels,
            layers=numbers,
            separable=any("make_kernel_in" in key for key in state),
            backbone=partial(resnet34, channels=geometry.channels, units=geometry.units),
        )

    return _filled(build, state, f"a hypernetwork of HyperStyle for this generator of {generator.resolution} px")


def hyperinverter_networks(
    checkpoint: OfficialCheckpoint, generator: Generator
) -> tuple[LayerwiseEncoder, WeightRegressors]:
    """Builds HyperInverter's layer-wise encoder and hypernetwork.

    Args:
        checkpoint: The checkpoint.
        generator: Generator whose weights they change.

    Raises:
        UserError: Other networks, or those for another generator.
    """
    expected = f"of HyperInverter for this generator of {generator.resolution} px"
    encoder_state, state = checkpoint.others["w_bar_encoder"], checkpoint.others.get("hypernet", {})
    backbone: Callable[..., Layers] = ir_se
    if "conv1.weight" in encoder_state:
        from stylegan_inv.encoders.resnet_backbone import resnet34  # torchvision takes seconds to import

        backbone = resnet34
    encoder = _filled(
        lambda: LayerwiseEncoder(generator.num_ws, backbone=backbone), encoder_state, f"an encoder {expected}"
    )
    names = {m[1] for key in state if (m := re.match(r"weight_regressors\.(\w+)\.w2$", key))}
    first = f"weight_regressors.{min(names, default='')}"
    keys = ("w2", "fusion.0.weight", "feature_extractor.0.weight")
    if not names or any(f"{first}.{key}" not in state for key in keys):
        raise UserError(f"has no weight_regressors, expected a hypernetwork {expected}")
    hidden, features, inner = (len(state[f"{first}.{key}"]) for key in keys)
    layers = "with_colours" if any("torgb" in name for name in names) else "convolutions"
    layers = "with_affines" if any("affine" in name for name in names) else layers
    network = _filled(
        lambda: WeightRegressors(generator.synthesis, layers=layers, hidden=hidden, features=features, inner=inner),
        state,
        f"a hypernetwork {expected}",
    )
    return encoder, network


def hyperstyle_checkpoint(network: nn.Module, generator: Generator, iterations: int) -> OfficialCheckpoint:
    """Returns a hypernetwork and its generator in the layout of HyperStyle's code, for `checkpoint_writer`.

    Args:
        network: The hypernetwork.
        generator: Its generator.
        iterations: Number of iterations.

    Raises:
        UserError: The hypernetwork has no official counterpart.
    """
    if not isinstance(network, SharedWeightsHypernetwork):
        raise UserError(
            f"has a {type(network).__name__}, which HyperStyle's code does not have; expected one of its "
            "own, as in conf/hypernetwork/hyperstyle"
        )
    state: State = {key: value.detach() for key, value in network.state_dict().items()}
    for layer in network.layers:
        if layer.shape == network.shared_shape:
            for name in ("w1", "b1", "w2", "b2"):
                state[f"refinement_blocks.{layer.number}.hypernet.{name}"] = state[f"{_SHARED}.{name}"]
    separable = any("make_kernel_in" in key for key in state)
    opts: dict[str, Any] = {
        "encoder_type": f"SharedWeightsHyperNetResNet{'Separable' if separable else ''}",
        "layers_to_tune": ",".join(str(layer.number) for layer in network.layers),
        "n_hypernet_outputs": len(generator.synthesis.layer_names()),
        "n_iters_per_batch": iterations,
        "output_size": generator.resolution,
        "load_w_encoder": True,
    }
    latent_avg = generator.w_avg.detach().expand(generator.num_ws, -1).clone()
    decoder = to_rosinality({key: value.detach() for key, value in generator.state_dict().items()})
    return OfficialCheckpoint(
        "hyperstyle", decoder=decoder, latent_avg=latent_avg, opts=opts, others={"hypernet": state}
    )


def file_beside(path: Path, opts: Mapping[str, Any], *keys: str) -> Path | None:
    """Returns the file in the folder of ``path`` whose name one of the options has."""
    for key in keys:
        value = opts.get(key)
        name = value.replace("\\", "/").rpartition("/")[2] if isinstance(value, str) else ""
        file = path.parent / name
        if file.suffix in (".pt", ".pkl", ".safetensors") and file.is_file() and file != path:
            return file
    return None


def domain_of_options(opts: Mapping[str, Any]) -> str | None:
    """Returns the domain of the data set that the options of HyperStyle's and HyperInverter's code name."""
    name = str(opts.get("dataset_type", ""))
    known = {"ffhq": "faces", "celeb": "faces", "cars": "cars", "wild": "wild", "church": "churches"}
    return next((domain for part, domain in known.items() if part in name), None)


def _without_aliases(state: Mapping[str, Tensor]) -> State:
    found = {key: value for key, value in state.items() if not _ALIAS.fullmatch(key)}
    for key, value in state.items():
        if m := _ALIAS.fullmatch(key):
            name = f"{_SHARED}.{m[2]}"
            first = found.setdefault(name, value)
            same = first.data_ptr() == value.data_ptr() and first.shape == value.shape
            if not same and not torch.equal(first, value):
                raise UserError(f"has another {m[2]} in block {m[1]} than in the shared module; expected equal ones")
    return found


def _filled(build: Callable[[], Network], state: Mapping[str, Tensor], expected: str) -> Network:
    with torch.device("meta"):  # a file may claim sizes that it does not have
        network = build()
    own = network.state_dict()
    if problems := misfits(own, state):
        raise UserError(f"expected {expected}: {problems}")
    copies = {key: value.contiguous() for key, value in with_counters(own, state).items()}
    network.load_state_dict(copies, assign=True)
    return network.eval()
