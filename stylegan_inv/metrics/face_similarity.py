"""Metrics on the embeddings and the predicted attributes of a face network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.encoders.face_network import choice_columns
from stylegan_inv.errors import UserError
from stylegan_inv.losses.feature_networks import FeatureEmbeddingNetwork, as_network
from stylegan_inv.metrics.base import PerImageMetric, RowMetric
from stylegan_inv.metrics.networks import cached, describe_network
from stylegan_inv.utils.domains import domain_of
from stylegan_inv.utils.frozen_module import Frozen


class IdentitySimilarity(PerImageMetric):
    """Cosine similarity of the identity embeddings of reconstruction and target. No image is skipped.

    Args:
        network: An `EmbeddingNetwork` or a `FeatureEmbeddingNetwork`, or the name or file of a face network. It should
            not be the network of the loss. A network that detects faces first returns NaN for images without a face.
        **kwargs: Arguments of `PerImageMetric`.
    """

    higher_is_better = True

    def __init__(self, network: nn.Module | str | Path = "face_eval", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.frozen = Frozen(as_network(network))
        self._description = describe_network(network, self.frozen.network)

    @property
    def domain(self) -> str | None:
        """Domain of the network; None for any."""
        return domain_of(self.frozen.network)

    def score(self, image: Tensor, target: Tensor) -> Tensor:
        """Returns the cosine similarities."""
        return (self._embed(image) * self._embed(target)).sum(dim=1)

    def _embed(self, image: Tensor) -> Tensor:
        network = self.frozen.network
        if isinstance(network, FeatureEmbeddingNetwork):  # shares the forward pass with the perceptual distance
            return network.embed_features(cached(network, network.features, image))
        embedding: Tensor = cached(network, network.embed, image)
        return embedding

    def describe(self) -> str:
        """Returns the name of the network."""
        return f"cosine of embeddings by {self._description}"


def roc_auc(positive: Tensor, negative: Tensor) -> Tensor:
    """Returns the area under the ROC curve.

    It is the probability that a positive score exceeds a negative one; ties count one half.

    Args:
        positive: Scores (N,) of positive examples.
        negative: Scores (M,) of negative examples.
    """
    ordered = negative.sort().values
    below = torch.searchsorted(ordered, positive.contiguous(), right=False)
    below_or_equal = torch.searchsorted(ordered, positive.contiguous(), right=True)
    return (below + below_or_equal).double().mean() / (2 * len(negative))


class VerificationAUC(RowMetric):
    """Area under the ROC curve of face verification by cosine similarity, over all pairs of images.

    Args:
        embedding_dim: Size E of the embeddings.
        **kwargs: Arguments of torchmetrics.Metric.
    """

    domain: str | None = None
    higher_is_better = True

    embeddings: list[Tensor]
    people: list[Tensor]

    def __init__(self, embedding_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_rows("embeddings", embedding_dim)
        self.add_rows("people", dtype=torch.int64)

    def update(self, embeddings: Tensor, people: Tensor) -> None:
        """Adds a batch.

        Args:
            embeddings: (B, E), of unit length.
            people: Number of the person in each image, (B,).
        """
        self.embeddings.append(embeddings.detach())
        self.people.append(people.to(torch.int64))

    def compute(self) -> Tensor:
        """Returns the area.

        Raises:
            UserError: No person has two images, or there is only one person.
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


class AttributeScores(RowMetric):
    """Quality of predicted attributes on held-out images: R^2 of numbers, accuracy of choices.

    Args:
        names: Names of the columns; columns named ``group=value`` form one choice.
        **kwargs: Arguments of torchmetrics.Metric.
    """

    domain: str | None = None
    predicted: list[Tensor]
    true: list[Tensor]

    def __init__(self, names: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.names = tuple(names)
        self.add_rows("predicted", len(self.names))
        self.add_rows("true", len(self.names))

    def update(self, predicted: Tensor, true: Tensor) -> None:
        """Adds a batch of predicted and true attributes, both (B, F).

        Raises:
            UserError: The shapes do not match.
        """
        if predicted.shape != true.shape or predicted.shape[1] != len(self.names):
            raise UserError(
                f"got predicted attributes of shape {tuple(predicted.shape)} and true ones of {tuple(true.shape)}, "
                f"expected two equal (B, {len(self.names)})"
            )
        self.predicted.append(predicted.detach())
        self.true.append(true)

    def compute(self) -> dict[str, Tensor]:
        """Returns ``<attribute>_r2`` and ``<choice>_accuracy``."""
        predicted, true = self.rows("predicted").double(), self.rows("true").double()
        scores: dict[str, Tensor] = {}
        for column, name in enumerate(self.names):
            if "=" not in name:
                error = (predicted[:, column] - true[:, column]).square().sum()
                variation = (true[:, column] - true[:, column].mean()).square().sum()
                scores[f"{name}_r2"] = 1 - error / variation
        for name, columns in choice_columns(self.names).items():
            hits = predicted[:, columns].argmax(dim=1) == true[:, columns].argmax(dim=1)
            scores[f"{name}_accuracy"] = hits.double().mean()
        return scores
