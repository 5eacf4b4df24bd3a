"""Builds networks from the content of files: finds the network, converts its layout and infers its configuration."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators.adain import AdaINLayer
from stylegan_inv.generators.discriminator import Discriminator
from stylegan_inv.generators.generator import Generator
from stylegan_inv.generators.io.config_schema import check_config, parse_metadata
from stylegan_inv.generators.io.layouts import State, average_code, describe, detect_layout, from_nvidia, stored_average
from stylegan_inv.generators.io.network_geometry import infer_discriminator_config, infer_generator_config
from stylegan_inv.generators.io.nvidia_pickle import StoredNetwork
from stylegan_inv.generators.io.rosinality_layout import from_rosinality
from stylegan_inv.generators.io.stylegan1_layout import from_interfacegan
from stylegan_inv.generators.io.weight_files import misfits, plain_names
from stylegan_inv.generators.ops import FILTER_TAPS, setup_filter

log = logging.getLogger(__name__)
Network = TypeVar("Network", Generator, Discriminator)
#: Seed of the noise maps of files that have none.
NOISE_SEED = 0

GENERATOR_KIND = "stylegan2-generator"
DISCRIMINATOR_KIND = "stylegan2-discriminator"
#: An encoder with its generator in one file, see `encoders.official`.
CHECKPOINT_KIND = "inversion-checkpoint"

_OTHER_FILE = "give a file with D, or train a new one with discriminator=new"
_NAMES = {
    "generator": ("g_ema", "G_ema", "generator_ema", "params_ema", "generator", "decoder", "g", "G"),
    "raw generator": ("g", "G", "generator"),
    "discriminator": ("d", "D", "discriminator"),
}
# A key that every network of the kind has. What precedes it is a prefix of all keys.
_MARKS = {
    "generator": ("synthesis.b4.const", "input.input", "synthesis.layer0.first_layer"),
    "raw generator": ("synthesis.b4.const", "input.input", "synthesis.layer0.first_layer"),
    "discriminator": ("b4.out.weight", "final_linear.1.weight"),
}


def build_generator(
    content: Mapping[str, Any], metadata: Mapping[str, str] | None = None, *, ema: bool = True, ops: str | None = None
) -> tuple[Generator, bool]:
    """Builds the generator in the content of a file; see :func:`.load_generator`, which also reads the file.

    Args:
        content: Content of the file, from :func:`.read_weights`.
        metadata: Metadata of the file, likewise.
        ema: Use the moving average of the weights; False uses the trained weights.
        ops: Implementation of the operations; None takes that of the file, by default ``"auto"``.

    Returns:
        The generator, and whether its latent average is an estimate.

    Raises:
        UserError: The file contains no StyleGAN2 generator.
    """
    if not ema:
        _check_contains(content, "raw generator", "no trained weights (G); give generator.ema=true for their average")
    config = _metadata_config(metadata or {}, GENERATOR_KIND)
    found, hints = _unwrap(content, "generator" if ema else "raw generator")
    sd, layout_hints = _to_project(found, "generator")
    if config is None:
        config = {**infer_generator_config(sd), **layout_hints, **hints}
    if ops is not None:
        config["ops"] = ops
    check_config(config)
    average = sd.get("mapping.w_avg")
    if average is None:
        sd["mapping.w_avg"] = torch.zeros(config.get("w_dim", 512))
    else:
        sd["mapping.w_avg"] = average_code(average)
    generator = _build(Generator, config, sd)
    generator.set_class(None)
    if average is None:
        generator.w_avg.copy_(generator.mapping.mean_w())
    return generator, average is None


def build_discriminator(content: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> Discriminator:
    """Builds the discriminator in the content of a file.

    Args:
        content: Content of the file, from :func:`.read_weights`.
        metadata: Metadata of the file, likewise.

    Raises:
        UserError: The file contains no StyleGAN2 discriminator.
    """
    _check_contains(content, "discriminator", f"no discriminator (D); {_OTHER_FILE}")
    if (metadata or {}).get("kind") in (GENERATOR_KIND, CHECKPOINT_KIND):
        raise UserError(f"contains a generator and no discriminator (D); {_OTHER_FILE}")
    config = _metadata_config(metadata or {}, DISCRIMINATOR_KIND)
    found, hints = _unwrap(content, "discriminator")
    sd, _ = _to_project(found, "discriminator")
    return _build(Discriminator, config or {**infer_discriminator_config(sd), **hints}, sd)


@torch.no_grad()
def _unwrap(content: Mapping[str, Any], network: str) -> tuple[State, dict[str, Any]]:
    """Returns the state dict of a network in a checkpoint, with ``latent_avg``, and known arguments of its class."""
    found: Any = content
    for name in _NAMES[network]:
        if isinstance(content.get(name), (Mapping, StoredNetwork)):
            found = content[name]
            break
    else:
        if isinstance(content.get("state_dict"), Mapping):
            found = content["state_dict"]
    hints: dict[str, Any] = {}
    if isinstance(found, StoredNetwork):
        found, hints = found.state, found.hints
    sd = plain_names({str(key): value for key, value in found.items() if isinstance(value, Tensor)})
    # Prefixes of a larger module: pSp's "decoder.", Lightning's "generator_ema.".
    prefixes = {key[: -len(mark)] for key in sd for mark in _MARKS[network] if key.endswith(mark)}
    prefixes = {p for p in prefixes if p == "" or p.endswith(".")}
    if prefixes and "" not in prefixes:
        average = network != "raw generator"
        prefix = min(prefixes, key=lambda p: (("ema" in p) != average, len(p), p))
        sd = {key[len(prefix) :]: value for key, value in sd.items() if key.startswith(prefix)}
    if network == "generator" and (average_of_file := stored_average(content)) is not None:
        sd = {**sd, "latent_avg": average_of_file}
    return dict(sd), hints


def _check_contains(content: Mapping[str, Any], network: str, otherwise: str) -> None:
    """Raises a UserError if a file of networks does not contain this one."""
    networks = [name for name, value in content.items() if isinstance(value, StoredNetwork)]
    if networks and not any(name in networks for name in _NAMES[network]):
        raise UserError(f"contains {', '.join(networks)} and {otherwise}")


def _to_project(sd: State, network: str) -> tuple[State, dict[str, Any]]:
    """Converts any known layout to the project's; also returns the arguments that follow from the layout."""
    layout = detect_layout(sd)
    if layout == f"nvidia {network}":
        average = sd.pop("latent_avg", None)
        sd = from_nvidia(sd)
        if average is not None:
            sd.setdefault("mapping.w_avg", average)
        return sd, {"demod_eps_scaled": False} if network == "generator" else {}
    if layout == f"rosinality {network}":
        return from_rosinality(sd), {}
    if layout == f"interfacegan {network}":
        return from_interfacegan(sd), {}
    if layout == f"stylegan {network}":
        return sd, {}
    raise UserError(f"contains {describe(layout, sd)}, expected a StyleGAN2 {network}")


def _metadata_config(metadata: Mapping[str, str], kind: str) -> dict[str, Any] | None:
    key = "config"
    if metadata.get("kind") == CHECKPOINT_KIND and kind == GENERATOR_KIND:
        key = "generator"
    elif metadata.get("kind", kind) != kind:
        raise UserError(f"contains a {ascii(metadata['kind'])[1:-1][:60]}, expected a {kind}")
    if key not in metadata:
        return None
    return parse_metadata(metadata[key], "config")


def _build(factory: Callable[..., Network], config: dict[str, Any], sd: State) -> Network:
    """Builds a network of this configuration from these tensors, without the initialisation of random weights."""
    check_config(config)
    try:
        with torch.device("meta"):
            network = factory(**config)
    except UserError:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"its config is not valid in this version of the project ({error})") from error
    expected = network.state_dict()
    noise = [key for key in expected if key.endswith(".noise_const")]
    if any(key in sd for key in noise):
        noise = []
    if problems := misfits({key: value for key, value in expected.items() if key not in noise}, sd):
        name = "StyleGAN" if config.get("style") == "adain" else "StyleGAN2"
        raise UserError(f"does not fit a {config['resolution']} px {name} {factory.__name__.lower()}: {problems}")
    # Copies, because tensors of files may be unaligned, where kernels round differently, and may share memory.
    copies = {key: value.to(torch.float32, copy=True).contiguous() for key, value in sd.items()}
    copies |= _noise_maps({key: tuple(expected[key].shape) for key in noise})
    network.load_state_dict(copies, assign=True)
    for module in network.modules():
        if "resample_filter" in dict(module.named_buffers(recurse=False)):  # still on the meta device
            taps = module.filter_taps if isinstance(module, AdaINLayer) else FILTER_TAPS
            module.register_buffer("resample_filter", setup_filter(taps), persistent=False)
    return network


def _noise_maps(shapes: Mapping[str, tuple[int, ...]]) -> State:
    """Returns random noise maps, always the same, for a file that has none.

    They are not learned: the official codes draw them when they build the network.
    """
    if shapes:
        log.warning("the file has no noise maps: draws them from the seed %d", NOISE_SEED)
    rng = torch.Generator().manual_seed(NOISE_SEED)
    return {key: torch.randn(shape, generator=rng) for key, shape in shapes.items()}
