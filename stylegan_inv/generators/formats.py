"""Reading and writing StyleGAN2 weights: our safetensors, NVIDIA's and rosinality's state dicts.

The one layout inside the project is NVIDIA's (https://github.com/NVlabs/stylegan2-ada-pytorch, d72cc7d) without its
FIR filter buffers, which are constants. rosinality's (https://github.com/rosinality/stylegan2-pytorch, bef283a) holds
the same numbers under other names, with an extra leading axis on the weights of the modulated convolutions and filters
that include the upsampling gain of 4; no weight is flipped. The geometry of a network is read off the shapes.

Nothing here executes what a file contains: pickles are read with ``weights_only=True``.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.generators.ops import setup_filter
from stylegan_inv.generators.stylegan2 import FILTER_TAPS, Discriminator, Generator, resolutions

State = dict[str, Tensor]
Network = TypeVar("Network", Generator, Discriminator)

ASSETS = Path(__file__).resolve().parent.parent / "assets"
GENERATOR_KIND = "stylegan2-generator"
DISCRIMINATOR_KIND = "stylegan2-discriminator"
W_AVG_SAMPLES = 10_000

# First bytes of a file that torch.save wrote in its old, non-zip format: the pickled number 0x1950a86a20f9469cfc6c.
_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


# ---------------------------------------------------------------------------------------------------------------------
# rosinality <-> NVIDIA


def _filter2d() -> Tensor:
    f = setup_filter(FILTER_TAPS)
    return torch.outer(f, f)


def _check_filter(key: str, value: Tensor, gain: float) -> None:
    if tuple(value.shape) != (4, 4) or not torch.allclose(value.float().cpu(), _filter2d() * gain, atol=1e-4):
        raise UserError(
            f"{key} is not the [1, 3, 3, 1] filter of StyleGAN2: this network was trained with another one, "
            f"which is not supported"
        )


def _unknown_keys(keys: Iterable[str], layout: str) -> UserError:
    return UserError(f"{_keys('key', list(keys))} not part of {layout}: is this a StyleGAN2 network (skip / resnet)?")


def _keys(noun: str, keys: list[str], limit: int = 3) -> str:
    shown = ", ".join(keys[:limit]) + (", ..." if len(keys) > limit else "")
    return f"{len(keys)} {noun}{'' if len(keys) == 1 else 's'} ({shown})"


def _drop_axes(key: str, value: Tensor, axes: int) -> Tensor:
    """``value`` without its first axes, each of which must have length 1."""
    if tuple(value.shape[:axes]) != (1,) * axes:
        raise UserError(f"{key} has shape {tuple(value.shape)}, expected it to begin with {(1,) * max(axes, 1)}")
    return value.reshape(value.shape[axes:])


def _noise_layer(position: int) -> str:
    """The layer of rosinality's noise map number ``position``; ``convs.n`` is the layer of map ``n + 1``."""
    if position == 0:
        return "synthesis.b4.conv1"
    return f"synthesis.b{8 << ((position - 1) // 2)}.conv{(position - 1) % 2}"


def _generator_layer(prefix: str) -> str:
    """``convs.3`` -> ``synthesis.b16.conv1``, ``to_rgb1`` -> ``synthesis.b4.torgb``."""
    if prefix == "conv1":
        return _noise_layer(0)
    if prefix == "to_rgb1":
        return "synthesis.b4.torgb"
    group, number = prefix.split(".")
    return _noise_layer(int(number) + 1) if group == "convs" else f"synthesis.b{8 << int(number)}.torgb"


def _rosinality_generator(sd: Mapping[str, Tensor]) -> State:
    out: State = {}
    unknown = []
    for key, value in sd.items():
        if match := re.fullmatch(r"style\.(\d+)\.(weight|bias)", key):
            out[f"mapping.fc{int(match[1]) - 1}.{match[2]}"] = value
        elif key == "latent_avg":
            out["mapping.w_avg"] = value if value.ndim == 1 else value.reshape(-1, value.shape[-1]).mean(dim=0)
        elif key == "input.input":
            out["synthesis.b4.const"] = _drop_axes(key, value, 1)
        elif match := re.fullmatch(r"noises\.noise_(\d+)", key):
            out[f"{_noise_layer(int(match[1]))}.noise_const"] = _drop_axes(key, value, 2)
        elif match := re.fullmatch(
            r"(conv1|convs\.\d+|to_rgb1|to_rgbs\.\d+)"
            r"\.(conv\.weight|conv\.modulation\.weight|conv\.modulation\.bias|noise\.weight|activate\.bias|bias|"
            r"conv\.blur\.kernel|upsample\.kernel)",
            key,
        ):
            layer = _generator_layer(match[1])
            leaf = match[2]
            if leaf.endswith("kernel"):
                _check_filter(key, value, 4.0)
            elif leaf == "conv.weight":
                out[f"{layer}.weight"] = _drop_axes(key, value, 1)
            elif leaf.startswith("conv.modulation."):
                out[f"{layer}.affine.{leaf.rsplit('.', 1)[1]}"] = value
            elif leaf == "noise.weight":
                out[f"{layer}.noise_strength"] = _drop_axes(key, value, value.ndim)
            else:
                out[f"{layer}.bias"] = value.reshape(-1)
        else:
            unknown.append(key)
    if unknown:
        raise _unknown_keys(unknown, "rosinality's generator")
    return out


def _to_rosinality_generator(sd: Mapping[str, Tensor]) -> State:
    out: State = {}
    unknown = []
    kernel = _filter2d() * 4
    for key, value in sd.items():
        if key == "mapping.w_avg":
            continue
        if match := re.fullmatch(r"mapping\.fc(\d+)\.(weight|bias)", key):
            out[f"style.{int(match[1]) + 1}.{match[2]}"] = value
        elif key == "synthesis.b4.const":
            out["input.input"] = value[None]
        elif match := re.fullmatch(r"synthesis\.b(\d+)\.(conv0|conv1|torgb)\.(.+)", key):
            stage = int(match[1]).bit_length() - 4  # 8 px is stage 0, 4 px is -1
            layer, leaf = match[2], match[3]
            if layer == "torgb":
                prefix = "to_rgb1" if stage < 0 else f"to_rgbs.{stage}"
            else:
                prefix = "conv1" if stage < 0 else f"convs.{2 * stage + int(layer[-1])}"
            if leaf == "weight":
                out[f"{prefix}.conv.weight"] = value[None]
            elif leaf in ("affine.weight", "affine.bias"):
                out[f"{prefix}.conv.modulation.{leaf[7:]}"] = value
            elif leaf == "bias" and layer == "torgb":
                out[f"{prefix}.bias"] = value.reshape(1, -1, 1, 1)
                if stage >= 0:
                    out[f"{prefix}.upsample.kernel"] = kernel.clone()
            elif leaf == "bias":
                out[f"{prefix}.activate.bias"] = value
                if layer == "conv0":
                    out[f"{prefix}.conv.blur.kernel"] = kernel.clone()
            elif leaf == "noise_strength":
                out[f"{prefix}.noise.weight"] = value.reshape(1)
            elif leaf == "noise_const":
                position = 0 if stage < 0 else 2 * stage + 1 + int(layer[-1])
                out[f"noises.noise_{position}"] = value[None, None]
            else:
                unknown.append(key)
        else:
            unknown.append(key)
    if unknown:
        raise UserError(f"rosinality's generator has no place for {_keys('key', unknown)} (a conditional network?)")
    return out


def _rosinality_discriminator(sd: Mapping[str, Tensor]) -> State:
    numbers = [int(m[1]) for key in sd if (m := re.match(r"convs\.(\d+)\.", key))]
    size = 4 << max(numbers, default=0)
    names = {
        "convs.0.0.weight": f"b{size}.fromrgb.weight",
        "convs.0.1.bias": f"b{size}.fromrgb.bias",
        "final_conv.0.weight": "b4.conv.weight",
        "final_conv.1.bias": "b4.conv.bias",
        "final_linear.0.weight": "b4.fc.weight",
        "final_linear.0.bias": "b4.fc.bias",
        "final_linear.1.weight": "b4.out.weight",
        "final_linear.1.bias": "b4.out.bias",
    }
    leaves = {
        "conv1.0.weight": "conv0.weight",
        "conv1.1.bias": "conv0.bias",
        "conv2.1.weight": "conv1.weight",
        "conv2.2.bias": "conv1.bias",
        "skip.1.weight": "skip.weight",
    }
    out: State = {}
    unknown = []
    for key, value in sd.items():
        match = re.fullmatch(r"convs\.(\d+)\.(.+)", key)
        if key in names:
            out[names[key]] = value
        elif match and match[2] in leaves and int(match[1]) > 0:
            out[f"b{size >> (int(match[1]) - 1)}.{leaves[match[2]]}"] = value
        elif match and match[2] in ("conv2.0.kernel", "skip.0.kernel"):
            _check_filter(key, value, 1.0)
        else:
            unknown.append(key)
    if unknown:
        raise _unknown_keys(unknown, "rosinality's discriminator")
    return out


def _to_rosinality_discriminator(sd: Mapping[str, Tensor]) -> State:
    size = max(int(m[1]) for key in sd if (m := re.match(r"b(\d+)\.", key)))
    leaves = {
        "conv0.weight": "conv1.0.weight",
        "conv0.bias": "conv1.1.bias",
        "conv1.weight": "conv2.1.weight",
        "conv1.bias": "conv2.2.bias",
        "skip.weight": "skip.1.weight",
    }
    ends = {
        "conv.weight": "final_conv.0.weight",
        "conv.bias": "final_conv.1.bias",
        "fc.weight": "final_linear.0.weight",
        "fc.bias": "final_linear.0.bias",
        "out.weight": "final_linear.1.weight",
        "out.bias": "final_linear.1.bias",
    }
    out: State = {}
    unknown = []
    for key, value in sd.items():
        match = re.fullmatch(r"b(\d+)\.(.+)", key)
        leaf = match[2] if match else ""
        if match and leaf in ("fromrgb.weight", "fromrgb.bias") and int(match[1]) == size:
            out["convs.0.0.weight" if leaf.endswith("weight") else "convs.0.1.bias"] = value
        elif match and match[1] == "4" and leaf in ends:
            out[ends[leaf]] = value
        elif match and leaf in leaves:
            number = (size // int(match[1])).bit_length()
            out[f"convs.{number}.{leaves[leaf]}"] = value
            if leaf == "conv1.weight":
                out[f"convs.{number}.conv2.0.kernel"] = _filter2d()
            elif leaf == "skip.weight":
                out[f"convs.{number}.skip.0.kernel"] = _filter2d()
        else:
            unknown.append(key)
    if unknown:
        raise UserError(f"rosinality's discriminator has no place for {_keys('key', unknown)} (a conditional network?)")
    return out


def from_rosinality(sd: Mapping[str, Tensor]) -> State:
    """Rename a rosinality generator or discriminator to the project's layout; values are shared, not copied.

    Args:
        sd: the state dict of one network. A ``latent_avg`` beside a generator's keys becomes ``mapping.w_avg``
            (rows of a per-layer average are averaged); without it that key is missing from the result.

    Raises:
        UserError: keys that belong to neither network, or another resampling filter than [1, 3, 3, 1].
    """
    layout = detect_layout(sd)
    if layout == "rosinality generator":
        return _rosinality_generator(sd)
    if layout == "rosinality discriminator":
        return _rosinality_discriminator(sd)
    raise UserError(f"expected a rosinality state dict, got {_describe(layout, sd)}")


def to_rosinality(sd: Mapping[str, Tensor]) -> State:
    """Rename a generator or discriminator to rosinality's layout, filters included.

    rosinality's generator has no place for ``mapping.w_avg``: it is left out, and belongs into the file beside the
    network, ``{"g_ema": to_rosinality(sd), "latent_avg": sd["mapping.w_avg"]}``.

    Raises:
        UserError: a conditional network, or another layout.
    """
    layout = detect_layout(sd)
    if layout == "nvidia generator":
        return _to_rosinality_generator(from_nvidia(sd))
    if layout == "nvidia discriminator":
        return _to_rosinality_discriminator(from_nvidia(sd))
    raise UserError(f"expected a state dict in NVIDIA's layout, got {_describe(layout, sd)}")


def from_nvidia(sd: Mapping[str, Tensor]) -> State:
    """NVIDIA's state dict to the project's: check the filter buffers and drop them.

    Raises:
        UserError: another resampling filter than [1, 3, 3, 1].
    """
    out: State = {}
    for key, value in sd.items():
        if key.endswith("resample_filter"):
            _check_filter(key, value, 1.0)
        else:
            out[key] = value
    return out


def to_nvidia(sd: Mapping[str, Tensor]) -> State:
    """The project's state dict to NVIDIA's, i.e. with the filter buffers that their modules expect."""
    out = from_nvidia(sd)
    for key in list(out):
        if match := re.fullmatch(r"(synthesis\.b\d+)\.torgb\.weight", key):
            out[f"{match[1]}.resample_filter"] = _filter2d()
        elif match := re.fullmatch(r"(synthesis\.b\d+\.conv[01])\.weight", key):
            out[f"{match[1]}.resample_filter"] = _filter2d()
        elif match := re.fullmatch(r"(b\d+)\.(fromrgb|conv0|conv1|skip|conv)\.weight", key):
            out[f"{match[1]}.{match[2]}.resample_filter"] = _filter2d()
            if match[2] == "skip":
                out[f"{match[1]}.resample_filter"] = _filter2d()
    return out


def detect_layout(sd: Mapping[str, Any]) -> str | None:
    """``"nvidia generator"``, ``"rosinality generator"``, the same for discriminators, or None."""
    for layout, pattern in (
        ("nvidia generator", r"synthesis\.b\d+\.(conv[01]|torgb|const)"),
        ("rosinality generator", r"(conv1|convs\.\d+|to_rgb1|to_rgbs\.\d+)\.conv\.(weight|modulation\.)"),
        ("rosinality discriminator", r"convs\.\d+\.(conv1|conv2|skip)\.\d+\.|final_linear\.\d+\."),
        ("nvidia discriminator", r"b\d+\.(fromrgb|conv0|conv1|skip|conv|fc|out)\."),
    ):
        if any(re.match(pattern, str(key)) for key in sd):
            return layout
    return None


def _describe(layout: str | None, sd: Mapping[str, Any]) -> str:
    if layout is not None:
        name, network = layout.split()
        return f"a {network} in {'NVIDIA' if name == 'nvidia' else name}'s layout"
    return f"{_keys('unknown entry', [str(k) for k in sd])}".replace("entrys", "entries")


# ---------------------------------------------------------------------------------------------------------------------
# Geometry


def _shape(sd: Mapping[str, Tensor], key: str, ndim: int) -> tuple[int, ...]:
    if key not in sd:
        raise UserError(f"missing key {key}")
    shape = tuple(sd[key].shape)
    if len(shape) != ndim:
        raise UserError(f"{key} has shape {shape}, expected {ndim} axes")
    return shape


def infer_generator_config(sd: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of :class:`.Generator` from a state dict in the project's layout.

    What the shapes do not tell keeps its default: ``conv_clamp`` None, ``mapping_lr_multiplier`` 0.01.

    Raises:
        UserError: keys that carry the geometry are missing or have the wrong number of axes.
    """
    sizes = {int(m[1]) for key in sd if (m := re.match(r"synthesis\.b(\d+)\.", key))}
    resolution = max(sizes, default=0)
    channels = {r: _shape(sd, f"synthesis.b{r}.conv1.weight", 4)[0] for r in resolutions(resolution)}
    img_channels = _shape(sd, "synthesis.b4.torgb.weight", 4)[0]
    w_dim = _shape(sd, "synthesis.b4.torgb.affine.weight", 2)[1]
    depth = len({m[1] for key in sd if (m := re.match(r"mapping\.fc(\d+)\.", key))})
    inputs = _shape(sd, "mapping.fc0.weight", 2)[1]
    c_dim = _shape(sd, "mapping.embed.weight", 2)[1] if "mapping.embed.weight" in sd else 0
    return {
        "resolution": resolution,
        "z_dim": inputs - (w_dim if c_dim else 0),
        "w_dim": w_dim,
        "mapping_layers": depth,
        "channels": channels,
        "c_dim": c_dim,
        "img_channels": img_channels,
    }


def infer_discriminator_config(sd: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of :class:`.Discriminator` from a state dict in the project's layout.

    The group size of the minibatch standard deviation keeps its default, 4.

    Raises:
        UserError: keys that carry the geometry are missing or have the wrong number of axes.
    """
    resolution = max((int(m[1]) for key in sd if (m := re.match(r"b(\d+)\.", key))), default=0)
    channels = {r: _shape(sd, f"b{r}.conv0.weight", 4)[0] for r in resolutions(resolution)[1:]}
    channels[4], last = _shape(sd, "b4.conv.weight", 4)[:2]
    config: dict[str, Any] = {
        "resolution": resolution,
        "channels": channels,
        "c_dim": _shape(sd, "mapping.embed.weight", 2)[1] if "mapping.embed.weight" in sd else 0,
        "img_channels": _shape(sd, f"b{resolution}.fromrgb.weight", 4)[1],
        "mbstd_features": last - channels[4],
    }
    if config["c_dim"]:
        config["mapping_layers"] = len({m[1] for key in sd if (m := re.match(r"mapping\.fc(\d+)\.", key))})
    return config


# ---------------------------------------------------------------------------------------------------------------------
# Files


def file_hash(path: str | Path) -> str:
    """sha256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _safetensors_metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as f:
        return f.metadata() or {}


def embedded_generators() -> list[str]:
    """Names of the generators that travel with the package, for :func:`load_generator`."""
    names = []
    for path in sorted(ASSETS.glob("*.safetensors")):
        with contextlib.suppress(Exception):  # a damaged file is reported when it is asked for
            if _safetensors_metadata(path).get("kind") == GENERATOR_KIND:
                names.append(path.stem)
    return names


def _locate(source: str | Path) -> Path:
    """The file that ``source`` names: an embedded asset (a bare name) or a path."""
    text = str(source)
    if not text.strip():
        raise UserError("no generator given: pass a file or the name of an embedded one")
    if re.fullmatch(r"[A-Za-z0-9_-]+", text) and (ASSETS / f"{text}.safetensors").is_file():
        return ASSETS / f"{text}.safetensors"
    path = Path(source).expanduser()
    if path.is_dir():
        raise UserError(f"{path} is a folder: pass the weights file in it")
    if not path.is_file():
        names = ", ".join(embedded_generators()) or "none in this installation"
        raise UserError(f"no file {path}, and no embedded generator of that name (there are: {names})")
    return path


def _read_torch(path: Path) -> Any:
    """``torch.load`` of tensors, containers and ``argparse.Namespace`` (training options) only."""
    allowed: list[Any] = [argparse.Namespace]
    if hasattr(torch.serialization, "safe_globals"):
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    before = torch.serialization.get_safe_globals()  # torch 2.4
    torch.serialization.add_safe_globals(allowed)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def read_weights(path: str | Path) -> tuple[Mapping[str, Any], dict[str, str]]:
    """Content of a ``.safetensors`` or PyTorch file (told apart by what is in it) and its text metadata.

    Raises:
        UserError: the file is empty, truncated, a web page, a pickle of objects, or something else.
    """
    path = Path(path)
    size = path.stat().st_size
    if size == 0:
        raise UserError(f"{path} is empty (0 bytes): the download failed, fetch it again")
    with open(path, "rb") as f:
        head = f.read(256)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise UserError(
            f"{path} is a web page, not weights: the server answered with a login, quota or error page; open the link "
            f"in a browser and save the file itself"
        )
    if text.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a Git LFS pointer, not weights: run `git lfs pull` where it came from")
    if head[:4] == b"PK\x03\x04" or head.startswith(_LEGACY_TORCH):
        try:
            content = _read_torch(path)
        except pickle.UnpicklingError as error:
            found = re.search(r"GLOBAL ([\w.]+)", str(error))
            what = f"the class {found[1]}" if found else "objects that are not tensors"
            raise UserError(
                f"{path} holds {what}, which loading could execute: refused; save the state dict alone, "
                f"torch.save(network.state_dict(), ...)"
            ) from error
        except Exception as error:  # torch reports damage as RuntimeError, EOFError, KeyError, ...
            raise UserError(f"{path} is damaged or incomplete ({size} bytes): download or copy it again") from error
        if isinstance(content, nn.Module) or not isinstance(content, Mapping):
            raise UserError(f"{path} holds a {type(content).__name__}, expected a state dict")
        return content, {}
    if head[:1] == b"\x80":
        raise UserError(
            f"{path} is a pickle of objects (NVIDIA's .pkl?), a format that is not supported yet: in NVIDIA's "
            f"repository run torch.save(pickle.load(open('{path.name}', 'rb'))['G_ema'].state_dict(), 'generator.pt') "
            f"and load generator.pt"
        )
    length = int.from_bytes(head[:8], "little")
    if len(head) > 8 and head[8:9] == b"{" and length < 100_000_000:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(str(path)), _safetensors_metadata(path)
        except SafetensorError as error:
            raise UserError(f"{path} is damaged or incomplete ({size} bytes): download or copy it again") from error
    raise UserError(f"{path} is not a weights file: expected .safetensors or a file written by torch.save")


_ENVELOPES = {
    "generator": ("g_ema", "G_ema", "generator_ema", "params_ema", "generator", "g", "G"),
    "discriminator": ("d", "D", "discriminator"),
}


def _unwrap(content: Mapping[str, Any], network: str) -> State:
    """The state dict of one network inside a checkpoint, with ``latent_avg`` from beside it."""
    sd: Mapping[str, Any] = content
    for name in _ENVELOPES[network]:
        if isinstance(content.get(name), Mapping):
            sd = content[name]
            break
    else:
        if isinstance(content.get("state_dict"), Mapping):
            sd = content["state_dict"]
    sd = {str(key): value for key, value in sd.items() if isinstance(value, Tensor)}
    # Networks inside a larger module (pSp: "decoder.", Lightning: "generator_ema.", DataParallel: "module."): the
    # prefix is what stands before a key that every such network has.
    marks = {
        "generator": ("synthesis.b4.const", "input.input"),
        "discriminator": ("b4.out.weight", "final_linear.1.weight"),
    }[network]
    prefixes = {key[: -len(mark)] for key in sd for mark in marks if key.endswith(mark)}
    prefixes = {p for p in prefixes if p == "" or p.endswith(".")}
    if prefixes and "" not in prefixes:
        prefix = min(prefixes, key=lambda p: ("ema" not in p, len(p), p))
        sd = {key[len(prefix) :]: value for key, value in sd.items() if key.startswith(prefix)}
    if network == "generator" and isinstance(content.get("latent_avg"), Tensor):
        sd = {**sd, "latent_avg": content["latent_avg"]}
    return dict(sd)


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
    raise UserError(f"holds {_describe(layout, sd)}, expected a StyleGAN2 {network}")


def _metadata_config(metadata: Mapping[str, str], kind: str) -> dict[str, Any] | None:
    if metadata.get("kind", kind) != kind:
        raise UserError(f"holds a {metadata['kind']}, expected a {kind}")
    if "config" not in metadata:
        return None
    try:
        config = json.loads(metadata["config"])
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
    expected = network.state_dict()
    missing = [key for key in expected if key not in sd]
    surplus = [key for key in sd if key not in expected]
    wrong = [
        f"{key} is {tuple(sd[key].shape)}, expected {tuple(value.shape)}"
        for key, value in expected.items()
        if key in sd and sd[key].shape != value.shape
    ]
    problems = [_keys("missing key", missing)] if missing else []
    problems += [_keys("unexpected key", surplus)] if surplus else []
    if wrong:
        problems.append(f"{len(wrong)} wrong shape{'s' if len(wrong) > 1 else ''} ({'; '.join(wrong[:2])})")
    if problems:
        raise UserError(
            f"does not fit a {config['resolution']} px StyleGAN2 {factory.__name__.lower()}: " + "; ".join(problems)
        )
    integers = [key for key, value in sd.items() if not value.is_floating_point()]
    if integers:
        raise UserError(f"{integers[0]} has type {sd[integers[0]].dtype}, expected floating point numbers")
    network.load_state_dict({key: value.float() for key, value in sd.items()}, assign=True)
    for module in network.modules():
        if "resample_filter" in module._buffers:
            module.resample_filter = setup_filter(FILTER_TAPS)
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


def load_generator(source: str | Path, *, device: str | torch.device = "cpu") -> Generator:
    """Load a generator, frozen and in evaluation mode.

    Args:
        source: a file (our ``.safetensors``; a state dict in NVIDIA's or rosinality's layout as ``.pt`` or
            ``.safetensors``, alone or inside a training, pSp, e4e or ReStyle checkpoint), or the name of an embedded
            generator. A bare name means the embedded one; write ``./name`` for a file of the same name.
        device: where to put it.

    Returns:
        A generator with ``source_hash`` set to the sha256 of the file. Geometry comes from the file's config if it has
        one, else from the shapes. rosinality files without ``latent_avg`` get ``w_avg`` from 10,000 samples.

    Raises:
        UserError: one line about what is wrong with the file.
    """
    path = _locate(source)
    content, metadata = read_weights(path)
    try:
        config = _metadata_config(metadata, GENERATOR_KIND)
        sd, hints = _to_project(_unwrap(content, "generator"), "generator")
        if config is None:
            config = {**infer_generator_config(sd), **hints}
        w_dim = config.get("w_dim", 512)
        average = sd.get("mapping.w_avg")
        if average is None:
            sd["mapping.w_avg"] = torch.zeros(w_dim)
        elif average.ndim == 2:
            sd["mapping.w_avg"] = average.mean(dim=0)
        generator = _build(Generator, config, sd)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if average is None and generator.c_dim == 0:
        generator.w_avg.copy_(estimate_w_avg(generator))
    generator.source_hash = file_hash(path)
    return generator.to(device).freeze()


def load_discriminator(source: str | Path, *, device: str | torch.device = "cpu") -> Discriminator:
    """Load a discriminator, to be trained on; files as for :func:`load_generator`.

    Raises:
        UserError: one line about what is wrong with the file.
    """
    path = _locate(source)
    content, metadata = read_weights(path)
    try:
        config = _metadata_config(metadata, DISCRIMINATOR_KIND)
        sd, _ = _to_project(_unwrap(content, "discriminator"), "discriminator")
        return _build(Discriminator, config or infer_discriminator_config(sd), sd).to(device)
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # a reader never sees half a file
    try:
        save_file(sd, str(temporary), metadata={"format": "pt", "kind": kind, "config": json.dumps(config), **metadata})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
    path = _locate(source)
    with open(path, "rb") as f:
        head = f.read(9)
    return _safetensors_metadata(path) if head[8:9] == b"{" else {}
