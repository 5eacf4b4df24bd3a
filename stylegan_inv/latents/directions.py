"""Editing directions, which are added to latent codes to change one attribute of an image, and their files.

A file is safetensors with the vector; its metadata hold the space, the layers, the unit, the origin and the generator.
Published boundaries (``.npy`` or ``.pt``) can be loaded as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators.io.torch_pickle import load_checked
from stylegan_inv.latents.numpy_files import read_npy
from stylegan_inv.utils.checks import one_of, real_number
from stylegan_inv.utils.domains import DOMAINS
from stylegan_inv.utils.safetensors_files import open_safetensors, write_safetensors

if TYPE_CHECKING:
    from stylegan_inv.generators import Generator

ASSETS = Path(__file__).resolve().parent.parent / "assets" / "directions"
KIND = "direction"
#: Bounds of the unit and of the numbers of a vector. Published boundaries have unit length; far larger codes overflow.
_LARGEST_UNIT = _LARGEST_NUMBER = 1e6
SPACES = ("w", "w+")


@dataclass(frozen=True, eq=False)  # == of tensors is not a bool
class Direction:
    """A direction in W or w+; an edit of strength s adds ``s * unit * vector`` to a code.

    Attributes:
        vector: (D,) in space ``w``, (L, D) in space ``w+``.
        name: Name of the attribute, for captions.
        space: ``w`` or ``w+``.
        layers: Layers of a w+ code that it changes; None for all.
        unit: Length in W of one unit of strength, for a vector of unit length; 1 for boundaries of InterFaceGAN.
        generator_hash: sha256 of the generator's file; None if it is unknown.
        made: Origin as text: method, samples, accuracy and so on.
        domain: Domain of the generator's images, one of `DOMAINS`; None if it is unknown.
    """

    vector: Tensor
    name: str
    space: str = "w"
    layers: tuple[int, ...] | None = None
    unit: float = 1.0
    generator_hash: str | None = None
    made: Mapping[str, str] = field(default_factory=dict)
    domain: str | None = None

    def __post_init__(self) -> None:
        one_of(f"direction {self.name}: space", self.space, SPACES)
        if self.vector.ndim != (1 if self.space == "w" else 2):
            shape = "(D,)" if self.space == "w" else "(L, D)"
            raise UserError(
                f"direction {self.name}: got a vector {tuple(self.vector.shape)} in {self.space}, expected {shape}"
            )
        if self.vector.is_complex():
            raise UserError(f"direction {self.name}: holds complex numbers, expected real ones")
        numbers = self.vector.float()
        if not bool(torch.isfinite(numbers).all()) or not bool(numbers.any()):
            raise UserError(f"direction {self.name}: is zero or not finite, expected a vector with a direction")
        if bool((numbers.abs() > _LARGEST_NUMBER).any()):
            raise UserError(
                f"direction {self.name}: holds numbers above {_LARGEST_NUMBER:g}, expected a direction in W"
            )
        real_number(f"direction {self.name}: unit", self.unit, above=0, most=_LARGEST_UNIT)
        layers = () if self.layers is None else self.layers
        if not isinstance(layers, tuple) or not all(type(layer) is int and layer >= 0 for layer in layers):
            raise UserError(f"direction {self.name}: layers are {self.layers!r}, expected whole numbers from 0 on")
        if not isinstance(self.made, Mapping) or not all(isinstance(v, str) for v in (*self.made, *self.made.values())):
            raise UserError(f"direction {self.name}: its origin is {str(self.made)[:60]}, expected texts by name")
        if self.domain is not None:
            one_of(f"direction {self.name}: domain", self.domain, DOMAINS)

    def apply(self, w: Tensor, strength: float | Tensor) -> Tensor:
        """Returns codes moved along the direction, (B, L, D).

        Args:
            w: Codes (B, L, D).
            strength: A number, or one for each code, (B,).

        Raises:
            UserError: The codes have another shape, or the strength is not finite.
        """
        self.check_shape(w.shape[1:] if w.ndim == 3 else w.shape)
        amount = torch.as_tensor(strength, dtype=w.dtype, device=w.device)
        if amount.ndim > 1 or (amount.ndim == 1 and len(amount) != len(w)) or not bool(torch.isfinite(amount).all()):
            raise UserError(f"direction {self.name}: got strength {strength}, expected a number, or one for each code")
        return w + self.unit * amount.reshape(-1, 1, 1) * self.rows(w.shape[1]).to(w)

    def rows(self, num_ws: int) -> Tensor:
        """Returns the vector of each layer, (L, D); zeros in layers that do not change."""
        rows = self.vector.expand(num_ws, -1) if self.vector.ndim == 1 else self.vector
        if self.layers is None:
            return rows
        chosen = torch.zeros(num_ws, 1, dtype=rows.dtype, device=rows.device)
        chosen[list(self.layers)] = 1
        return rows * chosen

    def on_layers(self, layers: Sequence[int] | None) -> Direction:
        """Returns the direction restricted to some layers; None returns it unchanged."""
        return self if layers is None else replace(self, layers=tuple(layers))

    def check_shape(self, code: Sequence[int]) -> None:
        """Raises a UserError unless the direction applies to codes of the shape (L, D)."""
        fits = (
            len(code) == 2
            and code[1] == self.vector.shape[-1]
            and (self.vector.ndim == 1 or code[0] == len(self.vector))
        )
        if not fits:
            first = "(L, " if self.vector.ndim == 1 else f"({len(self.vector)}, "
            raise UserError(
                f"direction {self.name}: got codes of shape {tuple(code)}, expected "
                f"{first}{self.vector.shape[-1]}); give a direction of this generator"
            )
        wrong = [layer for layer in self.layers or () if not 0 <= layer < code[0]]
        if wrong:
            raise UserError(
                f"direction {self.name}: changes layer {wrong[0]}, but the codes have layers 0 to {code[0] - 1}"
            )

    def check_generator(self, generator: Generator) -> None:
        """Raises a UserError if shapes or hashes show that the direction belongs to another generator."""
        self.check_shape((generator.num_ws, generator.w_dim))
        own, other = self.generator_hash, generator.source_hash
        if own is not None and other is not None and own != other:
            raise UserError(
                f"direction {self.name}: was made for another generator ({own[:12]}..., got {other[:12]}...); "
                "make one for this generator, or give edit.any_generator=true if it was fine-tuned from that one"
            )


def save_direction(direction: Direction, path: str | Path) -> Path:
    """Writes a direction as safetensors and returns the path; creates the folder.

    Raises:
        UserError: The file name has another suffix.
    """
    path = Path(path)
    if path.suffix.lower() != ".safetensors":
        raise UserError(f"{path}: directions are written as .safetensors")
    metadata = {
        "format": "pt",
        "kind": KIND,
        "name": direction.name,
        "space": direction.space,
        "layers": json.dumps(direction.layers),
        "unit": repr(float(direction.unit)),
        "generator_hash": direction.generator_hash or "",
        "made": json.dumps(dict(direction.made)),
        "domain": direction.domain or "",
    }
    vector = direction.vector.detach().float().cpu().contiguous().clone()
    write_safetensors(path, {"direction": vector}, metadata)
    return path


def embedded_directions() -> list[str]:
    """Returns the names of the directions that are part of the package."""
    return sorted(path.stem for path in ASSETS.glob("*.safetensors"))


def load_direction(
    name_or_path: str | Path, generator: Generator | None = None, *, any_generator: bool = False
) -> Direction:
    """Loads a direction.

    Args:
        name_or_path: Name of an embedded direction (``age``, ``smile`` ...), a file of `save_direction`, or a published
            boundary: ``.npy`` or ``.pt`` with an array (D,), (1, D), (L, D) or (1, L, D) in units of W.
        generator: Generator that the direction must fit; None checks nothing.
        any_generator: Whether to check shapes only. Fine-tuned generators can use the directions of the original one.

    Raises:
        UserError: There is no such name or file, the file holds something else, or the direction belongs to another
            generator.
    """
    path = _locate(name_or_path)
    try:
        direction = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_array(path)
    except UserError:
        raise
    except Exception as error:  # torch, numpy and safetensors raise many kinds of errors
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: cannot be read as a direction ({reason}); give another file") from error
    if generator is not None and any_generator:
        direction.check_shape((generator.num_ws, generator.w_dim))
    elif generator is not None:
        direction.check_generator(generator)
    return direction


def is_direction(file: Path) -> bool:
    """Returns whether a regular file is one of `save_direction`; its numbers are not read."""
    try:
        with open_safetensors(file) as opened:
            return (opened.metadata() or {}).get("kind") == KIND
    except (SafetensorError, OSError, UserError):
        return False


def _locate(name_or_path: str | Path) -> Path:
    path = Path(name_or_path).expanduser()
    if path.name == str(name_or_path) and not path.suffix and (ASSETS / f"{name_or_path}.safetensors").is_file():
        return ASSETS / f"{name_or_path}.safetensors"
    if not path.is_file():
        raise UserError(
            f"direction {str(name_or_path)!r}: no such file or embedded direction (embedded: "
            f"{', '.join(embedded_directions()) or 'none'}); give one of them, or a .safetensors, .npy or .pt file"
        )
    return path


def _read_safetensors(path: Path) -> Direction:
    with open_safetensors(path) as file:
        metadata = file.metadata() or {}
        if metadata.get("kind") != KIND:
            raise UserError(f"{path}: holds a {metadata.get('kind', 'file of tensors')}, expected a direction")
        vector = file.get_tensor("direction")
    layers = json.loads(metadata["layers"])
    return Direction(
        vector,
        metadata["name"],
        metadata["space"],
        None if layers is None else tuple(layers),
        float(metadata["unit"]),
        metadata["generator_hash"] or None,
        json.loads(metadata["made"]),
        # The embedded directions are of the embedded generator.
        "synthfaces" if path.parent == ASSETS else metadata.get("domain") or None,
    )


def _read_array(path: Path) -> Direction:
    """Reads a published boundary: InterFaceGAN's ``.npy`` (1, 512), e4e's ``.pt`` (1, 512) and (1, 18, 512)."""
    content: Any
    if path.suffix.lower() == ".npy":
        content = torch.from_numpy(read_npy(path))
    elif path.suffix.lower() in (".pt", ".pth"):
        content = load_checked(path)
    else:
        raise UserError(f"{path}: expected a direction as .safetensors, .npy or .pt")
    if isinstance(content, Mapping) and {"mean", "comp", "std"} <= set(content):
        raise UserError(
            f"{path}: holds GANSpace's components, not one direction; see stylegan_inv.latents.discovery.ganspace"
        )
    if not isinstance(content, Tensor) or not content.is_floating_point():
        raise UserError(f"{path}: holds a {type(content).__name__}, expected an array of numbers")
    vector = content.float()
    if vector.ndim > 1 and len(vector) == 1:
        vector = vector[0]
    if vector.ndim not in (1, 2):
        raise UserError(f"{path}: got an array {tuple(content.shape)}, expected (D,), (1, D), (L, D) or (1, L, D)")
    return Direction(vector, path.stem, "w" if vector.ndim == 1 else "w+", made={"file": path.name})
