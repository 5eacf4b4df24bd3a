"""Is it still the same person, and what do they look like: metrics on face embeddings and read-outs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.encoders.face_network import choice_columns
from stylegan_inv.errors import UserError
from stylegan_inv.losses.feature_networks import as_network
from stylegan_inv.metrics.base import PerImageMetric, RowMetric
from stylegan_inv.metrics.networks import describe_network, recent
from stylegan_inv.utils.frozen_module import Frozen


class IdentitySimilarity(PerImageMetric):
    """Cosine of the identity embeddings of reconstruction and original. No image is skipped.

    Args:
        network: anything with ``embed(image) -> (B, E)`` of unit length, or the name or file of a face network. Not
            the one that the loss used. A network that looks for a face first gives NaN where it finds none.
        **kwargs: of `PerImageMetric`.
    """

    higher_is_better = True

    def __init__(self, network: nn.Module | str | Path = "face_eval", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.frozen = Frozen(as_network(network))
        self._description = describe_network(network, self.frozen.network)

    def score(self, image: Tensor, target: Tensor) -> Tensor:
        """The cosines."""
        return (self._embed(image) * self._embed(target)).sum(dim=1)

    def _embed(self, image: Tensor) -> Tensor:
        network = self.frozen.network
        if hasattr(network, "embed_features"):  # shares the pass with the perceptual distance
            return network.embed_features(recent(network, network.features, image))
        return recent(network, network.embed, image)

    def describe(self) -> str:
        """The network."""
        return f"cosine of embeddings by {self._description}"


def roc_auc(positive: Tensor, negative: Tensor) -> Tensor:
    """Probability that a positive score exceeds a negative one, ties counting half (area under the ROC curve)."""
    ordered = negative.sort().values
    below = torch.searchsorted(ordered, positive.contiguous(), right=False)
    below_or_equal = torch.searchsorted(ordered, positive.contiguous(), right=True)
    return (below + below_or_equal).double().mean() / (2 * len(negative))


class VerificationAUC(RowMetric):
    """Area under the ROC curve of "same person?" from cosines, over all pairs of images.

    Args:
        embedding_dim: size E of the embeddings.
        **kwargs: of torchmetrics.Metric.
    """

    higher_is_better = True

    def __init__(self, embedding_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_rows("embeddings", embedding_dim)
        self.add_rows("people", dtype=torch.int64)

    def update(self, embeddings: Tensor, people: Tensor) -> None:
        """Adds unit embeddings (B, E) and the number of the person in each picture (B,)."""
        self.embeddings.append(embeddings.detach())  # type: ignore[operator, union-attr]
        self.people.append(people.to(torch.int64))  # type: ignore[operator, union-attr]

    def compute(self) -> Tensor:
        """The area.

        Raises:
            UserError: no two pictures of one person, or only one person.
        """
        embeddings, people = self.rows("embeddings"), self.rows("people")
        upper = torch.ones(len(people), len(people), dtype=torch.bool, device=people.device).triu(1)
        same = people[:, None] == people[None]
        cosines = embeddings @ embeddings.T
        positive, negative = cosines[same & upper], cosines[~same & upper]
        if not len(positive) or not len(negative):
            raise UserError(
                f"verification got {len(positive)} pairs of one person and {len(negative)} of two, expected both; "
                f"use identity_groups of at least 2"
            )
        return roc_auc(positive, negative)


class ReadOutScores(RowMetric):
    """How well factors are read out of held-out images: R^2 of numbers, accuracy of choices.

    Args:
        names: columns of the factor vectors; ``group=value`` columns make one choice.
        **kwargs: of torchmetrics.Metric.
    """

    def __init__(self, names: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.names = tuple(names)
        self.add_rows("predicted", len(self.names))
        self.add_rows("true", len(self.names))

    def update(self, predicted: Tensor, true: Tensor) -> None:
        """Adds read-outs and true factors, both (B, F)."""
        if predicted.shape != true.shape or predicted.shape[1] != len(self.names):
            raise UserError(
                f"read-outs of shape {tuple(predicted.shape)} and factors of {tuple(true.shape)}, expected two equal "
                f"(B, {len(self.names)})"
            )
        self.predicted.append(predicted.detach())  # type: ignore[operator, union-attr]
        self.true.append(true)  # type: ignore[operator, union-attr]

    def compute(self) -> dict[str, Tensor]:
        """``<factor>_r2`` and ``<choice>_accuracy``."""
        predicted, true = self.rows("predicted").double(), self.rows("true").double()
        choices = choice_columns(self.names)
        scores: dict[str, Tensor] = {}
        for column, name in enumerate(self.names):
            if "=" not in name:
                error = (predicted[:, column] - true[:, column]).square().sum()
                spread = (true[:, column] - true[:, column].mean()).square().sum()
                scores[f"{name}_r2"] = 1 - error / spread
        for name, columns in choices.items():
            hits = predicted[:, columns].argmax(dim=1) == true[:, columns].argmax(dim=1)
            scores[f"{name}_accuracy"] = hits.double().mean()
        return scores
