"""Tar shards of WebDataset: files with the same name up to the first dot form a sample."""

from __future__ import annotations

import contextlib
import re
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

from stylegan_inv.data.images.decoding import MAX_BYTES
from stylegan_inv.data.images.image_files import is_image, is_other_image, name_list
from stylegan_inv.data.sources.archive_files import ArchiveSource
from stylegan_inv.data.sources.source import Source, check_names
from stylegan_inv.errors import UserError
from stylegan_inv.utils.compat import BoundedTarInfo
from stylegan_inv.utils.regular_files import file_size, open_regular

#: First bytes of gzip, bzip2, xz and zstd files.
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7z", b"\x28\xb5\x2f\xfd")
_MAX_SHARDS = 100_000


def find_shards(path: object) -> list[Path]:
    """Returns the shards of a path, sorted; an empty list if the path is no shard, pattern or folder of shards.

    Raises:
        UserError: A pattern matches no file, a shard of a range is missing, or a range is too large.
    """
    text = str(path)
    if re.search(r"\{\d+\.\.\d+\}[^/]*\.tar$", text):
        shards = [Path(name) for name in _expand(text)]
        if absent := [shard.name for shard in shards if not shard.is_file()]:
            raise UserError(f"{text}: {len(absent)} of {len(shards)} shards are missing: {name_list(absent)}")
        return shards
    if re.search(r"\*[^/]*\.tar$", text):
        shards = sorted(Path(text).parent.glob(Path(text).name))
        if not shards:
            raise UserError(f"{text}: no such shards; expected .tar files")
        return shards
    folder = Path(text)
    if folder.is_file():
        return [folder] if folder.suffix.lower() == ".tar" else []
    return sorted(file for file in folder.glob("*.tar") if not file.is_dir()) if folder.is_dir() else []


def open_shards(path: Path, shards: Sequence[Path]) -> Source:
    """Opens uncompressed tar shards; the images keep their order in the shards.

    The image of a sample is its file with a plain image suffix (``000.png``, not ``000.mask.png``), or its only file
    with an image suffix.

    Args:
        path: Path of the dataset, for messages.
        shards: The tar files.

    Raises:
        UserError: A shard is damaged or compressed, or has links, devices, names that lead out of a folder, or members
            that are larger than the shard.
    """
    names: list[str] = []
    others: list[str] = []
    locations: list[tuple[int, int, int]] = []
    for number, shard in enumerate(shards):
        members = _members(shard)
        others += [name for name, _, _ in members if _is_shown(name, is_other_image)]
        for name, offset, size in _images(shard, members):
            names.append(name)
            locations.append((number, offset, size))
    check_names(path, names)
    source = ArchiveSource(path, names, shards, locations)
    source.left_out = others
    return source


def _is_shown(name: str, kind: Callable[[str], bool]) -> bool:
    base = name.rpartition("/")[2]
    return kind(base) and not base.startswith(".")


def _expand(pattern: str) -> list[str]:
    match = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if match is None:
        return [pattern]
    first, last = int(match[1]), int(match[2])
    if not first <= last < first + _MAX_SHARDS:
        raise UserError(f"{pattern}: expected a range of at most {_MAX_SHARDS:,} shards, e.g. {{000..009}}")
    middles = (f"{number:0{len(match[1])}d}" for number in range(first, last + 1))
    return [name for middle in middles for name in _expand(pattern[: match.start()] + middle + pattern[match.end() :])]


def _images(shard: Path, members: Sequence[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Returns name, offset and size of the image of each sample."""
    samples: dict[str, list[tuple[str, int, int]]] = {}
    for name, offset, size in members:
        folder, slash, base = name.rpartition("/")
        if _is_shown(name, is_image):
            samples.setdefault(folder + slash + base.partition(".")[0], []).append((name, offset, size))
    images = []
    for key, found in samples.items():
        plain = [file for file in found if file[0][len(key) :].count(".") == 1] if len(found) > 1 else found
        if len(plain) != 1:
            raise UserError(
                f"{shard}: the sample {ascii(key)[:80]} has {len(found)} images ({name_list([f[0] for f in found])}); "
                "expected one file with a plain suffix, e.g. 000.png"
            )
        images += plain
    return images


def _members(shard: Path) -> list[tuple[str, int, int]]:
    """Returns name, offset and size of each file in a shard."""
    found = []
    try:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open_regular(shard, "a tar file"))
            length = file_size(file)
            if file.read(4).startswith(_COMPRESSED):
                raise UserError(f"{shard}: is compressed and allows no random access; unpack it: gunzip {shard.name}")
            file.seek(0)
            archive = stack.enter_context(tarfile.open(fileobj=file, mode="r:", tarinfo=BoundedTarInfo))
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # saves memory: tarfile keeps all members
                if member.isdir():
                    continue
                label = ascii(member.name)[:80]
                if not member.isreg() or member.issparse():
                    raise UserError(
                        f"{shard}: rejected, as {label} is a link, device or sparse file; expected plain files"
                    )
                if not 0 <= member.size <= min(MAX_BYTES, length - member.offset_data):
                    raise UserError(f"{shard}: rejected, as {label} claims {member.size:,} bytes; download it again")
                found.append((member.name.removeprefix("./"), member.offset_data, member.size))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{shard}: cannot be opened ({(error.strerror or str(error)).lower()})") from error
    except Exception as error:  # tarfile raises ReadError, ValueError, struct.error ... for damaged files
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise UserError(f"{shard}: damaged tar ({reason}); download or copy it again") from error
    return found
