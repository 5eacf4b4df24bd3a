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


@dataclass(frozen=True, eq=False)
class Boundary:
    """A hyperplane between codes with and without an attribute.

    Attributes:
        normal: (D,) of unit length, towards high scores.
        accuracy: share of held-out codes on the right side; None where none were held out.
        count: codes on each side that it was trained on.
    """

    normal: Tensor
    accuracy: float | None
    count: int


def extreme_codes(scores: Tensor, chosen: float, invalid: float | None = None) -> tuple[Tensor, Tensor]:
    """Positions of the highest and of the lowest scores, each from high to low.

    Args:
        scores: (N,).
        chosen: share of all (below 1; the paper takes 0.02), or a number of codes, on each side.
        invalid: score of codes to leave out.

    Raises:
        UserError: Too few codes, or scores that are all the same.
    """
    if scores.ndim != 1 or not bool(torch.isfinite(scores).all()):
        raise UserError(f"boundary: got scores {tuple(scores.shape)}, expected (N,) finite numbers")
    valid = torch.arange(len(scores)) if invalid is None else (scores != invalid).nonzero()[:, 0]
    order = valid[scores[valid].argsort(descending=True, stable=True)]
    count = int(len(order) * chosen) if chosen < 1 else min(int(chosen), len(order) // 2)
    if count < 2 or 2 * count > len(order):
        raise UserError(
            f"boundary: {chosen} of {len(order)} codes are {count} on each side, expected at least 2 and at most half; "
            "give more samples or another share"
        )
    top, bottom = order[:count], order[-count:]
    if scores[top[-1]] <= scores[bottom[0]]:
        raise UserError(
            f"boundary: the highest and the lowest {count} scores meet at {float(scores[bottom[0]]):g}; give a smaller "
            "share, or scores that tell codes apart"
        )
    return top, bottom


def train_boundary(
    w: Tensor, scores: Tensor, chosen: float = 0.02, train: float = 0.7, invalid: float | None = None, seed: int = 0
) -> Boundary:
    """A boundary between the codes of the highest and of the lowest scores.

    Args:
        w: (N, D).
        scores: (N,), high for codes with the attribute.
        chosen: see `extreme_codes`.
        train: share of the chosen codes that is trained on; the rest gives the accuracy.
        invalid: score of codes to leave out.
        seed: of the split.

    Raises:
        UserError: See `extreme_codes`; or codes and scores that do not belong together.
    """
    if w.ndim != 2 or len(w) != len(scores):
        raise UserError(f"boundary: got codes {tuple(w.shape)} and {len(scores)} scores, expected (N, D) and N")
    if not 0 < train <= 1:
        raise UserError(f"boundary: got train={train}, expected a share above 0 and at most 1")
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
    """Unit normal (D,) and offset of the hyperplane that a linear support vector machine (C = 1) finds.

    Args:
        high: (N, D), the positive side.
        low: (M, D).
    """
    from sklearn.svm import SVC  # takes a second to import

    codes = torch.cat([high, low]).double().cpu().numpy()
    machine = SVC(kernel="linear", C=1.0).fit(codes, [1] * len(high) + [0] * len(low))
    normal = torch.tensor(machine.coef_[0])
    length = normal.norm()
    return (normal / length).to(high), float(machine.intercept_[0] / length)


def project_away(vector: Tensor, others: Sequence[Tensor]) -> Tensor:
    """What is left of a direction (D,) without its part in the span of others, at unit length (conditional edit).

    A move along it leaves the distance to the other boundaries as it is. The official code has formulae for one, two
    and more conditions; all are this projection.

    Raises:
        UserError: nothing is left.
    """
    if not others:
        return vector / vector.norm()
    basis = torch.linalg.qr(torch.stack(list(others), dim=1).double()).Q
    double = vector.double()
    rest = double - basis @ (basis.T @ double)
    if rest.norm() < 1e-6 * double.norm():
        raise UserError("conditional projection: the direction lies in the span of the others, nothing is left of it")
    return (rest / rest.norm()).to(vector)


def walk(code: Tensor, normal: Tensor, distances: Tensor) -> Tensor:
    """Codes at given signed distances, as InterFaceGAN's ``linear_interpolate`` gives them.

    Args:
        code: (1, D): the distances are those from the boundary through 0, wherever the code lies. (1, L, D): they are
            steps from the code itself (the official code treats W+ so).
        normal: (D,) of unit length.
        distances: (S,).

    Returns:
        (S, D) or (S, L, D).
    """
    if code.ndim == 2:
        return code + (distances - code @ normal)[:, None] * normal
    return code + distances[:, None, None] * normal
