"""``prepare verify``: decodes every image and reports unreadable images, duplicates and sizes."""

from __future__ import annotations

import argparse
import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from stylegan_inv.data.images.decoding import BadImage, decode
from stylegan_inv.data.images.image_files import left_out_lines, name_list
from stylegan_inv.data.sources.class_labels import read_json
from stylegan_inv.data.sources.opening import open_source
from stylegan_inv.data.sources.packing import read_manifest
from stylegan_inv.data.sources.source import Source
from stylegan_inv.errors import UserError
from stylegan_inv.utils.command_line import whole
from stylegan_inv.utils.files import atomic_write, check_output_file
from stylegan_inv.utils.parallel import ordered
from stylegan_inv.utils.plain_data import read_json_object
from stylegan_inv.utils.text import json_text, printable

DESCRIPTION = "decode every image and report unreadable images, duplicates and sizes"


#: Entries of every report.
_KEYS = {"path", "images", "bad", "duplicates", "sizes", "smaller", "changed", "classes"}
_MOST_REPORT_BYTES = 1 << 28


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this subcommand to a parser."""
    parser.add_argument("source", type=Path, help="folder, zip file, LMDB, tar shards or list of images")
    parser.add_argument("--resolution", **whole(1, 1 << 20), help="also list images with a side below this, in pixels")
    parser.add_argument("--report", type=Path, help="JSON file to write the report to")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is no earlier report")


def inspect(source: Source, index: int) -> tuple[str, str, str, tuple[int, int]] | str:
    """Decodes an image.

    Args:
        source: The source of the images.
        index: Position of the image in it.

    Returns:
        Hash of the file, hash of the pixels, name, and (height, width); or an error message.
    """
    try:
        data = source.read(index)
        pixels = decode(data, source.where(index))
    except BadImage as error:
        return str(error)
    shape = int(pixels.shape[-2]), int(pixels.shape[-1])
    pixel_hash = hashlib.sha256(pixels.permute(1, 2, 0).contiguous().numpy().tobytes())
    pixel_hash.update(repr(shape).encode())
    return hashlib.sha256(data).hexdigest(), pixel_hash.hexdigest(), source.names[index], shape


def run(options: argparse.Namespace) -> int:
    """Runs the subcommand.

    Args:
        options: The parsed command line.

    Returns:
        The exit code: 1 if an image cannot be read or differs from the manifest.

    Raises:
        UserError: No source of images, or the report would replace another file.
    """
    if options.report is not None:
        check_output_file(f"--report {options.report}", options.report, _is_report, options.overwrite, "--overwrite")
    source = open_source(options.source, options.resolution or 256)
    bad: dict[str, str] = {}
    files: dict[str, str] = {}
    same: dict[str, list[str]] = {}
    sizes: Counter[tuple[int, int]] = Counter()
    small: list[str] = []
    results = ordered(inspect, source, range(len(source)), options.workers, "verifying")
    for index, result in enumerate(results):
        if isinstance(result, str):
            bad[source.names[index]] = result
            continue
        file, pixel_hash, name, shape = result
        files[name] = file
        same.setdefault(pixel_hash, []).append(name)
        sizes[shape] += 1
        if options.resolution and min(shape) < options.resolution:
            small.append(name)
    changed = _changed(options.source, source, files)
    classes, damaged = _classes(source)
    report: dict[str, Any] = {
        "path": str(options.source),
        "images": len(source),
        "bad": bad,
        "duplicates": [names for names in same.values() if len(names) > 1],
        "sizes": {f"{width}x{height}": count for (height, width), count in sizes.most_common()},
        "smaller": small,
        "changed": changed,
        "classes": classes,
        "classes_error": damaged,
        "left_out": list(source.left_out),
    }
    _print(report)
    if options.report is not None:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(options.report) as temporary:
            temporary.write_text(json_text(report), encoding="utf-8")
        print(f"report: {options.report}")
    return 1 if bad or changed else 0


def _is_report(file: Path) -> bool:
    return read_json_object(file, _MOST_REPORT_BYTES).keys() >= _KEYS


def _classes(source: Source) -> tuple[int | None, str | None]:
    """Returns the number of classes, or None and what is wrong with the file of classes."""
    try:
        classes = source.classes
    except UserError as error:
        return None, str(error)
    return None if classes is None else len(set(classes.tolist())), None


def _changed(path: Path, source: Source, files: dict[str, str]) -> list[str] | None:
    """Returns the names of files that differ from the manifest; None without a manifest."""
    text = read_manifest(path)
    if text is None:
        return None
    content = read_json(text, f"{path}: manifest")
    if not isinstance(content, dict) or not isinstance(content.get("images"), dict):
        raise UserError(f"{path}: its manifest was not written by prepare pack")
    expected = list(content["images"].items())
    names = source.names if len(expected) == len(source) else []
    # Shards change some names, but keep the order.
    found = [files.get(name, files.get(names[index]) if names else None) for index, (name, _) in enumerate(expected)]
    return [name for (name, sha256), file in zip(expected, found, strict=True) if file != sha256]


def _print(report: dict[str, Any]) -> None:
    print(f"{report['images']} images in {report['path']}")
    sizes = [f"{size} ({count})" for size, count in report["sizes"].items()]
    print(f"sizes: {name_list(sizes)}" if sizes else "sizes: none")
    for key, words in {
        "bad": "cannot be read",
        "smaller": "are smaller than --resolution",
        "changed": "differ from the manifest",
    }.items():
        if report[key]:
            print(f"{len(report[key])} {words}: {name_list(list(report[key]))}")
    for line in left_out_lines(report["left_out"]):
        print(line)
    if report["classes_error"]:
        print(f"the images have no classes: {printable(report['classes_error'])}")
    if report["duplicates"]:
        pairs = [" = ".join(names[:3]) for names in report["duplicates"]]
        more = sum(len(names) - 1 for names in report["duplicates"])
        print(f"{more} have the same pixels as another image: {name_list(pairs)}")
