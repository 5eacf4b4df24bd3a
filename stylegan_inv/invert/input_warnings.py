"""Recognises input images that a method was not made for: of another domain, not aligned, or too small.

Nothing is judged that is not known: a distance only for a method that was validated, and the place of a face only for
methods of faces and where dlib is installed.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from stylegan_inv.data.alignment.landmarks import find_faces, find_predictor
from stylegan_inv.data.alignment.placement import Placement
from stylegan_inv.data.images.decoding import stored_size
from stylegan_inv.data.images.image_files import name_list, to_uint8
from stylegan_inv.data.images.resizing import Geometry
from stylegan_inv.errors import UserError
from stylegan_inv.methods.common.reached_distances import Limits, ReachedDistances
from stylegan_inv.utils.files import atomic_write, real_path
from stylegan_inv.utils.plain_data import read_json_object
from stylegan_inv.utils.text import json_text

if TYPE_CHECKING:  # Lightning takes seconds to import; errors in the input are reported before
    from stylegan_inv.methods.common.base import InversionMethod

WARNINGS = "warnings.json"
#: The detector sees images of this size, and finds faces of 40 px in them; larger images would take longer.
_DETECTION_SIZE = 256
#: Generators of this size are taken for those of FFHQ if their domain is not known.
_FFHQ_SIZE = 1024


@dataclass(frozen=True)
class Kind:
    """A kind of warning.

    Attributes:
        caption: A few words for contact sheets.
        message: What is wrong with the images, for one line on the terminal.
        cure: What to do about it; ``{align}`` is the command that aligns the input.
    """

    caption: str
    message: str
    cure: str


_ALIGN = "align photographs of faces with: {align}"
KINDS = {
    "distance": Kind(
        "other domain?",
        "seem to be of another domain, as their reconstructions are far worse than in validation",
        "give run=<a method that was trained on such images>",
    ),
    "not_square": Kind(
        "not aligned",
        "are not square, so not aligned, and are cut or get bars",
        f"{_ALIGN}; with pip install 'stylegan_inv[align]' the place of the face is judged, too",
    ),
    "not_aligned": Kind("not aligned", "show a face that is not where the alignment of FFHQ puts it", _ALIGN),
    "small_face": Kind("small face", "show a face that fills less than half of the image's side", _ALIGN),
    "no_face": Kind("no face found", "show no face that is found", _ALIGN),
    "small_image": Kind("enlarged", "are smaller than the method's input and are enlarged", "give larger images"),
}


@dataclass
class Finding:
    """An image that a method was not made for.

    Attributes:
        index: Index of the image.
        kind: One of `KINDS`.
        value: For ``distance``, the mean squared error of the reconstruction in squared units of [-1, 1]; for
            ``not_square``, the longer side by the shorter side; for ``not_aligned``, the largest distance of a corner
            of the face's square from that of the image, and for ``small_face``, the side of this square, both in sides
            of the image; for ``small_image``, the factor by which the image is enlarged; None for ``no_face``.
        relative: For ``distance``, the mean squared error relative to the variance of the image; else None.
    """

    index: int
    kind: str
    value: float | None = None
    relative: float | None = None


@dataclass(frozen=True)
class InputCheck:
    """Judges the images of a command. Holds no network, so that the processes that read images can have a copy.

    Attributes:
        geometry: How files become inputs of the method.
        reached: The distances that the method reached in validation; None if distances are not judged.
        faces: Whether the images should be aligned faces.
        predictor: File of dlib's landmark model; None if dlib is not installed.
    """

    geometry: Geometry
    reached: ReachedDistances | None = None
    faces: bool = False
    predictor: Path | None = None

    @classmethod
    def of(cls, method: InversionMethod, geometry: Geometry, compares: bool) -> InputCheck:
        """Returns what is known about the images that a method was made for.

        Args:
            method: The method.
            geometry: How files become inputs of the method.
            compares: Whether the reconstructions are compared with the inputs, as in the method's validation.
        """
        reached, faces = method.reached, shows_faces(method)
        comparable = compares and reached is not None and reached.size == geometry.resolution
        return cls(geometry, reached if comparable else None, faces, find_predictor() if faces else None)

    @property
    def limits(self) -> Limits | None:
        """The distances from which on an image counts as one of another domain; None if they are not judged."""
        return None if self.reached is None else self.reached.limits()

    def check_file(self, index: int, file: Path, image: Tensor) -> list[Finding]:
        """Judges an image file.

        Args:
            index: Index of the image.
            file: The file.
            image: What was read from it, (3, S, S) in [-1, 1].
        """
        height, width = stored_size(file)
        scale = self.geometry.scale_factor(height, width)
        found = [Finding(index, "small_image", scale)] if scale > 1 else []
        if not self.faces:
            return found
        if self.predictor is not None:
            return found + _judge_face(index, image, self.predictor)
        if height != width:
            found.append(Finding(index, "not_square", max(height, width) / min(height, width)))
        return found

    def check_distances(self, indices: Sequence[int], distances: Tensor, relative: Tensor) -> list[Finding]:
        """Judges how far reconstructions are from their images; what is not finite is not judged.

        Args:
            indices: Index of each image.
            distances: Mean squared error of each reconstruction, (B,).
            relative: The same relative to the variance of each image, (B,).
        """
        if self.reached is None:
            return []
        rows = self.reached.are_far(distances, relative).nonzero().flatten().tolist()
        return [Finding(indices[row], "distance", float(distances[row]), float(relative[row])) for row in rows]


def shows_faces(method: InversionMethod) -> bool:
    """Returns whether a method was made for aligned photographs of faces."""
    domain = method.domain or method.generator.domain
    return domain == "faces" or (domain is None and method.generator.resolution == _FFHQ_SIZE)


def remove_warnings(folder: Path) -> None:
    """Removes the warnings of an earlier result; another file of that name stays."""
    if read_json_object(folder / WARNINGS).keys() & KINDS.keys():
        (folder / WARNINGS).unlink(missing_ok=True)


def _judge_face(index: int, image: Tensor, predictor: Path) -> list[Finding]:
    size = _DETECTION_SIZE
    resized = F.interpolate(image[None], (size, size), mode="bilinear", antialias=True)[0]
    pixels = to_uint8(resized).permute(1, 2, 0).contiguous().numpy()
    placements = [p for p in (_placement(face, size) for face in find_faces(pixels, predictor)) if p is not None]
    if not placements:
        return [Finding(index, "no_face")]
    # Other people in the background do not matter.
    best = min(placements, key=lambda placement: placement.offset)
    if best.is_aligned:
        return []
    if best.is_small:
        return [Finding(index, "small_face", best.scale)]
    return [Finding(index, "not_aligned", best.offset)]


def _placement(landmarks: np.ndarray, size: int) -> Placement | None:
    try:
        return Placement.of(landmarks, size)
    except UserError:  # landmarks that coincide
        return None


@dataclass
class InputWarnings:
    """All findings about the images of a command.

    Attributes:
        findings: The findings.
        names: Name of every image.
        source: What the user gave as input, for the command that aligns it.
        limits: The distances from which on an image counts as one of another domain; None if they are not judged.
    """

    findings: list[Finding]
    names: Sequence[str]
    source: str
    limits: Limits | None = None

    def captions(self) -> dict[int, list[str]]:
        """Returns the captions of each image that has any, by its index."""
        captions: dict[int, list[str]] = {}
        for finding in self.findings:
            captions.setdefault(finding.index, []).append(KINDS[finding.kind].caption)
        return captions

    def lines(self) -> list[str]:
        """Returns one line for each kind of warning."""
        lines = []
        for kind, findings in self._by_kind():
            names = name_list([self.names[finding.index] for finding in findings[:5]])
            more = f" and {len(findings) - 5} more" if len(findings) > 5 else ""
            lines.append(
                f"warning: {len(findings)} of {len(self.names)} images {KINDS[kind].message}: {names}{more}; "
                f"{self._cure(kind)}"
            )
        return lines

    def write(self, folder: Path) -> Path | None:
        """Writes all findings to ``warnings.json``; returns the file, or None without findings."""
        if not self.findings:
            return None
        content = {
            kind: {
                "message": KINDS[kind].message,
                "cure": self._cure(kind),
                **({"limits": asdict(self.limits)} if kind == "distance" and self.limits is not None else {}),
                "images": [self._entry(one) for one in findings],
            }
            for kind, findings in self._by_kind()
        }
        with atomic_write(folder / WARNINGS) as temporary:
            temporary.write_text(json_text(content, 1), encoding="utf-8")
        return folder / WARNINGS

    def _entry(self, finding: Finding) -> dict[str, Any]:
        numbers = {"value": finding.value, "relative": finding.relative}
        return {
            "name": self.names[finding.index],
            **{name: number for name, number in numbers.items() if number is not None},
        }

    def _by_kind(self) -> Iterable[tuple[str, list[Finding]]]:
        groups: dict[str, list[Finding]] = {kind: [] for kind in KINDS}
        for finding in self.findings:
            groups[finding.kind].append(finding)
        for kind, found in groups.items():
            if found:
                yield kind, sorted(found, key=lambda finding: finding.index)

    def _cure(self, kind: str) -> str:
        given = Path(self.source)
        named = given if given.name.strip(".") else real_path(given)  # not "." or ".."
        target = named.with_name(f"{named.stem}_aligned")
        align = f"python -m stylegan_inv.prepare align {shlex.quote(self.source)} {shlex.quote(str(target))}"
        return KINDS[kind].cure.format(align=align)
