"""``prepare pack``: packs images into a zip file, an LMDB or tar shards.

The images are decoded before they are stored and compared with what was written. An interrupted command continues where
it stopped, and the target appears only when it is complete.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from stylegan_inv.data.images.decoding import BadImage, decode
from stylegan_inv.data.images.image_files import SUFFIXES, distinct_names, left_out_lines, name_list
from stylegan_inv.data.images.resizing import MODES, Geometry
from stylegan_inv.data.sources.class_labels import CLASSES
from stylegan_inv.data.sources.opening import open_source
from stylegan_inv.data.sources.packing import MANIFEST_FILE, Packer, open_packer, sample_names
from stylegan_inv.data.sources.source import CompactStrings, Source, check_names
from stylegan_inv.errors import UserError
from stylegan_inv.utils.command_line import whole
from stylegan_inv.utils.files import atomic_write, is_partial, named_errors, real_path
from stylegan_inv.utils.parallel import ordered
from stylegan_inv.utils.regular_files import read_bytes, read_text
from stylegan_inv.utils.text import printable, readable

if TYPE_CHECKING:
    from filelock import BaseFileLock

DESCRIPTION = "pack images into a zip file, an LMDB or tar shards"
_LOCK = ".lock"
_FORMATS = {"png": ".png", "jpg": ".jpg", "webp": ".webp"}
#: Size limit of the journal, which has about 200 bytes for each image.
_MOST_BYTES = 1 << 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this subcommand to a parser."""
    parser.add_argument("source", type=Path, help="folder, zip file, LMDB, tar shards or list of images")
    parser.add_argument("target", type=Path, help="what to write: data.zip, data.lmdb, or a folder of shards")
    parser.add_argument("--to", choices=("zip", "lmdb", "shards"), help="container; default: from the suffix")
    parser.add_argument(
        "--resolution", **whole(1, 1 << 15), help="side of the resized, square images; default: files unchanged"
    )
    parser.add_argument("--mode", choices=MODES, default="crop")
    parser.add_argument("--format", choices=_FORMATS, default="png", help="format of resized images; webp is lossless")
    parser.add_argument("--quality", **whole(1, 100), default=95, help="quality of jpg, 1 to 100")
    parser.add_argument("--shard-images", **whole(1, 1_000_000), default=1000)
    parser.add_argument("--on-bad-image", choices=("error", "skip"), default="error")


@dataclass
class _Encoder:
    """Encodes images of a source as the bytes to store."""

    source: Source
    names: Sequence[str]
    geometry: Geometry | None
    format: str
    quality: int


def encode(encoder: _Encoder, index: int) -> tuple[bytes, tuple[int, int]] | str:
    """Encodes an image.

    Args:
        encoder: The source and the format.
        index: Position of the image in the source.

    Returns:
        The bytes to store and (height, width), or an error message.
    """
    try:
        data, where = encoder.source.read(index), encoder.source.where(index)
        pixels = decode(data, where)
        if encoder.geometry is None:
            return data, (pixels.shape[-2], pixels.shape[-1])
        return _write(encoder.geometry.apply(pixels), encoder), encoder.geometry.content
    except BadImage as error:
        return str(error)


def _write(pixels: torch.Tensor, encoder: _Encoder) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))
    if encoder.format == "jpg":
        image.save(buffer, "JPEG", quality=encoder.quality, subsampling=0)
    else:
        image.save(buffer, encoder.format.upper(), **({"lossless": True} if encoder.format == "webp" else {}))
    return buffer.getvalue()


def run(options: argparse.Namespace) -> int:
    """Runs the subcommand.

    Args:
        options: The parsed command line.

    Returns:
        The exit code, 0.

    Raises:
        UserError: Bad input, an existing target, or a target whose content differs from what was written.
    """
    kind = _kind(options)
    if os.path.lexists(options.target):
        raise UserError(f"{options.target}: exists already; give another name or remove it")
    source = open_source(options.source, options.resolution or 256)
    geometry = None if options.resolution is None else Geometry(options.resolution, options.mode)
    names = [readable(name) for name in source.names]
    if geometry is not None or kind == "shards":
        names = distinct_names(names, None if geometry is None else _FORMATS[options.format])
    if kind == "shards":
        names = sample_names(names)
    check_names(options.source, names)
    encoder = _Encoder(source, CompactStrings(names), geometry, options.format, options.quality)
    settings = {
        "source": str(real_path(options.source)),
        "images": len(source),
        "content": source.identity(),
        **{key: vars(options)[key] for key in ("resolution", "mode", "format", "quality", "shard_images")},
        "to": kind,
    }
    work = options.target.with_name(options.target.name + ".partial")
    journal = _Journal(work, settings)
    content = work / ("content.zip" if kind == "zip" else "content")
    if journal.lines:
        print(f"continuing {work}: {len(journal.lines)} of {len(source)} images are done")
    manifest = _pack(options, encoder, journal, kind, content)
    _check(content, manifest, encoder, options.target)
    content.replace(options.target)
    journal.remove()
    skipped = manifest["skipped"]
    print(f"{len(manifest['images'])} images in {options.target}, all read back and compared")
    for line in left_out_lines(source.left_out):
        print(line)
    if skipped:
        print(f"{len(skipped)} unreadable images are skipped (reasons in the manifest): {name_list(list(skipped))}")
    return 0


def _pack(
    options: argparse.Namespace, encoder: _Encoder, journal: _Journal, kind: str, content: Path
) -> dict[str, Any]:
    """Writes the remaining images and returns the manifest."""
    stored = [(line["name"], line["bytes"]) for line in journal.lines if "bytes" in line]
    packer = open_packer(kind, content, stored, _side(encoder), options.shard_images)
    try:
        lines = journal.lines + _add(options, encoder, journal, packer)
        manifest = {
            # Without the times of the files: the same images give the same file.
            "settings": {key: value for key, value in journal.settings.items() if key != "content"},
            "images": {line["name"]: line["sha256"] for line in lines if "sha256" in line},
            "skipped": {readable(line["name"]): line["skipped"] for line in lines if "skipped" in line},
            "left_out": [readable(name) for name in encoder.source.left_out],
        }
        extra = {MANIFEST_FILE: json.dumps(manifest).encode()}
        if kind == "zip" and (classes := _classes(encoder.source)) is not None:
            named = zip(encoder.names, classes.tolist(), strict=True)
            rows = [[name, number] for name, number in named if name in manifest["images"]]
            extra[CLASSES] = json.dumps({"labels": rows}).encode()
        packer.finish(extra)
    except BaseException:
        packer.abandon()
        raise
    return manifest


def _classes(source: Source) -> np.ndarray | None:
    """Returns the classes of the images; None, with a note, where the file gives none that could be kept."""
    try:
        return source.classes
    except UserError as error:
        print(f"the images are packed without classes: {printable(str(error))}")
        return None


def _add(options: argparse.Namespace, encoder: _Encoder, journal: _Journal, packer: Packer) -> list[dict[str, Any]]:
    """Adds the images that the journal lacks and returns the lines that it does not contain yet."""
    remaining = range(len(journal.lines), len(encoder.source))
    pending: list[dict[str, Any]] = []
    since = 0
    for index, result in zip(remaining, ordered(encode, encoder, remaining, options.workers, "packing"), strict=True):
        if isinstance(result, str):
            if options.on_bad_image == "error":
                raise UserError(f"{result}; or skip such images with --on-bad-image skip")
            pending.append({"name": encoder.source.names[index], "skipped": result})
            continue
        data, name = result[0], encoder.names[index]
        packer.add(name, data)
        pending.append({"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
        since += 1
        if since == packer.interval:
            packer.flush()
            journal.add(pending)
            pending, since = [], 0
    return pending


def _side(encoder: _Encoder) -> int:
    """Returns the larger side of the first readable image, which is part of an LMDB's keys."""
    if encoder.geometry is not None:
        return encoder.geometry.resolution
    results = (encode(encoder, index) for index in range(len(encoder.source)))
    side = next((max(result[1]) for result in results if not isinstance(result, str)), None)
    if side is None:
        raise UserError(f"{encoder.source.path}: none of {len(encoder.source)} images can be read")
    return side


class _Journal:
    """The images that are stored safely: a file with one line for each batch that was flushed.

    Args:
        work: Folder of the unfinished target.
        settings: Settings of the command; those of an earlier journal must be equal.

    Raises:
        UserError: The journal belongs to a command with other settings, or the folder is not that of a journal.
    """

    def __init__(self, work: Path, settings: dict[str, Any]) -> None:
        self.lines: list[dict[str, Any]] = []
        self.settings = settings
        self._work, self._path, self._settings = work, work / "journal.jsonl", work / "settings.json"
        text = json.dumps(settings, indent=1)
        if work.is_symlink() or (work.exists() and not self._settings.is_file() and _is_used(work)):
            raise UserError(
                f"{work}: is needed for unfinished work and exists already; move it, or give another target"
            )
        work.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(work)
        if self._settings.is_file():
            if read_bytes(self._settings, _MOST_BYTES) != text.encode():
                raise UserError(
                    f"{work}: belongs to an interrupted command with other options or images; remove it or repeat that "
                    "command"
                )
            if self._path.is_file():
                self.lines = _complete_lines(self._path)
                with atomic_write(self._path) as temporary:
                    temporary.write_text(json.dumps(self.lines) + "\n")
            return
        with atomic_write(self._settings) as temporary:
            temporary.write_text(text)

    def add(self, lines: list[dict[str, Any]]) -> None:
        with named_errors(self._path), open(self._path, "a") as file:
            file.write(json.dumps(lines) + "\n")
        self.lines += lines

    def remove(self) -> None:
        """Removes the files of the journal, and their folder unless it holds other files."""
        for file in (self._path, self._settings, self._work / _LOCK):
            file.unlink(missing_ok=True)
        self._lock.release()
        with contextlib.suppress(OSError):
            self._work.rmdir()


def _is_used(work: Path) -> bool:
    return not work.is_dir() or not all(is_partial(file) or file.name == _LOCK for file in work.iterdir())


def _lock(work: Path) -> BaseFileLock:
    """Returns a lock of a folder, which the system releases when its owner dies.

    Raises:
        UserError: Another process has locked it; both would write into one file.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(work / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{work}: another process is packing into it; wait for it, or give another target") from None
    return lock


def _complete_lines(path: Path) -> list[dict[str, Any]]:
    lines = []
    for line in read_text(path, _MOST_BYTES).splitlines(keepends=True):
        if not line.endswith("\n"):  # the process was killed while it wrote this line
            break
        lines.extend(json.loads(line))
    return lines


def _check(content: Path, manifest: dict[str, Any], encoder: _Encoder, target: Path) -> None:
    packed = open_source(content, encoder.geometry.resolution if encoder.geometry else 1)
    rows = {name: row for row, name in enumerate(packed.names)}  # shards change some names
    for index, (name, expected) in enumerate(manifest["images"].items()):
        if hashlib.sha256(packed.read(rows.get(name, index))).hexdigest() != expected:
            raise UserError(f"{target}: {name} differs from what was written; check the disk and pack it again")
    if len(packed) != len(manifest["images"]):
        raise UserError(f"{target}: contains {len(packed)} of {len(manifest['images'])} images; pack it again")


def _kind(options: argparse.Namespace) -> str:
    suffixes = {".zip": "zip", ".lmdb": "lmdb"}
    kind = options.to or suffixes.get(options.target.suffix.lower(), "shards")
    if suffixes.get(options.target.suffix.lower(), kind) != kind:
        raise UserError(f"{options.target}: got the suffix {options.target.suffix}, expected one that fits --to {kind}")
    if options.target.suffix.lower() in (".tar", *SUFFIXES):
        raise UserError(f"{options.target}: expected a name for a folder of shards, without a suffix")
    return kind
