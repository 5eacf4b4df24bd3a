"""InterFaceGAN: attribute boundaries as directions.

"Interpreting the Latent Space of GANs for Semantic Face Editing", Shen, Gu, Tang, Zhou, CVPR 2020, arXiv 1907.10786.
Official code: https://github.com/genforce/interfacegan (8da3fc0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import real_number


@dataclass(frozen=True, eq=False)
class Boundary:
    """A hyperplane between codes with and without an attribute.

    Attributes:
        normal: Unit vector (D,) towards high scores.
        accuracy: Fraction of held-out codes on the correct side; None if no codes were held out.
        count: Number of training codes on each side.
    """

    normal: Tensor
    accuracy: float | None
    count: int


def extreme_codes(scores: Tensor, chosen: float, invalid: float | None = None) -> tuple[Tensor, Tensor]:
    """Returns the indices of the highest and of the lowest scores, each in descending order of the score.

    Args:
        scores: (N,).
        chosen: Size of each side: a fraction of all codes (below 1; the paper uses 0.02) or a number of codes.
        invalid: Codes with this score are excluded.

    Raises:
        UserError: There are too few codes, or the scores of both sides are equal.
    """
    if scores.ndim != 1 or not bool(torch.isfinite(scores).all()):
        raise UserError(f"boundary: got scores {tuple(scores.shape)}, expected (N,) finite numbers")
    valid = torch.arange(len(scores)) if invalid is None else (scores != invalid).nonzero()[:, 0]
    order = valid[scores[valid].argsort(descending=True, stable=True)]
    count = int(len(order) * chosen) if chosen < 1 else min(int(chosen), len(order) // 2)
    if count < 2 or 2 * count > len(order):
        raise UserError(
            f"boundary: {chosen} of {len(order)} codes are {count} on each side, expected at least 2 and at most half; "
            "give more samples or another fraction"
        )
    top, bottom = order[:count], order[-count:]
    if scores[top[-1]] <= scores[bottom[0]]:
        raise UserError(
            f"boundary: the highest and the lowest {count} scores meet at {float(scores[bottom[0]]):g}; give a smaller "
            "fraction, or scores with more different values"
        )
    return top, bottom


def train_boundary(
    w: Tensor, scores: Tensor, chosen: float = 0.02, train: float = 0.7, invalid: float | None = None, seed: int = 0
) -> Boundary:
    """Trains a boundary between the codes with the highest and the lowest scores.

    Args:
        w: Codes (N, D).
        scores: Scores (N,), high for codes with the attribute.
        chosen: See `extreme_codes`.
        train: Fraction of these codes that are used for training, in (0, 1]; the accuracy is measured on the others.
        invalid: See `extreme_codes`.
        seed: Seed of the split.

    Raises:
        UserError: See `extreme_codes`; or the numbers of codes and scores differ.
    """
    if w.ndim != 2 or len(w) != len(scores):
        raise UserError(f"boundary: got codes {tuple(w.shape)} and {len(scores)} scores, expected (N, D) and N")
    real_number("boundary: train", train, above=0, most=1)
    source = torch.Generator().manual_seed(seed)
    sides = [side[torch.randperm(len(side), generator=source)] for side in extreme_codes(scores, chosen, invalid)]
    count = max(1, int(len(sides[0]) * train))
    normal, offset = separate(w[sides[0][:count]], w[sides[1][:count]])
    accuracy = None
    if count < len(sides[0]):
        high, low = (w[side[count:]].double() @ normal.double() + offset for side in sides)
        accuracy = float(torch.cat([high > 0, low < 0]).double().mean())
    return Boundary(normal, accuracy, count)


def separate(high: Tensor, low: Tensor) -> tuple[Tensor, float]:
    """Returns unit normal (D,) and offset of the hyperplane of a linear support vector machine (C = 1).

    Args:
        high: Codes (N, D) on the positive side.
        low: Codes (M, D) on the negative side.
    """
    from sklearn.svm import SVC  # importing scikit-learn takes a second

    codes = torch.cat([high, low]).double().cpu().numpy()
    machine = SVC(kernel="linear", C=1.0).fit(codes, [1] * len(high) + [0] * len(low))
    normal = torch.tensor(machine.coef_[0])
    length = normal.norm()
    return (normal / length).to(high), float(machine.intercept_[0] / length)


def project_away(vector: Tensor, others: Sequence[Tensor]) -> Tensor:
    """Returns the component of a direction that is orthogonal to others, at unit length (conditional edit).

    Moving along it does not change the distance to the other boundaries. The official code has separate formulae for
    one, two and more conditions; all of them are this projection.

    Args:
        vector: (D,).
        others: Directions (D,).

    Raises:
        UserError: The direction is a linear combination of the others.
    """
    if not others:
        unit: Tensor = vector / vector.norm()
        return unit
    double = vector.double()
    basis = torch.linalg.qr(torch.stack(list(others), dim=1).double()).Q
    rest: Tensor = double - basis @ (basis.T @ double)
    if rest.norm() < 1e-6 * double.norm():
        raise UserError("conditional projection: the direction is a combination of the others, nothing is left of it")
    unit = rest / rest.norm()
    return unit.to(vector)


def walk(code: Tensor, normal: Tensor, distances: Tensor) -> Tensor:
    """Returns codes at given signed distances, as InterFaceGAN's ``linear_interpolate`` does.

    Args:
        code: (1, D): distances are measured from the boundary through 0. (1, L, D): distances are measured from the
            code itself, as the official code does for w+.
        normal: Unit vector (D,).
        distances: (S,).

    Returns:
        (S, D) or (S, L, D).
    """
    if code.ndim == 2:
        return code + (distances - code @ normal)[:, None] * normal
    return code + distances[:, None, None] * normal
