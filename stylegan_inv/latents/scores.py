"""Scores: how much of an attribute a code's picture has, from networks, from files or from known factors."""

from __future__ import annotations

import csv
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

#: What the attributes of the embedded directions are called among SynthFaces' factors.
FACTOR_OF = {"pose": "yaw"}
_BATCH = 50


def attributes_of(values: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Columns (N, F) under names of factors -> attributes (N,): one for each number and for each choice.

    Choices that can be ``none`` (eyeglasses, beard) become one attribute, the probability of not being none; the values
    of others (hair style, clothes, background) one each. ``yaw`` is called pose.
    """
    found: dict[str, Tensor] = {}
    for column, name in enumerate(names):
        choice, _, value = name.partition("=")
        if value == "none":
            found[choice] = 1 - values[:, column]
        elif not value or f"{choice}=none" not in names:
            found["pose" if name == "yaw" else name] = values[:, column]
    return found


def synthfaces_normals(z: Tensor) -> Tensor:
    """The normals (N, K) behind z (N, Z) of the embedded generator, see `losses.paired.PairedWarmStart.latents`."""
    if z.shape[1] <= NUM_NORMALS:
        raise UserError(
            f"factors of z: got z of size {z.shape[1]}, expected more than {NUM_NORMALS}; only generators "
            "made from SynthFaces by pairs know the factors of their codes"
        )
    return normalize_2nd_moment(z)[:, :NUM_NORMALS]


def factor_scores(z: Tensor) -> dict[str, Tensor]:
    """Attributes (N,) of the SynthFaces factors that z (N, Z) of the embedded generator stands for."""
    vector = factors_from_normals(synthfaces_normals(z).cpu().numpy()).to_vector()
    return attributes_of(torch.from_numpy(vector), VECTOR_NAMES)


def with_factor(z: Tensor, attribute: str, quantile: float) -> Tensor:
    """Codes z (N, Z) of the same pictures but for one factor, which takes a quantile of its distribution.

    The normalised z keeps its length: what is no factor (the last entries of z) makes room.
    """
    factor = FACTOR_OF.get(attribute, attribute)
    if factor not in FACTORS:
        raise UserError(f"attribute {attribute}: not a factor of SynthFaces, expected one of {FACTORS}")
    known, rest = synthfaces_normals(z).clone(), normalize_2nd_moment(z)[:, NUM_NORMALS:]
    known[:, FACTORS.index(factor)] = float(np.sqrt(2)) * float(torch.erfinv(torch.tensor(2 * quantile - 1)))
    room = (z.shape[1] - known.square().sum(1, keepdim=True)).clamp_min(1e-3 * z.shape[1])
    return torch.cat([known, rest * (room / rest.square().sum(1, keepdim=True)).sqrt()], dim=1)


@torch.no_grad()
def read_out_scores(network: FaceNetwork, images: Tensor) -> dict[str, Tensor]:
    """Attributes (N,) that a face network reads in images (N, 3, H, W)."""
    values = torch.cat([network.read_out(part) for part in images.split(_BATCH)])
    return attributes_of(values, network.factor_names)


@torch.no_grad()
def pictures(generator: Generator, w: Tensor) -> Tensor:
    """Images (N, 3, R, R) in [-1, 1] of codes (N, D) or (N, L, D), with the stored noise."""
    ws = w[:, None].expand(-1, generator.num_ws, -1) if w.ndim == 2 else w
    return torch.cat([generator.synthesis(part).clamp(-1, 1) for part in ws.split(_BATCH)])


def csv_scores(path: str | Path, attribute: str, names: Sequence[str] | None = None) -> Tensor:
    """A column of a CSV file as scores (N,).

    Args:
        path: with a head line. With a column ``name`` its rows are found by it, else they are in the order of the
            codes.
        attribute: column to read.
        names: of the codes, where they have names.

    Raises:
        UserError: no such file, column or row; a score that is not a number.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a CSV file of scores")
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    columns = list(rows[0]) if rows else []
    if attribute not in columns:
        raise UserError(f"{path}: has no column {attribute!r} (it has {', '.join(columns) or 'no rows'})")
    if names is not None and "name" in columns:
        by_name = {row["name"]: row for row in rows}
        missing = [name for name in names if name not in by_name]
        if missing:
            raise UserError(f"{path}: has no row for {missing[0]} ({len(missing)} of {len(names)} are missing)")
        rows = [by_name[name] for name in names]
    try:
        return torch.tensor([float(row[attribute]) for row in rows])
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: a score of {attribute} is not a number ({error})") from None
