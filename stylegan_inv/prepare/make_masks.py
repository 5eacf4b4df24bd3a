"""``prepare masks``: makes masks of the region of interest from label maps, other masks or a segmentation network."""

from __future__ import annotations

import argparse
import functools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import distance_transform_edt

from stylegan_inv.data.images.decoding import BadImage, decode, decode_levels
from stylegan_inv.data.images.image_files import left_out_lines, name_list
from stylegan_inv.data.sources.name_lists import match, stem
from stylegan_inv.data.sources.opening import open_source
from stylegan_inv.data.sources.source import Source
from stylegan_inv.errors import UserError
from stylegan_inv.prepare.reports import check_report, check_target, is_report
from stylegan_inv.utils.command_line import real, whole
from stylegan_inv.utils.files import atomic_write
from stylegan_inv.utils.parallel import ordered
from stylegan_inv.utils.text import json_text

DESCRIPTION = "make masks of the region of interest from label maps, other masks or a segmentation network"
REPORT = "masks.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this subcommand to a parser."""
    parser.add_argument("kind", choices=("labels", "folder", "model"), help="what the masks are made from")
    parser.add_argument("source", type=Path, help="label maps; masks; for model, the images")
    parser.add_argument("target", type=Path, help="folder of the masks; white is the region of interest")
    parser.add_argument(
        "--classes", **whole(0, 65535), nargs="+", help="classes of the region of interest; for labels and model"
    )
    parser.add_argument("--outside", action="store_true", help="invert the region")
    parser.add_argument(
        "--dilate", **real(-100_000, 100_000), default=0.0, help="pixels by which the region grows; negative: shrinks"
    )
    parser.add_argument("--threshold", **real(0, 1), default=0.5, help="threshold of masks from a folder, 0 to 1")
    parser.add_argument("--images", type=Path, help="images that must all have a mask; masks get their sizes")
    parser.add_argument("--model", type=Path, help="weights of one of torchvision's segmentation networks")
    parser.add_argument(
        "--model-side", **whole(32, 8192), default=512, help="side of the network's square input in pixels"
    )


@dataclass
class _Maker:
    source: Source
    images: Source | None
    options: argparse.Namespace


def make_mask(maker: _Maker, index: int) -> dict[str, Any]:
    """Makes the mask of an image and writes it.

    Args:
        maker: The source and the options.
        index: Position of the image in the source.

    Returns:
        The image's entry of the report.
    """
    options, source = maker.options, maker.source
    name = source.names[index] if maker.images is None else maker.images.names[index]
    try:
        inside = dilated(_inside(maker, index) != options.outside, options.dilate)
        mask = Image.fromarray(inside.astype(np.uint8) * 255)
        if maker.images is not None:
            height, width = decode(maker.images.read(index), maker.images.where(index)).shape[-2:]
            mask = mask.resize((width, height), Image.Resampling.NEAREST)
    except BadImage as error:
        return {"name": name, "status": "unreadable", "reason": str(error)}
    path = options.target / f"{stem(name)}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        mask.save(temporary)
    return {"name": name, "status": "written" if inside.any() else "empty", "share": round(float(inside.mean()), 4)}


def _inside(maker: _Maker, index: int) -> np.ndarray:
    data, where, options = maker.source.read(index), maker.source.where(index), maker.options
    if options.kind == "folder":
        bright: np.ndarray = decode(data, where).float().mean(0).numpy() / 255 > options.threshold
        return bright
    if options.kind == "labels":
        return np.isin(decode_levels(data, where)[0].numpy(), options.classes)
    from stylegan_inv.prepare.segmentation import segment

    return np.isin(segment(_network(options.model), decode(data, where), options.model_side), options.classes)


@functools.cache
def _network(path: Path) -> torch.nn.Module:
    from stylegan_inv.prepare.segmentation import load_segmentation  # takes seconds to import

    return load_segmentation(path)


def dilated(inside: np.ndarray, pixels: float) -> np.ndarray:
    """Dilates a region by a disc, or erodes it.

    Args:
        inside: Region ``(H, W)``, boolean. Pixels outside of the image neither dilate nor erode it.
        pixels: Radius of the disc; a negative radius erodes.
    """
    if pixels == 0 or inside.all() or not inside.any():
        return inside
    near: np.ndarray = (
        distance_transform_edt(~inside) <= pixels if pixels > 0 else distance_transform_edt(inside) > -pixels
    )
    return near


def run(options: argparse.Namespace) -> int:
    """Runs the subcommand.

    Args:
        options: The parsed command line.

    Returns:
        The exit code: 1 if an image could not be read.

    Raises:
        UserError: Bad input.
    """
    if (options.classes is None) != (options.kind == "folder"):
        raise UserError(f"masks {options.kind}: labels and model require --classes, and folder does not take them")
    if (options.model is None) == (options.kind == "model"):
        raise UserError(f"masks {options.kind}: model requires --model, and the others do not take it")
    source = open_source(options.source)
    images = None
    if options.images is not None:
        images = open_source(options.images)
        source = source.subset(match(source, images.names, "mask", f"images of {options.images}"))
    if options.kind == "model":
        _network(options.model)  # reports a wrong file before any work starts
    check_target(options.source, options.target)
    _check_targets(options.target, source if images is None else images)
    maker = _Maker(source, images, options)
    entries = list(ordered(make_mask, maker, range(len(source)), options.workers, "masks"))
    options.target.mkdir(parents=True, exist_ok=True)
    report = {"source": str(options.source), "masks": entries, "left_out": list(source.left_out)}
    with atomic_write(options.target / REPORT) as temporary:
        temporary.write_text(json_text(report, 1), encoding="utf-8")
    names = {s: [e["name"] for e in entries if e["status"] == s] for s in ("written", "empty", "unreadable")}
    print(f"{len(names['written']) + len(names['empty'])} of {len(entries)} masks in {options.target}")
    for status, words in (("empty", "are empty"), ("unreadable", "cannot be read and have no mask")):
        if names[status]:
            print(f"{len(names[status])} {words}: {name_list(names[status])}")
    for line in left_out_lines(source.left_out):
        print(line)
    print(f"report: {options.target / REPORT}")
    return 1 if names["unreadable"] else 0


def _check_targets(target: Path, named: Source) -> None:
    """Raises a UserError if two masks had one file, or a mask the file of something else."""
    files = Counter(f"{stem(name)}.png" for name in named.names)
    if twice := [file for file, count in files.items() if count > 1]:
        raise UserError(
            f"{named.path}: {len(twice)} names occur with several suffixes: {name_list(twice)}; rename them"
        )
    check_report(target / REPORT, "masks")
    if not is_report(target / REPORT, "masks") and (there := [file for file in files if (target / file).exists()]):
        raise UserError(f"{target}: has {name_list(there)}, which would be replaced by masks; give another folder")
