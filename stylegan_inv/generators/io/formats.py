"""Loading and saving StyleGAN2 networks, and the first StyleGAN's: whatever people have in files -> one network.

Ours is safetensors. Read besides: state dicts in NVIDIA's, rosinality's and InterFaceGAN's layout, alone or inside the
checkpoints of the papers, and NVIDIA's pickles of PyTorch and TensorFlow. See `weight_files` for the files and
`layouts` for the names of keys.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.generators.discriminator import Discriminator
from stylegan_inv.generators.generator import Generator
from stylegan_inv.generators.io.layouts import (
    State,
    average_code,
    describe,
    detect_layout,
    from_nvidia,
    from_rosinality,
    infer_discriminator_config,
    infer_generator_config,
)
from stylegan_inv.generators.io.nvidia_pickle import StoredNetwork
from stylegan_inv.generators.io.stylegan1_layout import from_interfacegan
from stylegan_inv.generators.io.weight_files import file_hash, misfits, read_weights, safetensors_metadata
from stylegan_inv.generators.ops import FILTER_TAPS, dispatch, setup_filter
from stylegan_inv.utils.files import atomic_write
from stylegan_inv.weights.download import TABLE, fetch

log = logging.getLogger(__name__)

Network = TypeVar("Network", Generator, Discriminator)

ASSETS = Path(__file__).resolve().parents[2] / "assets"
GENERATOR_KIND = "stylegan2-generator"
DISCRIMINATOR_KIND = "stylegan2-discriminator"
CHECKPOINT_KIND = "inversion-checkpoint"
"""An encoder with its generator in one file, see `encoders.checkpoints`."""
W_AVG_SAMPLES = 10_000


def embedded_generators() -> list[str]:
    """Names of the generators that travel with the package, for :func:`load_generator`."""
    names = []
    for path in sorted(ASSETS.glob("*.safetensors")):
        with contextlib.suppress(Exception):  # a damaged file is reported when it is asked for
            if safetensors_metadata(path).get("kind") == GENERATOR_KIND:
                names.append(path.stem)
    return names


def locate(source: str | Path, offline: bool | None = None) -> Path:
    """The file that ``source`` names: an embedded asset, an entry of the weights table (downloaded once), or a path.

    Raises:
        UserError: nothing of that name, or a download that failed or is not allowed.
    """
    text = str(source)
    if not text.strip():
        raise UserError("no generator given: pass a file or the name of an embedded one")
    if re.fullmatch(r"[A-Za-z0-9_-]+", text) and (ASSETS / f"{text}.safetensors").is_file():
        return ASSETS / f"{text}.safetensors"
    if text in TABLE:
        return fetch(text, offline=offline)
    path = Path(source).expanduser()
    if path.is_dir():
        raise UserError(f"{path} is a folder: pass the weights file in it")
    if not path.is_file():
        names = ", ".join(embedded_generators()) or "none in this installation"
        known = ", ".join(name for name, entry in TABLE.items() if entry.holds == "generator")
        raise UserError(
            f"no file {path}, and no embedded generator of that name (there are: {names}), nor one to download "
            f"(there are: {known})"
        )
    return path


_NAMES = {
    "generator": ("g_ema", "G_ema", "generator_ema", "params_ema", "generator", "decoder", "g", "G"),
    "raw generator": ("g", "G", "generator"),
    "discriminator": ("d", "D", "discriminator"),
}
# A key that every network of the kind has: what stands before it is a prefix of all keys.
_MARKS = {
    "generator": ("synthesis.b4.const", "input.input", "synthesis.layer0.first_layer"),
    "raw generator": ("synthesis.b4.const", "input.input", "synthesis.layer0.first_layer"),
    "discriminator": ("b4.out.weight", "final_linear.1.weight"),
}


def _unwrap(content: Mapping[str, Any], network: str) -> tuple[State, dict[str, Any]]:
    """One network inside a checkpoint: its state dict, with ``latent_avg`` from beside it, and what else is known."""
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
    sd = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    # Networks inside a larger module: pSp's "decoder.", Lightning's "generator_ema.", DataParallel's "module.".
    prefixes = {key[: -len(mark)] for key in sd for mark in _MARKS[network] if key.endswith(mark)}
    prefixes = {p for p in prefixes if p == "" or p.endswith(".")}
    if prefixes and "" not in prefixes:
        average = network != "raw generator"
        prefix = min(prefixes, key=lambda p: (("ema" in p) != average, len(p), p))
        sd = {key[len(prefix) :]: value for key, value in sd.items() if key.startswith(prefix)}
    if network == "generator" and isinstance(content.get("latent_avg"), Tensor):
        sd = {**sd, "latent_avg": content["latent_avg"]}
    return dict(sd), hints


def _to_project(sd: State, network: str) -> tuple[State, dict[str, Any]]:
    """State dict of any known layout -> the project's layout, and what the layout says about the configuration."""
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
    raise UserError(f"holds {describe(layout, sd)}, expected a StyleGAN2 {network}")


def _metadata_config(metadata: Mapping[str, str], kind: str) -> dict[str, Any] | None:
    key = "config"
    if metadata.get("kind") == CHECKPOINT_KIND and kind == GENERATOR_KIND:
        key = "generator"
    elif metadata.get("kind", kind) != kind:
        raise UserError(f"holds a {ascii(metadata['kind'])[1:-1][:60]}, expected a {kind}")
    if key not in metadata:
        return None
    try:
        config = json.loads(metadata[key])
    except json.JSONDecodeError as error:
        raise UserError(f"its config metadata is not JSON ({error})") from error
    if not isinstance(config, dict):
        raise UserError(f"its config metadata is a {type(config).__name__}, expected an object")
    return config


def _build(factory: Callable[..., Network], config: dict[str, Any], sd: State) -> Network:
    """A network of this configuration that holds these tensors, without drawing (and throwing away) random weights."""
    try:
        with torch.device("meta"):
            network = factory(**config)
    except UserError:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"its config does not fit this version of the project ({error})") from error
    if problems := misfits(network.state_dict(), sd):
        name = "StyleGAN" if config.get("style") == "adain" else "StyleGAN2"
        raise UserError(f"does not fit a {config['resolution']} px {name} {factory.__name__.lower()}: {problems}")
    integers = [key for key, value in sd.items() if not value.is_floating_point()]
    if integers:
        raise UserError(f"{integers[0]} has type {sd[integers[0]].dtype}, expected floating point numbers")
    # Copies: files map tensors to odd addresses, where kernels round differently, and tensors may share memory.
    copies = {key: value.to(torch.float32, copy=True).contiguous() for key, value in sd.items()}
    network.load_state_dict(copies, assign=True)
    for module in network.modules():
        if "resample_filter" in module._buffers:
            module.resample_filter = setup_filter(getattr(module, "filter_taps", FILTER_TAPS))
    return network


@torch.no_grad()
def estimate_w_avg(generator: Generator, samples: int = W_AVG_SAMPLES, seed: int = 0) -> Tensor:
    """Mean of w over random z, ``(w_dim,)``; the same numbers in every run."""
    source = torch.Generator().manual_seed(seed)
    total = torch.zeros(generator.w_dim, dtype=torch.float64)
    for start in range(0, samples, 1000):
        z = torch.randn(min(1000, samples - start), generator.z_dim, generator=source)
        total += generator.mapping.w(z.to(generator.w_avg)).double().sum(dim=0).cpu()
    return (total / samples).to(generator.w_avg)


def build_generator(
    content: Mapping[str, Any], metadata: Mapping[str, str] | None = None, *, ema: bool = True, ops: str | None = None
) -> tuple[Generator, bool]:
    """The generator in the content of a file; see :func:`load_generator`, which reads the file too.

    Args:
        content: from :func:`.read_weights`.
        metadata: likewise.
        ema: the moving average of the weights; False takes the weights as they were trained.
        ops: implementation of the operations; None as the file says, which is "auto" if it says nothing.

    Returns:
        The generator and whether its average code is an estimate.

    Raises:
        UserError: no StyleGAN2 generator in it.
    """
    config = _metadata_config(metadata or {}, GENERATOR_KIND)
    found, hints = _unwrap(content, "generator" if ema else "raw generator")
    sd, layout_hints = _to_project(found, "generator")
    if config is None:
        config = {**infer_generator_config(sd), **layout_hints, **hints}
    if ops is not None:
        config["ops"] = ops
    average = sd.get("mapping.w_avg")
    if average is None:
        sd["mapping.w_avg"] = torch.zeros(config.get("w_dim", 512))
    else:
        sd["mapping.w_avg"] = average_code(average)
    generator = _build(Generator, config, sd)
    if average is None and generator.c_dim == 0:
        generator.w_avg.copy_(estimate_w_avg(generator))
    return generator, average is None


def load_generator(
    source: str | Path,
    *,
    device: str | torch.device = "cpu",
    ema: bool = True,
    offline: bool | None = None,
    ops: str = "auto",
    dtype: str | torch.dtype = "float32",
    recompute: bool | None = None,
) -> Generator:
    """Load a generator, frozen and in evaluation mode. Nothing that a file brings is executed.

    Args:
        source: a file (our ``.safetensors``; NVIDIA's ``.pkl`` of PyTorch or TensorFlow; a state dict in NVIDIA's or
            rosinality's layout, alone or inside a training, pSp, e4e, ReStyle, HyperStyle or GANInverter checkpoint;
            the original StyleGAN in TensorFlow's ``.pkl`` or InterFaceGAN's ``.pth``),
            the name of an embedded generator, or a name of the weights table, which is downloaded once. A bare name
            means one of the latter two; write ``./name`` for a file of the same name.
        device: where to put it.
        ema: the moving average of the weights; False takes the weights as they were trained.
        offline: never use the network; None asks the environment, see :func:`.runtime.weights.fetch`.
        ops: implementation of the operations, "auto", "fast" or "ref", see :mod:`.ops.dispatch`; the environment
            variable ``STYLEGAN_INV_OPS`` takes the place of "auto".
        dtype: "bfloat16" for the large layers on a CPU, see :meth:`.Generator.freeze`.
        recompute: less memory in backward, likewise.

    Returns:
        A generator with ``source_hash`` set to the sha256 of the file. Geometry comes from the file's config if it has
        one, else from the shapes. Files without an average code get one from 10,000 samples; a warning says so.

    Raises:
        UserError: one line about what is wrong with the file.
    """
    dispatch.check(ops)
    precisions = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    precision = precisions.get(dtype) if isinstance(dtype, str) else dtype
    if precision not in precisions.values():
        raise UserError(f"generator.dtype={dtype}: expected one of {', '.join(precisions)}")
    path = locate(source, offline)
    content, metadata = read_weights(path)
    try:
        generator, estimated = build_generator(content, metadata, ema=ema, ops=ops)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if estimated:
        what = "set to zero" if generator.c_dim else f"estimated from {W_AVG_SAMPLES:,} samples"
        log.warning("%s has no average code: %s", path, what)
    generator.source_hash = file_hash(path)
    return generator.to(device).freeze(dtype=precision, recompute=recompute)


def load_discriminator(
    source: str | Path, *, device: str | torch.device = "cpu", offline: bool | None = None
) -> Discriminator:
    """Load a discriminator, to be trained on; files as for :func:`load_generator`.

    Raises:
        UserError: one line about what is wrong with the file.
    """
    path = locate(source, offline)
    content, metadata = read_weights(path)
    try:
        config = _metadata_config(metadata, DISCRIMINATOR_KIND)
        found, hints = _unwrap(content, "discriminator")
        sd, _ = _to_project(found, "discriminator")
        return _build(Discriminator, config or {**infer_discriminator_config(sd), **hints}, sd).to(device)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _save(network: nn.Module, config: Mapping[str, Any], kind: str, path: Path, metadata: Mapping[str, str]) -> None:
    from safetensors.torch import save_file

    reserved = {"kind", "config", "format"} & set(metadata)
    if reserved:
        raise UserError(f"metadata keys {sorted(reserved)} are written by the project itself: choose others")
    bad = [key for key, value in metadata.items() if not (isinstance(key, str) and isinstance(value, str))]
    if bad:
        raise UserError(
            f"metadata must be text, got {type(metadata[bad[0]]).__name__} for {bad[0]!r}: use str() or json.dumps"
        )
    # clone: safetensors refuses tensors that share memory
    sd = {key: value.detach().cpu().contiguous().clone() for key, value in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        save_file(sd, str(temporary), metadata={"format": "pt", "kind": kind, "config": json.dumps(config), **metadata})


def save_generator(generator: Generator, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a generator as safetensors, with its configuration as JSON in the file's metadata.

    Args:
        generator: any; weights are written in their own precision.
        path: file to write, replaced in one step.
        metadata: further text to keep in the file (how it was made). ``kind``, ``config`` and ``format`` are taken.

    Raises:
        UserError: metadata that is not text, or that uses a reserved name.
    """
    _save(generator, generator.config, GENERATOR_KIND, Path(path), metadata or {})


def save_discriminator(
    discriminator: Discriminator, path: str | Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a discriminator; as :func:`save_generator`."""
    _save(discriminator, discriminator.config, DISCRIMINATOR_KIND, Path(path), metadata or {})


def read_metadata(source: str | Path) -> dict[str, str]:
    """Text metadata of a ``.safetensors`` file or embedded asset (``config`` is JSON); empty for other files."""
    path = locate(source)
    with open(path, "rb") as f:
        head = f.read(9)
    return safetensors_metadata(path) if head[8:9] == b"{" else {}
