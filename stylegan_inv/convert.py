"""Convert weights between formats: ``python -m stylegan_inv.convert ffhq.pkl ffhq.safetensors``.

Reads what `load_generator` and `encoders.checkpoints` read, and executes nothing of it. What was written is read back
and compared before it takes its name: the tensors, and for generators a few pictures.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch

from stylegan_inv.encoders.official.official_checkpoint import (
    OfficialCheckpoint,
    checkpoint_generator,
    read_checkpoint,
    recognise,
    save_checkpoint,
    to_psp,
)
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Discriminator, Generator, load_discriminator, load_generator
from stylegan_inv.generators.io.formats import (
    W_AVG_SAMPLES,
    build_generator,
    locate,
    save_discriminator,
    save_generator,
)
from stylegan_inv.generators.io.network_export import LAYOUTS, exported, limits, save_exported
from stylegan_inv.generators.io.weight_files import read_weights
from stylegan_inv.utils.command_line import report_error
from stylegan_inv.utils.files import atomic_write
from stylegan_inv.weights.download import TABLE, file_hash

SUFFIXES = {"ours": (".safetensors",)} | dict.fromkeys(LAYOUTS, (".pt", ".pth"))
_SEED = 0


def main(arguments: list[str] | None = None) -> None:
    """The command line; bad input ends with one line and exit code 2."""
    try:
        convert(_parse(arguments))
    except UserError as error:
        sys.exit(report_error(error))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see python -m stylegan_inv.convert --help")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    names = ", ".join(TABLE)
    parser = _Parser(
        prog="python -m stylegan_inv.convert",
        description=(__doc__ or "").split("\n\n", 1)[1],
        epilog=f"Names that are downloaded: {names}",
    )
    parser.add_argument("source", help="a file, an embedded generator, or a name that is downloaded")
    parser.add_argument("target", type=Path, help=".safetensors for ours, .pt for the other layouts")
    parser.add_argument("--to", choices=("ours", *LAYOUTS), help="layout; by default ours, rosinality for .pt")
    parser.add_argument(
        "--network",
        choices=("all", "generator", "raw-generator", "discriminator"),
        default="all",
        help="of a file with several; raw-generator: the weights as trained instead of their moving average",
    )
    parser.add_argument("--codes", type=int, default=4, help="pictures to compare, 0 for none")
    parser.add_argument("--overwrite", action="store_true", help="replace the target if there is one")
    parser.add_argument("--offline", action="store_true", default=None, help="never download")
    return parser.parse_args(arguments)


@dataclass
class _Job:
    """What is written and what it is compared with: one of the two networks, or a checkpoint."""

    network: Generator | Discriminator | None = None
    checkpoint: OfficialCheckpoint | None = None
    estimated: bool = False


def convert(options: argparse.Namespace) -> None:
    """Do what the options say; see `main`.

    Raises:
        UserError: Bad input, or a target that would not hold what the source holds.
    """
    layout, target = _target(options)
    source = locate(options.source, options.offline)
    job = _read(source, layout, options.network)
    metadata = {"source": source.name, "source_sha256": file_hash(source)}
    print(f"read    {source}: {_describe(job)}")
    if job.estimated:
        print(f"note    it has no average code: that of the generator is estimated from {W_AVG_SAMPLES:,} samples")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as temporary:
            _write(job, layout, temporary, metadata)
            compared = _compare(job, temporary, options.codes)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror or error})") from error
    print(f"wrote   {target}: {layout}, {target.stat().st_size / 1e6:.1f} MB, sha256 {file_hash(target)}")
    print(f"parity  {compared}")
    for note in limits(job.network, layout) if job.network is not None and layout != "ours" else []:
        print(f"note    {note}")


def _target(options: argparse.Namespace) -> tuple[str, Path]:
    target: Path = options.target.expanduser()
    layout = options.to or ("ours" if target.suffix not in SUFFIXES["rosinality"] else "rosinality")
    if target.suffix not in SUFFIXES[layout]:
        raise UserError(f"{target}: the layout {layout} is written to {' or '.join(SUFFIXES[layout])} files")
    if target.exists() and not options.overwrite:
        raise UserError(f"{target}: exists; give another name, or --overwrite")
    if options.codes < 0:
        raise UserError(f"--codes {options.codes}: expected 0 or more")
    return layout, target


def _read(source: Path, layout: str, network: str) -> _Job:
    if network == "discriminator":
        return _Job(load_discriminator(source))
    content, metadata = read_weights(source)
    try:
        if network == "all":
            checkpoint = recognise(content, metadata)
            if checkpoint.encoder or checkpoint.others:
                if layout in ("ours", "psp"):
                    if checkpoint.kind not in ("psp", "ganinverter", "hyperstyle", "hfgi") and layout == "psp":
                        raise UserError(f"holds {checkpoint.kind} alone, which pSp's layout has no place for")
                    return _Job(
                        checkpoint=checkpoint, estimated=bool(checkpoint.decoder) and checkpoint.latent_avg is None
                    )
                if not checkpoint.decoder:
                    raise UserError(f"holds {checkpoint.kind} and no generator: only --to ours writes that")
        generator, estimated = build_generator(content, metadata, ema=network != "raw-generator")
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    return _Job(generator.freeze(), estimated=estimated)


def _describe(job: _Job) -> str:
    if job.checkpoint is not None:
        parts = ", ".join(f"{name} ({len(state)} tensors)" for name, state in job.checkpoint.networks().items())
        return f"{job.checkpoint.kind}: {parts}"
    config = dict(job.network.config)  # type: ignore[union-attr]
    channels = config.pop("channels")
    shown = ", ".join(f"{key}={value}" for key, value in config.items() if key not in ("resolution", "ops"))
    kind = type(job.network).__name__.lower()
    return f"{config['resolution']} px {kind}, channels {list(channels.values())}, {shown}"


def _write(job: _Job, layout: str, path: Path, metadata: dict[str, str]) -> None:
    if job.checkpoint is not None:
        if layout == "ours":
            save_checkpoint(job.checkpoint, path, metadata)
        else:
            save_exported(to_psp(job.checkpoint), path)
    elif layout != "ours":
        save_exported(exported(job.network, layout), path)  # type: ignore[arg-type]
    elif isinstance(job.network, Discriminator):
        save_discriminator(job.network, path, metadata)
    else:
        save_generator(job.network, path, metadata)  # type: ignore[arg-type]


def _compare(job: _Job, path: Path, codes: int) -> str:
    """Read the file back and compare.

    Raises:
        UserError: It holds other tensors than the source.
    """
    if job.checkpoint is not None:
        return _compare_checkpoints(job.checkpoint, read_checkpoint(path), codes)
    network = job.network
    if isinstance(network, Discriminator):
        again: Any = load_discriminator(path)
        return f"{_equal(network.state_dict(), again.state_dict(), 'discriminator')}, bit by bit"
    assert isinstance(network, Generator)
    again = load_generator(path)
    text = f"{_equal(network.state_dict(), again.state_dict(), 'generator')}, bit by bit"
    return f"{text}; {_pictures(network, again, codes)}" if codes else text


def _compare_checkpoints(old: OfficialCheckpoint, new: OfficialCheckpoint, codes: int) -> str:
    for name, state in old.networks().items():
        if name != "decoder":  # may be in another layout; compared as networks below
            _equal(state, new.networks().get(name, {}), name)
    if (old.latent_avg is None) != (new.latent_avg is None) or old.opts != new.opts:
        raise UserError("the average code or the options were lost on the way: this is a fault of the program")
    if old.latent_avg is not None and new.latent_avg is not None and not torch.equal(old.latent_avg, new.latent_avg):
        raise UserError("the average code changed on the way: this is a fault of the program")
    count = sum(map(len, old.networks().values()))
    if not old.decoder:
        return f"{count} tensors equal, bit by bit"
    first, second = checkpoint_generator(old)[0], checkpoint_generator(new)[0]
    _equal(first.state_dict(), second.state_dict(), "generator")
    text = f"{count} tensors, the average code and the options equal, bit by bit"
    return f"{text}; {_pictures(first, second, codes)}" if codes else text


def _equal(old: dict[str, torch.Tensor], new: dict[str, torch.Tensor], name: str) -> str:
    if old.keys() != new.keys() or not all(torch.equal(value, new[key]) for key, value in old.items()):
        raise UserError(f"the {name} that was read back has other tensors: this is a fault of the program")
    return f"{len(old)} tensors of the {name} equal"


@torch.no_grad()
def _pictures(old: Generator, new: Generator, codes: int) -> str:
    """Largest differences between what the two files render; other configurations show here, not in the tensors."""
    source = torch.Generator().manual_seed(_SEED)
    w_error = image_error = low = high = 0.0
    for _ in range(codes):
        z = torch.randn(1, old.z_dim, generator=source)
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
