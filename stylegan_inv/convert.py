"""Converts weights between formats: ``python -m stylegan_inv.convert ffhq.pkl ffhq.safetensors``.

A run of method=stylegan2 becomes a pickle that NVIDIA's code loads: ``… convert outputs/<run> network-snapshot.pkl``;
one of method=hyperstyle a file of HyperStyle's code: ``… convert outputs/<run> hyperstyle.pt --to psp``.
Reads every file that `load_generator` and `encoders.official` read, without executing anything in it. The new file is
read back and compared with the source before it appears under its name: all tensors and, for generators, a few images.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from stylegan_inv.data import ADA
from stylegan_inv.encoders.official.checkpoint_writer import save_checkpoint, to_psp
from stylegan_inv.encoders.official.hypernetwork_files import hyperstyle_checkpoint
from stylegan_inv.encoders.official.official_checkpoint import (
    ENCODER_TYPES,
    OfficialCheckpoint,
    checkpoint_generator,
    read_checkpoint,
    recognise,
)
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Discriminator, Generator, load_discriminator, load_generator
from stylegan_inv.generators.class_choice import ALL
from stylegan_inv.generators.grey import check_picture_channels
from stylegan_inv.generators.io.building import build_generator
from stylegan_inv.generators.io.formats import known_domain, locate, read_metadata, save_discriminator, save_generator
from stylegan_inv.generators.io.network_export import LAYOUTS, exported, limits, save_exported
from stylegan_inv.generators.io.nvidia_snapshot import Snapshot, load_snapshot, save_snapshot
from stylegan_inv.generators.io.weight_files import read_weights
from stylegan_inv.generators.mapping import W_AVG_SAMPLES
from stylegan_inv.loading import load_generator_training, load_inverter
from stylegan_inv.methods.generator.stylegan2 import StyleGAN2Training
from stylegan_inv.methods.hyperstyle import HyperStyle
from stylegan_inv.runtime.run_folder import RunFolder
from stylegan_inv.utils.command_line import ArgumentParser, run, whole
from stylegan_inv.utils.domains import check_domain_name
from stylegan_inv.utils.files import atomic_write
from stylegan_inv.utils.text import readable
from stylegan_inv.weights.download import file_hash
from stylegan_inv.weights.table import TABLE

SUFFIXES = {"ours": (".safetensors",), "snapshot": (".pkl",)} | dict.fromkeys(LAYOUTS, (".pt", ".pth"))
_SEED = 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run(lambda: convert(_parse(arguments)))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(
        prog="python -m stylegan_inv.convert",
        description=__doc__.split("\n\n", 1)[1],
        epilog=f"Names of the weights table, which are downloaded: {', '.join(TABLE)}",
    )
    parser.add_argument(
        "source", help="a file, an embedded generator, a name of the weights table, or a run folder of method=stylegan2"
    )
    parser.add_argument("target", type=Path, help=".safetensors for ours, .pkl for snapshot, .pt for the other layouts")
    parser.add_argument(
        "--to",
        choices=("ours", "snapshot", *LAYOUTS),
        help="layout; default: snapshot for .pkl, rosinality for .pt, otherwise ours. snapshot: G, D and G_ema as "
        "NVIDIA's trainer saves them",
    )
    parser.add_argument(
        "--network",
        choices=("all", "generator", "raw-generator", "discriminator"),
        default="all",
        help="network of a file with several; raw-generator: the trained weights instead of their moving average",
    )
    parser.add_argument("--domain", help="domain that is written into a .safetensors file; default: that of the source")
    parser.add_argument(
        "--encoder-type",
        choices=ENCODER_TYPES,
        help="encoder of a checkpoint whose options do not name it: pSp's and e4e's have the same weights",
    )
    parser.add_argument("--codes", **whole(0, 1000), default=4, help="images to compare; 0 compares the tensors only")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing target")
    parser.add_argument("--offline", action="store_true", default=None, help="never download")
    return parser.parse_args(arguments)


@dataclass
class _Content:
    """The content of a source: a single network or a checkpoint.

    Attributes:
        value: The network or the checkpoint.
        estimated: Whether the latent average is an estimate.
    """

    value: Generator | Discriminator | OfficialCheckpoint
    estimated: bool = False


def convert(options: argparse.Namespace) -> None:
    """Converts a file.

    Args:
        options: The parsed command line.

    Raises:
        UserError: Bad input, or a new file whose content differs from the source.
    """
    layout, target = _target(options)
    if layout == "snapshot":
        return _convert_to_snapshot(options, target)
    run = RunFolder.of(options.source)
    if run is not None:
        source = run.checkpoint() or run.path
        content = _hyperstyle_of_run(options.source, layout)
    else:
        source = locate(options.source, options.offline)
        content = _read(source, layout, options.network)
    _set_encoder_type(content.value, options.encoder_type, source)
    _check_numbers(content.value, source)
    metadata = {"source": readable(source.name), "source_sha256": file_hash(source)}
    known = known_domain(options.source, source, read_metadata(source), metadata["source_sha256"])
    if domain := options.domain or known:
        metadata["domain"] = domain
    print(f"read    {source}: {_describe(content.value)}")
    if content.estimated:
        print(f"note    has no latent average: estimated from {W_AVG_SAMPLES:,} samples of the generator")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as temporary:
            _write(content.value, layout, temporary, metadata)
            compared = _compare(content.value, temporary, options.codes)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror or error})") from error
    print(f"wrote   {target}: {layout}, {target.stat().st_size / 1e6:.1f} MB, sha256 {file_hash(target)}")
    print(f"parity  {compared}")
    if layout != "ours" and isinstance(content.value, Generator | Discriminator):
        for note in limits(content.value, layout):
            print(f"note    {note}")


def _convert_to_snapshot(options: argparse.Namespace, target: Path) -> None:
    """Writes G, D and G_ema of a run or of a file.

    Raises:
        UserError: One of them is missing, or NVIDIA's classes cannot represent it.
    """
    if options.network != "all" or options.encoder_type is not None or options.domain is not None:
        raise UserError("--to snapshot: stores G, D and G_ema; leave --network, --encoder-type and --domain out")
    run = RunFolder.of(options.source)
    snapshot = load_snapshot(locate(options.source, options.offline)) if run is None else _snapshot_of_run(run)
    print(f"read    {options.source}: G, {_describe(snapshot.generator)}; D, {_describe(snapshot.discriminator)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as temporary:
            save_snapshot(snapshot, temporary)
            read = load_snapshot(temporary)
            counts = [
                _check_equal(old.state_dict(), new.state_dict(), name)
                for name, old, new in (
                    ("G", snapshot.generator, read.generator),
                    ("D", snapshot.discriminator, read.discriminator),
                    ("G_ema", snapshot.generator_ema, read.generator_ema),
                )
            ]
            images = _compare_images(snapshot.generator_ema, read.generator_ema, options.codes) if options.codes else ""
    except UserError as error:
        raise UserError(f"{options.source}: {error}") from error
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror or error})") from error
    print(f"wrote   {target}: snapshot, {target.stat().st_size / 1e6:.1f} MB, sha256 {file_hash(target)}")
    print(f"parity  {', '.join(counts)}, bit by bit{'; ' + images if images else ''}")


def _snapshot_of_run(run: RunFolder) -> Snapshot:
    """Returns the networks of a run, and what NVIDIA's metrics need to know about its data."""
    training = load_generator_training(run.checkpoint_file if run.given_checkpoint else run.path)
    if not isinstance(training, StyleGAN2Training):
        raise UserError(f"{run.path}: has no discriminator, expected a run of method=stylegan2")
    ada = training.augment
    augment = None
    if isinstance(ada, ADA):
        strengths = {name: ada.blit for name in ("xflip", "rotate90", "xint")}
        strengths |= {name: ada.geometric for name in ("scale", "rotate", "aniso", "xfrac")}
        strengths |= {name: ada.colour for name in ("brightness", "contrast", "lumaflip", "hue", "saturation")}
        augment = {"p": float(ada.p), **strengths}
    dataset = run.stored_config().get("dataset")
    training_set = None
    if isinstance(dataset, dict) and isinstance(dataset.get("root"), str):
        training_set = {
            "class_name": "training.dataset.ImageFolderDataset",
            "path": dataset["root"],
            "use_labels": bool(training.generator.c_dim),
            "max_size": None,
            "xflip": bool(dataset.get("horizontal_flip")),
            "resolution": training.generator.resolution,
        }
    return Snapshot(training.generator, training.discriminator, training.generator_ema, augment, training_set)


def _hyperstyle_of_run(run: str, layout: str) -> _Content:
    """Returns the hypernetwork of a run and its generator.

    Raises:
        UserError: A run of another method, whose official file has other networks, or another layout.
    """
    method = load_inverter(run)
    if not isinstance(method, HyperStyle) or layout not in ("ours", "psp"):
        raise UserError(
            f"{run}: a run of {type(method).__name__}; expected one of method=stylegan2 for a .pkl, or one of "
            "method=hyperstyle with --to psp"
        )
    try:
        return _Content(hyperstyle_checkpoint(method.hypernetwork, method.generator, method.iterations))
    except UserError as error:
        raise UserError(f"{run}: {error}") from error


def _set_encoder_type(value: Generator | Discriminator | OfficialCheckpoint, name: str | None, source: Path) -> None:
    """Writes the type of the encoder into options that do not have it.

    Raises:
        UserError: There is no encoder, or its options name another type.
    """
    if name is None:
        return
    if not isinstance(value, OfficialCheckpoint) or not value.encoder:
        raise UserError(f"{source}: has no encoder, expected one for --encoder-type {name}; leave it out")
    stored = value.opts.setdefault("encoder_type", ENCODER_TYPES[name])
    if stored != ENCODER_TYPES[name]:
        raise UserError(f"{source}: its options name the encoder {str(stored)[:60]}; leave --encoder-type out")


def _check_numbers(value: Generator | Discriminator | OfficialCheckpoint, source: Path) -> None:
    """Raises a UserError if a tensor of a checkpoint is not finite; networks are checked when they are built."""
    if not isinstance(value, OfficialCheckpoint):
        return
    average = {} if value.latent_avg is None else {"": {"latent_avg": value.latent_avg}}
    for name, state in {**value.networks(), **average}.items():
        for key, tensor in state.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
                raise UserError(f"{source}: {name}{'.' if name else ''}{key} holds NaN or infinite numbers")


def _target(options: argparse.Namespace) -> tuple[str, Path]:
    target: Path = options.target.expanduser()
    suffix = target.suffix.lower()
    by_suffix = {".pkl": "snapshot"} | dict.fromkeys(SUFFIXES["rosinality"], "rosinality")
    layout = options.to or by_suffix.get(suffix, "ours")
    if suffix not in SUFFIXES[layout]:
        raise UserError(f"{target}: expected a {' or '.join(SUFFIXES[layout])} file for the layout {layout}")
    if os.path.lexists(target) and not options.overwrite:
        raise UserError(f"{target}: exists already; give another name, or --overwrite")
    check_domain_name("--domain", options.domain)
    return layout, target


def _read(source: Path, layout: str, network: str) -> _Content:
    if network == "discriminator":
        return _Content(load_discriminator(source))
    content, metadata = read_weights(source)
    try:
        if network == "all":
            checkpoint = recognise(content, metadata)
            if checkpoint.encoder or checkpoint.others:
                if layout in ("ours", "psp"):
                    if checkpoint.kind not in ("psp", "ganinverter", "hyperstyle", "hfgi") and layout == "psp":
                        raise UserError(f"contains only {checkpoint.kind}, which pSp's layout cannot store")
                    return _Content(checkpoint, bool(checkpoint.decoder) and checkpoint.latent_avg is None)
                if not checkpoint.decoder:
                    raise UserError(f"contains {checkpoint.kind} and no generator: only --to ours can store it")
        generator, estimated = build_generator(content, metadata, ema=network != "raw-generator")
        check_picture_channels(generator.img_channels)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    return _Content(generator.freeze(), estimated)


def _describe(value: Generator | Discriminator | OfficialCheckpoint) -> str:
    if isinstance(value, OfficialCheckpoint):
        parts = ", ".join(f"{name} ({len(state)} tensors)" for name, state in value.networks().items())
        return f"{value.kind}: {parts}"
    config = dict(value.config)
    channels = config.pop("channels")
    shown = ", ".join(f"{key}={setting}" for key, setting in config.items() if key not in ("resolution", "ops"))
    kind = type(value).__name__.lower()
    return f"{config['resolution']} px {kind}, channels {list(channels.values())}, {shown}"


def _write(
    value: Generator | Discriminator | OfficialCheckpoint, layout: str, path: Path, metadata: Mapping[str, str]
) -> None:
    if isinstance(value, OfficialCheckpoint):
        if layout == "ours":
            save_checkpoint(value, path, metadata)
        else:
            save_exported(to_psp(value), path)
    elif layout != "ours":
        save_exported(exported(value, layout), path)
    elif isinstance(value, Discriminator):
        save_discriminator(value, path, metadata)
    else:
        save_generator(value, path, metadata)


def _compare(value: Generator | Discriminator | OfficialCheckpoint, path: Path, codes: int) -> str:
    """Reads the new file and compares it with the source.

    Raises:
        UserError: The tensors differ.
    """
    if isinstance(value, OfficialCheckpoint):
        return _compare_checkpoints(value, read_checkpoint(path), codes)
    if isinstance(value, Discriminator):
        loaded = load_discriminator(path)
        return f"{_check_equal(value.state_dict(), loaded.state_dict(), 'discriminator')}, bit by bit"
    generator = load_generator(path, class_label=ALL)
    text = f"{_check_equal(value.state_dict(), generator.state_dict(), 'generator')}, bit by bit"
    return f"{text}; {_compare_images(value, generator, codes)}" if codes else text


def _compare_checkpoints(old: OfficialCheckpoint, new: OfficialCheckpoint, codes: int) -> str:
    for name, state in old.networks().items():
        if name != "decoder":  # may have another layout; compared as a network below
            _check_equal(state, new.networks().get(name, {}), name)
    if (old.latent_avg is None) != (new.latent_avg is None) or json.dumps(old.opts) != json.dumps(new.opts):
        raise UserError("the latent average or the options were lost: this is a bug")
    if old.latent_avg is not None and new.latent_avg is not None and not torch.equal(old.latent_avg, new.latent_avg):
        raise UserError("the latent average changed: this is a bug")
    count = sum(map(len, old.networks().values()))
    if not old.decoder:
        return f"{count} tensors equal, bit by bit"
    first, second = checkpoint_generator(old)[0], checkpoint_generator(new)[0]
    _check_equal(first.state_dict(), second.state_dict(), "generator")
    text = f"{count} tensors, the latent average and the options equal, bit by bit"
    return f"{text}; {_compare_images(first, second, codes)}" if codes else text


def _check_equal(old: dict[str, torch.Tensor], new: dict[str, torch.Tensor], name: str) -> str:
    if old.keys() != new.keys() or not all(torch.equal(value, new[key]) for key, value in old.items()):
        raise UserError(f"the {name} that was read back has other tensors: this is a bug")
    return f"{len(old)} tensors of the {name} equal"


@torch.no_grad()
def _compare_images(old: Generator, new: Generator, codes: int) -> str:
    """Returns the largest differences between images of the two files, which also shows differences of the configs."""
    rng = torch.Generator().manual_seed(_SEED)
    w_error = image_error = low = high = 0.0
    for _ in range(codes):
        z = torch.randn(1, old.z_dim, generator=rng)
        c = torch.eye(old.c_dim)[:1] if old.c_dim else None
        first, second = old.mapping(z, c=c), new.mapping(z, c=c)
        a, b = old.synthesis(first, noise="const"), new.synthesis(second, noise="const")
        w_error = max(w_error, float((first - second).abs().max()))
        image_error = max(image_error, float((a - b).abs().max()))
        low, high = min(low, float(a.min())), max(high, float(a.max()))
    return (
        f"{codes} codes rendered from the source and from the new file: largest difference {w_error:.1e} in w and "
        f"{image_error:.1e} in images that span {low:.2f} to {high:.2f}"
    )


if __name__ == "__main__":
    main()
