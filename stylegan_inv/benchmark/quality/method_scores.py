"""Scores of a method on the held-out faces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan_inv.benchmark.quality.editability import ALL_ATTRIBUTES, STRENGTHS, Edits
from stylegan_inv.errors import UserError
from stylegan_inv.generators.io.torch_pickle import load_checked
from stylegan_inv.utils.files import atomic_write

#: Column that every method has.
MSE = "clear/mse"
#: Strength of the edits in the table and in the claims.
STRENGTH = 2.0


@dataclass
class MethodScores:
    """Scores of one method and training seed, or of several seeds with a leading dimension.

    Attributes:
        columns: Column -> values (N,) of the faces, or () of the set of faces. The names are those of the tables:
            ``clear/mse``, ``covered/mse_interest``, ``seconds``.
        steps: Metric of clear faces -> refinement step, from 1 -> values (N,).
        edits: Attribute -> measure -> values (strengths, N); see :mod:`stylegan_inv.benchmark.quality.editability`.
        images: Condition -> reconstructions (n, 3, R, R) of the first faces, uint8.
    """

    columns: dict[str, np.ndarray]
    steps: dict[str, dict[int, np.ndarray]]
    edits: Edits
    images: dict[str, np.ndarray]

    def all_columns(self) -> dict[str, np.ndarray]:
        """Returns the columns together with the mean edit of strength ``STRENGTH`` and the refinement steps."""
        row = STRENGTHS.index(STRENGTH)
        edits = {f"edits/{measure}": values[..., row, :] for measure, values in self.edits[ALL_ATTRIBUTES].items()}
        steps = {
            step_column(metric, step): values for metric, found in self.steps.items() for step, values in found.items()
        }
        return {**self.columns, **edits, **steps}


def step_column(metric: str, step: int) -> str:
    """Returns the name of the column of a metric after a refinement step."""
    return f"clear/{metric}_step{step}"


def stack_seeds(scores: Sequence[MethodScores]) -> MethodScores:
    """Stacks the scores of training seeds: values get the shape (seeds, ..., N), values of a set (seeds, 1)."""

    def stack(values: Sequence[np.ndarray]) -> np.ndarray:
        stacked = np.stack(values)
        return stacked[:, None] if stacked.ndim == 1 else stacked

    return MethodScores(*(_map(stack, [getattr(one, field.name) for one in scores]) for field in fields(MethodScores)))


def save_scores(file: Path, scores: MethodScores) -> None:
    """Writes the scores of one seed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {
        field.name: _map(lambda values: torch.from_numpy(values[0]), [getattr(scores, field.name)])
        for field in fields(scores)
    }
    with atomic_write(file) as temporary:
        torch.save(content, temporary)


def load_scores(file: Path) -> MethodScores:
    """Reads the scores of one seed.

    Raises:
        UserError: The file holds something else; nothing in it is executed.
    """
    try:
        content = load_checked(file)
        if content.keys() != {field.name for field in fields(MethodScores)} or MSE not in content["columns"]:
            raise ValueError(f"holds {', '.join(map(str, content))[:100]}")
        return MethodScores(**{name: _map(_array, [content[name]]) for name in content})
    except Exception as error:  # torch raises various types for broken files
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"{file}: expected scores of a method ({reason}); remove it, and the method is scored again"
        ) from error


def _array(values: Sequence[Any]) -> np.ndarray:
    if not isinstance(values[0], torch.Tensor) or not values[0].dtype.is_floating_point and values[0].ndim != 4:
        raise ValueError(f"{type(values[0]).__name__} in the place of scores")
    array: np.ndarray = values[0].numpy()
    return array


def _map(function: Callable[[list[Any]], Any], trees: Sequence[Any]) -> Any:
    """Applies a function to the leaves at the same place of nested dicts."""
    if isinstance(trees[0], Mapping):
        return {key: _map(function, [tree[key] for tree in trees]) for key in trees[0]}
    return function(list(trees))
