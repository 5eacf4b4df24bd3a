"""Attribute scores of codes, from networks, from files or from known factors."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stylegan_inv.data.synthfaces.factor_specs import FACTORS, NUM_NORMALS, VECTOR_NAMES
from stylegan_inv.data.synthfaces.factors import factors_from_normals
from stylegan_inv.encoders.face_network import FaceNetwork
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.generators.layers import normalize_2nd_moment
from stylegan_inv.utils.checks import one_of
from stylegan_inv.utils.regular_files import read_text
from stylegan_inv.utils.text import name_in_cell

#: Attribute of the embedded directions -> factor of SynthFaces, where the names differ.
FACTOR_OF = {"pose": "yaw"}
_BATCH = 50
#: A million rows of names and scores have 50 MB.
_MAX_CSV_BYTES = 1 << 28


def attributes_of(values: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Returns attributes (N,) by name, one for each number and for each choice.

    A choice with the value ``none`` (eyeglasses, beard) becomes one attribute, the probability of the other values.
    Other choices (hair style, clothes, background) become one attribute per value. ``yaw`` is renamed to ``pose``.

    Args:
        values: (N, F).
        names: Names of the columns; columns named ``group=value`` form one choice.
    """
    attributes: dict[str, Tensor] = {}
    for column, name in enumerate(names):
        choice, _, value = name.partition("=")
        if value == "none":
            attributes[choice] = 1 - values[:, column]
        elif not value or f"{choice}=none" not in names:
            attributes["pose" if name == "yaw" else name] = values[:, column]
    return attributes


def synthfaces_normals(z: Tensor) -> Tensor:
    """Returns the normals (N, K) that z (N, Z) of the embedded generator encodes, see `PairedWarmStart.latents`.

    Raises:
        UserError: Z is too small.
    """
    if z.shape[1] <= NUM_NORMALS:
        raise UserError(
            f"factors of z: got z of size {z.shape[1]}, expected more than {NUM_NORMALS}; only generators "
            "trained on pairs of SynthFaces know the factors of their codes"
        )
    return normalize_2nd_moment(z)[:, :NUM_NORMALS]


def factor_scores(z: Tensor) -> dict[str, Tensor]:
    """Returns the attributes (N,) of SynthFaces that z (N, Z) of the embedded generator encodes, by name."""
    vector = factors_from_normals(synthfaces_normals(z).cpu().numpy()).to_vector()
    return attributes_of(torch.from_numpy(vector), VECTOR_NAMES)


def with_factor(z: Tensor, attribute: str, quantile: float) -> Tensor:
    """Returns codes z that differ in one factor only, which is set to a quantile of its distribution.

    The length of the normalised z is preserved: its last entries, which encode no factor, are rescaled.

    Args:
        z: (N, Z).
        attribute: A factor of SynthFaces, or ``pose``.
        quantile: Quantile in (0, 1).

    Raises:
        UserError: The attribute is not a factor.
    """
    factor = one_of("attribute", FACTOR_OF.get(attribute, attribute), FACTORS, "these are the factors of SynthFaces")
    known, rest = synthfaces_normals(z).clone(), normalize_2nd_moment(z)[:, NUM_NORMALS:]
    known[:, FACTORS.index(factor)] = float(np.sqrt(2)) * float(torch.erfinv(torch.tensor(2 * quantile - 1)))
    remaining = (z.shape[1] - known.square().sum(1, keepdim=True)).clamp_min(1e-3 * z.shape[1])
    return torch.cat([known, rest * (remaining / rest.square().sum(1, keepdim=True)).sqrt()], dim=1)


@torch.no_grad()
def predict_attributes(network: FaceNetwork, images: Tensor) -> dict[str, Tensor]:
    """Returns the attributes (N,) that a face network predicts for images (N, 3, H, W), by name."""
    values = torch.cat([network.read_out(part) for part in images.split(_BATCH)])
    return attributes_of(values, network.factor_names)


@torch.no_grad()
def render(generator: Generator, w: Tensor) -> Tensor:
    """Returns images (N, 3, R, R) in [-1, 1] of codes (N, D) or (N, L, D), with the stored noise."""
    ws = w[:, None].expand(-1, generator.num_ws, -1) if w.ndim == 2 else w
    return torch.cat([generator.synthesis(part).clamp(-1, 1) for part in ws.split(_BATCH)])


def csv_scores(path: str | Path, attribute: str, names: Sequence[str] | None = None) -> Tensor:
    """Returns a column of a CSV file as scores (N,).

    Args:
        path: File with a header line. If it has a column ``name`` and the codes have names, rows are found by name;
            otherwise they are in the order of the codes.
        attribute: The column.
        names: Names of the codes, if they have names.

    Raises:
        UserError: There is no such file, column or row, or a score is not a number.
    """
    text = read_text(path, _MAX_CSV_BYTES, "a CSV file of scores")
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise UserError(f"{path}: cannot be read ({error}); expected a CSV file of scores in UTF-8") from error
    columns = list(rows[0]) if rows else []
    if attribute not in columns:
        raise UserError(f"{path}: has no column {attribute!r} (it has {', '.join(columns) or 'no rows'})")
    if names is not None and "name" in columns:
        by_name = {name_in_cell(row["name"] or ""): row for row in rows}
        missing = [name for name in names if name_in_cell(name) not in by_name]
        if missing:
            raise UserError(f"{path}: has no row for {missing[0]} ({len(missing)} of {len(names)} are missing)")
        rows = [by_name[name_in_cell(name)] for name in names]
    try:
        return torch.tensor([float(row[attribute]) for row in rows])
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: a score of {attribute} is not a number ({error})") from None
