"""Loads and saves StyleGAN2 networks, and generators of the first StyleGAN.

The project's own format is safetensors. Also supported are state dicts in NVIDIA's, rosinality's and InterFaceGAN's
layout, alone or inside the checkpoints of the papers, and NVIDIA's pickles of PyTorch and TensorFlow. `weight_files`
reads the files, `layouts` converts the names of keys and `building` builds the networks.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stylegan_inv.errors import UserError
from stylegan_inv.generators.discriminator import Discriminator
from stylegan_inv.generators.generator import Generator
from stylegan_inv.generators.grey import as_rgb as rgb_generator
from stylegan_inv.generators.io.building import DISCRIMINATOR_KIND, GENERATOR_KIND, build_discriminator, build_generator
from stylegan_inv.generators.io.weight_files import file_hash, read_weights, safetensors_metadata
from stylegan_inv.generators.mapping import W_AVG_SAMPLES
from stylegan_inv.generators.ops import dispatch
from stylegan_inv.utils.checks import one_of
from stylegan_inv.utils.domains import check_domain_name
from stylegan_inv.utils.files import atomic_write
from stylegan_inv.utils.regular_files import open_regular
from stylegan_inv.weights.download import fetch
from stylegan_inv.weights.table import TABLE, entry_with_hash

log = logging.getLogger(__name__)

ASSETS = Path(__file__).resolve().parents[2] / "assets"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_generator(
    source: str | Path,
    *,
    device: str | torch.device = "cpu",
    ema: bool = True,
    offline: bool | None = None,
    ops: str = "auto",
    dtype: str | torch.dtype = "float32",
    recompute: bool | None = None,
    domain: str | None = None,
    class_label: int | str | None = None,
    as_rgb: bool = False,
) -> Generator:
    """Loads a generator, frozen and in evaluation mode, without executing anything in the file.

    Args:
        source: A file, the name of an embedded generator, or a name of the weights table, which is downloaded once.
            Files are our ``.safetensors``; NVIDIA's ``.pkl`` of PyTorch or TensorFlow; a state dict in NVIDIA's or
            rosinality's layout, alone or inside a training, pSp, e4e, ReStyle, HyperStyle or GANInverter checkpoint;
            the original StyleGAN in TensorFlow's ``.pkl`` or InterFaceGAN's ``.pth``. A bare name never means a file:
            write ``./name``.
        device: Device of the generator.
        ema: Use the moving average of the weights; False uses the trained weights.
        offline: Never use the network; None asks the environment, see :func:`.weights.download.fetch`.
        ops: Implementation of the operations, ``"auto"``, ``"fast"`` or ``"ref"``, see :mod:`.ops.dispatch`. The
            environment variable ``STYLEGAN_INV_OPS`` replaces ``"auto"``.
        dtype: ``"float32"``, or ``"bfloat16"`` for the large layers on a CPU, see :meth:`.Generator.freeze`.
        recompute: Use less memory in the backward pass, see :meth:`.Generator.freeze`.
        domain: Domain of its images; None takes that of the embedded generator, of the weights table (by name or hash)
            or of the file's metadata, if there is one.
        class_label: Class of a conditional generator, see :meth:`.Generator.set_class`. None: the mean over all
            classes, and a line in the log says so.
        as_rgb: Make a grey generator one of RGB images with equal channels, and refuse other channels.

    Returns:
        A generator whose ``source_hash`` is the sha256 of the file. The geometry comes from the config in the file, or
        else from the shapes. If the file has no latent average, it is estimated and a warning is logged.

    Raises:
        UserError: No such file or domain, or a file without a StyleGAN2 generator.
    """
    dispatch.check(ops)
    check_domain_name("generator.domain", domain)
    name = dtype if isinstance(dtype, str) else str(dtype).removeprefix("torch.")
    precision = PRECISIONS[one_of("generator.dtype", name, PRECISIONS)]
    path = locate(source, offline)
    content, metadata = read_weights(path)
    try:
        generator, estimated = build_generator(content, metadata, ema=ema, ops=ops)
        if as_rgb:
            generator = rgb_generator(generator)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if estimated:
        log.warning("%s has no latent average: estimated from %s samples", path, f"{W_AVG_SAMPLES:,}")
    if class_label is None and generator.c_dim:
        log.warning("%s is conditional: takes class=none, the mean over %d classes", path, generator.c_dim)
    generator.set_class(class_label)
    generator.source_hash = file_hash(path)
    generator.domain = domain or known_domain(source, path, metadata, generator.source_hash)
    return generator.to(device).freeze(dtype=precision, recompute=recompute)


def load_discriminator(
    source: str | Path, *, device: str | torch.device = "cpu", offline: bool | None = None
) -> Discriminator:
    """Loads a discriminator for further training.

    Args:
        source: See :func:`load_generator`.
        device: Device of the discriminator.
        offline: See :func:`load_generator`.

    Raises:
        UserError: No such file, or one without a StyleGAN2 discriminator.
    """
    path = locate(source, offline)
    content, metadata = read_weights(path)
    try:
        discriminator = build_discriminator(content, metadata)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    discriminator.domain = known_domain(source, path, metadata, file_hash(path))
    return discriminator.to(device)


def save_generator(generator: Generator, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a generator as safetensors, with its configuration as JSON in the metadata.

    Args:
        generator: The generator. Its weights keep their precision.
        path: The file, which is replaced atomically.
        metadata: Further metadata, e.g. the origin of the weights. ``kind``, ``config`` and ``format`` are reserved;
            ``domain`` is that of the generator.

    Raises:
        UserError: Metadata that is not text, or that uses a reserved name.
    """
    domain = {} if generator.domain is None else {"domain": generator.domain}
    _save(generator, generator.config, GENERATOR_KIND, Path(path), {**(metadata or {}), **domain})


def save_discriminator(
    discriminator: Discriminator, path: str | Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a discriminator; see :func:`save_generator`."""
    domain = {} if discriminator.domain is None else {"domain": discriminator.domain}
    _save(discriminator, discriminator.config, DISCRIMINATOR_KIND, Path(path), {**(metadata or {}), **domain})


def read_metadata(source: str | Path) -> dict[str, str]:
    """Returns the metadata of a ``.safetensors`` file or embedded asset (``config`` is JSON); empty for other files."""
    path = locate(source)
    with open_regular(path, "a file of weights") as f:
        head = f.read(9)
    return safetensors_metadata(path) if head[8:9] == b"{" else {}


def known_domain(source: str | Path, path: Path, metadata: Mapping[str, str], sha256: str) -> str | None:
    """Returns the domain of a file of weights; None if it is unknown.

    Args:
        source: Name or path that the user gave.
        path: The file.
        metadata: Its metadata.
        sha256: Its hash.
    """
    if path.parent == ASSETS:  # the embedded world
        return "synthfaces"
    entry = TABLE.get(str(source)) or entry_with_hash(sha256)
    return check_domain_name(f"{path}: domain", metadata.get("domain")) if entry is None else entry.domain


def embedded_generators() -> list[str]:
    """Returns the names of the embedded generators, for :func:`load_generator`."""
    names = []
    for path in sorted(ASSETS.glob("*.safetensors")):
        with contextlib.suppress(Exception):  # a damaged file raises when it is loaded
            if safetensors_metadata(path).get("kind") == GENERATOR_KIND:
                names.append(path.stem)
    return names


def locate(source: str | Path, offline: bool | None = None) -> Path:
    """Returns the path of a file of weights.

    Args:
        source: The name of an embedded asset, a name of the weights table (downloaded once), or a path.
        offline: See :func:`load_generator`.

    Raises:
        UserError: Nothing of that name, or a download that failed or is not allowed.
    """
    text = str(source)
    if not text.strip():
        raise UserError("got no generator; expected a file or the name of an embedded one")
    if re.fullmatch(r"[A-Za-z0-9_-]+", text) and (ASSETS / f"{text}.safetensors").is_file():
        return ASSETS / f"{text}.safetensors"
    if text in TABLE:
        return fetch(text, offline=offline)
    path = Path(source).expanduser()
    if path.is_dir():
        raise UserError(f"{path} is a folder: give the weights file in it")
    if not path.is_file():
        names = ", ".join(embedded_generators()) or "none in this installation"
        known = ", ".join(name for name, entry in TABLE.items() if entry.holds == "generator")
        raise UserError(
            f"no file {path}; expected one, an embedded generator (there are: {names}) or one to download "
            f"(there are: {known})"
        )
    return path


def _save(network: nn.Module, config: Mapping[str, Any], kind: str, path: Path, metadata: Mapping[str, str]) -> None:
    from safetensors.torch import save_file

    reserved = {"kind", "config", "format"} & set(metadata)
    if reserved:
        raise UserError(f"metadata keys {sorted(reserved)} are reserved: choose others")
    bad = [key for key, value in metadata.items() if not (isinstance(key, str) and isinstance(value, str))]
    if bad:
        raise UserError(
            f"metadata must be text, got {type(metadata[bad[0]]).__name__} for {bad[0]!r}: use str() or json.dumps"
        )
    # Cloned, because safetensors refuses tensors that share memory.
    sd = {key: value.detach().cpu().contiguous().clone() for key, value in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        save_file(sd, str(temporary), metadata={"format": "pt", "kind": kind, "config": json.dumps(config), **metadata})
