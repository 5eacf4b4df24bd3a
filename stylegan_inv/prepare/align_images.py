"""``prepare align``: crops and rotates photographs into portraits, aligned as FFHQ's."""

from __future__ import annotations

import argparse
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from stylegan_inv.data.alignment.face_alignment import align_face, face_quad
from stylegan_inv.data.alignment.landmarks import check_predictor, find_faces, find_predictor, read_landmarks
from stylegan_inv.data.images.decoding import BadImage, decode, stored_size
from stylegan_inv.data.images.image_files import distinct_names, left_out_lines, name_list, storable_name
from stylegan_inv.data.sources.name_lists import stem
from stylegan_inv.data.sources.opening import open_source
from stylegan_inv.data.sources.source import CompactStrings, Source
from stylegan_inv.errors import UserError
from stylegan_inv.prepare.reports import check_report, check_target
from stylegan_inv.utils.command_line import whole
from stylegan_inv.utils.files import atomic_write
from stylegan_inv.utils.parallel import ordered
from stylegan_inv.utils.text import json_text, readable

DESCRIPTION = "crop and rotate photographs into portraits, aligned as FFHQ's"
REPORT = "align.json"
#: Largest side in pixels; an image of this side has 3 GB.
_MOST_SIDE = 1 << 15


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this subcommand to a parser."""
    parser.add_argument("source", type=Path, help="folder, zip file, LMDB, tar shards or list of photographs")
    parser.add_argument("target", type=Path, help="folder of the portraits; existing files are kept")
    parser.add_argument("--size", **whole(1, _MOST_SIDE), default=1024, help="side of the portraits in pixels")
    parser.add_argument(
        "--supersampling", **whole(1, 16), default=4, help="factor at which faces are rotated: FFHQ 4, pSp 1"
    )
    parser.add_argument(
        "--no-padding", action="store_true", help="fill the area outside of the photograph with black, not reflections"
    )
    parser.add_argument("--faces", choices=("largest", "all"), default="largest", help="which faces to align")
    parser.add_argument("--landmarks", type=Path, help="JSON or CSV file of landmarks, used instead of dlib")
    parser.add_argument("--predictor", type=Path, help="path of dlib's shape_predictor_68_face_landmarks.dat")


@dataclass
class _Aligner:
    source: Source
    options: argparse.Namespace
    landmarks: dict[str, list[np.ndarray]] | None
    predictor: Path | None
    stems: Sequence[str]
    taken: frozenset[str]

    def name(self, index: int, face: int) -> str:
        """Returns the name of the file of a face, which is the first face of no other image."""
        stem = self.stems[index]
        numbers = (number for number in itertools.count(1) if f"{stem}_{number}".casefold() not in self.taken)
        return f"{stem}.png" if face == 0 else f"{stem}_{next(itertools.islice(numbers, face - 1, None))}.png"


def align(aligner: _Aligner, index: int) -> dict[str, Any]:
    """Aligns the faces of an image and writes them.

    Args:
        aligner: The source and the options.
        index: Position of the image in the source.

    Returns:
        The image's entry of the report.
    """
    options, name = aligner.options, aligner.source.names[index]
    entry: dict[str, Any] = {"name": name, "status": "aligned", "faces": 0, "written": [], "kept": []}
    try:
        pixels = np.ascontiguousarray(decode(aligner.source.read(index), name).permute(1, 2, 0).numpy())
    except BadImage as error:
        return {**entry, "status": "unreadable", "reason": str(error)}
    if aligner.landmarks is not None:
        faces = aligner.landmarks.get(stem(name), [])
    else:
        assert aligner.predictor is not None
        faces = find_faces(pixels, aligner.predictor)
    entry["faces"] = len(faces)
    if not faces:
        return {**entry, "status": "no face"}
    entry["quads"] = []
    for number, landmarks in enumerate(faces if options.faces == "all" else faces[:1]):
        path = options.target / PurePosixPath(aligner.name(index, number))
        try:
            entry["quads"].append(face_quad(landmarks).round(3).tolist())
            if not path.exists():
                photograph = Image.fromarray(pixels)
                face = align_face(photograph, landmarks, options.size, options.supersampling, not options.no_padding)
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(path) as temporary:
                    face.save(temporary)
            else:
                entry["kept"].append(path.relative_to(options.target).as_posix())
            entry["written"].append(path.relative_to(options.target).as_posix())
        except UserError as error:
            return {**entry, "status": "wrong landmarks", "reason": str(error)}
    return entry


def run(options: argparse.Namespace) -> int:
    """Runs the subcommand.

    Args:
        options: The parsed command line.

    Returns:
        The exit code: 1 if no face was found.

    Raises:
        UserError: Bad input, or no face detector.
    """
    if options.size * options.supersampling > _MOST_SIDE:
        raise UserError(
            f"--size {options.size} --supersampling {options.supersampling}: faces would be rotated at "
            f"{options.size * options.supersampling} px, expected at most {_MOST_SIDE}; give a smaller --supersampling"
        )
    check_target(options.source, options.target)
    source = open_source(options.source)
    stems = Counter(stem(name) for name in source.names)
    repeated = [name for name, count in stems.items() if count > 1]
    if repeated and options.landmarks is not None:
        raise UserError(
            f"{options.source}: {len(repeated)} names occur with several suffixes: {name_list(repeated)}; rename them, "
            "as --landmarks names images without suffix"
        )
    landmarks = None if options.landmarks is None else read_landmarks(options.landmarks)
    predictor = None if landmarks is not None else options.predictor or _predictor()
    if predictor is not None:
        check_predictor(predictor)
    check_report(options.target / REPORT, "images")
    names = distinct_names([storable_name(readable(name)) for name in source.names], ".png")
    files = CompactStrings(name.removesuffix(".png") for name in names)
    aligner = _Aligner(source, options, landmarks, predictor, files, frozenset(one.casefold() for one in files))
    entries = list(ordered(align, aligner, range(len(source)), options.workers, "aligning"))
    options.target.mkdir(parents=True, exist_ok=True)
    report = {"source": str(options.source), "images": entries, "left_out": list(source.left_out)}
    with atomic_write(options.target / REPORT) as temporary:
        temporary.write_text(json_text(report, 1), encoding="utf-8")
    _print_summary(entries, options, source.left_out)
    return 0 if any(entry["status"] == "aligned" for entry in entries) else 1


def _predictor() -> Path:
    if (found := find_predictor()) is None:
        raise UserError(
            "face detection needs dlib and its model: pip install 'stylegan_inv[align]'; or give --landmarks FILE with "
            "the landmarks of each image"
        )
    return found


def _print_summary(entries: list[dict[str, Any]], options: argparse.Namespace, left_out: Sequence[str]) -> None:
    aligned = [entry for entry in entries if entry["status"] == "aligned"]
    faces = sum(len(entry["written"]) for entry in entries)
    print(f"{len(aligned)} of {len(entries)} images aligned, {faces} faces at {options.size} px in {options.target}")
    for status in ("no face", "unreadable", "wrong landmarks"):
        if names := [entry["name"] for entry in entries if entry["status"] == status]:
            print(f"{len(names)} skipped, {status}: {name_list(names)}")
    if several := [entry["name"] for entry in aligned if entry["faces"] > len(entry["written"])]:
        print(f"{len(several)} show several faces, of which the largest was aligned: {name_list(several)}")
    if kept := [name for entry in entries for name in entry["kept"]]:
        print(f"{len(kept)} existed already and are kept as they are: {name_list(kept)}")
        if odd := [name for name in kept if not _has_side(options.target / name, options.size)]:
            print(f"{len(odd)} of these are not of {options.size} px: {name_list(odd)}; remove them, and align again")
    for line in left_out_lines(left_out):
        print(line)
    print(f"report: {options.target / REPORT}")


def _has_side(file: Path, side: int) -> bool:
    try:
        return stored_size(file) == (side, side)
    except BadImage:
        return False
