"""The files of trained encoders that are part of the package: weights, and as plain data how they are used.

A file is safetensors with the weights of the encoder alone, in half precision. Its metadata names the method, the
encoder, the generator and the domain, which are looked up in fixed tables, and holds arguments and results as JSON.
Nothing in a file is executed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.encoders.small import SmallEncoder
from stylegan_inv.errors import UserError
from stylegan_inv.generators.io.weight_files import misfits
from stylegan_inv.utils.checks import check_numbers, one_of, real_number, true_or_false, whole_number
from stylegan_inv.utils.files import atomic_write
from stylegan_inv.utils.plain_data import check_plain
from stylegan_inv.utils.safetensors_files import open_safetensors, read_safetensors

ASSETS = Path(__file__).resolve().parent.parent / "assets" / "encoders"
FORMAT = "stylegan_inv.encoder"
#: The encoders that a file can name.
ENCODERS: dict[str, type[nn.Module]] = {"SmallEncoder": SmallEncoder}
#: The arguments of an encoder that a file can set.
ENCODER_ARGUMENTS = ("width", "fusion", "gain", "progressive", "rank")
_ARGUMENT_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "width": whole_number,
    "rank": whole_number,
    "gain": real_number,
    "progressive": true_or_false,
}
_LARGEST_RESOLUTION = 4096


@dataclass(frozen=True)
class ShippedEncoder:
    """What the metadata of a file say.

    Attributes:
        method: Class of the method, e.g. ``ReStyle``.
        method_arguments: Arguments of its constructor besides the networks.
        encoder: Class of the encoder, one of `ENCODERS`.
        encoder_arguments: Arguments of its constructor besides those that the method gives.
        generator: Name of the embedded generator.
        generator_hash: sha256 of the generator's file.
        domain: Domain of the images, which is also the name of the data set that it was trained with.
        resolution: Side length of the images, in pixels.
        command: Command of the training.
        metrics: Name -> value on the validation images, with the weights of this file.
        distances: Squared errors on the validation images, as
            `methods.common.reached_distances.ReachedDistances.to_plain` returns them.
    """

    method: str
    method_arguments: Mapping[str, Any]
    encoder: str
    encoder_arguments: Mapping[str, Any]
    generator: str
    generator_hash: str
    domain: str
    resolution: int
    command: str
    metrics: Mapping[str, float]
    distances: Mapping[str, Any]

    def to_metadata(self) -> dict[str, str]:
        """Returns the metadata of a file: texts as they are, everything else as JSON."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> ShippedEncoder:
        """Returns what `to_metadata` has stored.

        Raises:
            UserError: An entry that is missing or is of another type.
        """
        values: dict[str, Any] = {}
        for item in fields(cls):
            kind = {"str": str, "int": int}.get(str(item.type), dict)
            try:
                value = metadata[item.name] if kind is str else check_plain(json.loads(metadata[item.name]))
            except (KeyError, ValueError, RecursionError):
                value = None
            if not isinstance(value, kind):
                raise UserError(f"has no valid {item.name} in its metadata; expected a file of a trained encoder")
            check_numbers(value, item.name)
            values[item.name] = value
        whole_number("resolution", values["resolution"], 4, _LARGEST_RESOLUTION)
        return cls(**values)


def shipped_encoders() -> list[str]:
    """Returns the names of the trained encoders that are part of the package."""
    return sorted(path.stem for path in ASSETS.glob("*.safetensors"))


def shipped_file(run: str | Path) -> Path | None:
    """Returns the file of a trained encoder, which is named or given as a path; None for anything else."""
    if str(run) in shipped_encoders():
        return ASSETS / f"{run}.safetensors"
    path = Path(run)
    return path if path.suffix.lower() == ".safetensors" and path.is_file() and _format(path) == FORMAT else None


def save_shipped(encoder: nn.Module, about: ShippedEncoder, path: str | Path) -> None:
    """Writes the weights of an encoder, rounded to half precision, and what is said about it.

    Args:
        encoder: The trained encoder.
        about: The metadata.
        path: The file, which is replaced atomically.
    """
    from safetensors.torch import save_file

    state = {name: value.detach().cpu().to(torch.float16).contiguous() for name, value in encoder.state_dict().items()}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(Path(path)) as temporary:
        save_file(state, temporary, {"format": FORMAT, **about.to_metadata()})


def read_shipped(path: Path) -> tuple[ShippedEncoder, dict[str, Tensor]]:
    """Returns what a file says about the encoder, and its weights.

    Raises:
        UserError: A file that cannot be read, or that holds something else.
    """
    metadata, state = read_safetensors(path, "a trained encoder")
    try:
        return ShippedEncoder.from_metadata(metadata), state
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def build_shipped(about: ShippedEncoder, state: Mapping[str, Tensor], **shape: int) -> nn.Module:
    """Returns the encoder with its weights, in single precision.

    Args:
        about: What the file says.
        state: Its weights.
        **shape: ``num_ws``, ``w_dim`` and ``in_channels``, which the method gives.

    Raises:
        UserError: An unknown encoder, or arguments or weights that do not fit it.
    """
    if about.encoder not in ENCODERS:
        raise UserError(f"names the encoder {about.encoder}, expected one of {', '.join(ENCODERS)}")
    for name, value in about.encoder_arguments.items():
        one_of("encoder_arguments", name, ENCODER_ARGUMENTS)
        if name in _ARGUMENT_CHECKS and value is not None:
            _ARGUMENT_CHECKS[name](f"does not fit {about.encoder}: encoder_arguments.{name}", value)
    try:
        with torch.device("meta"):  # a file may claim a size that it does not have, and nothing is drawn at random
            encoder = ENCODERS[about.encoder](**about.encoder_arguments, **shape)
        if problems := misfits(encoder.state_dict(), state):
            raise UserError(f"does not fit {about.encoder}: {problems}")
        encoder.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    except UserError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"does not fit {about.encoder} ({str(error).splitlines()[0]})") from None
    return encoder


def _format(path: Path) -> str | None:
    from safetensors import SafetensorError

    try:
        with open_safetensors(path) as file:
            return (file.metadata() or {}).get("format")
    except (SafetensorError, OSError):
        return None
