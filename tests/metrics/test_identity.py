"""Identity, predicted attributes and perceptual distance against scikit-learn and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, r2_score, roc_auc_score

from stylegan_inv.encoders.face_network import FaceNetwork
from stylegan_inv.errors import UserError
from stylegan_inv.metrics.face_similarity import AttributeScores, IdentitySimilarity, VerificationAUC, roc_auc
from stylegan_inv.metrics.perceptual_distance import EmbeddedPerceptualDistance


@pytest.fixture(scope="module")
def network() -> FaceNetwork:
    torch.manual_seed(0)
    return FaceNetwork(8, ("yaw",), 16).eval()


def test_roc_auc_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    positive, negative = rng.integers(0, 12, 60) + 3.0, rng.integers(0, 12, 200) + 0.0  # many ties
    want = roc_auc_score([1] * 60 + [0] * 200, np.concatenate([positive, negative]))
    assert float(roc_auc(torch.tensor(positive), torch.tensor(negative))) == pytest.approx(want, abs=1e-12)


def test_verification_counts_every_pair_once() -> None:
    torch.manual_seed(0)
    people = torch.tensor([0, 0, 1, 1, 1, 2, 3, 3])
    embeddings = torch.nn.functional.normalize(torch.randn(8, 4) + people[:, None], dim=1)
    pairs = list(itertools.combinations(range(8), 2))
    want = roc_auc_score(
        [int(people[i] == people[j]) for i, j in pairs], [float(embeddings[i] @ embeddings[j]) for i, j in pairs]
    )
    metric = VerificationAUC(4)
    for i in (0, 3, 4):
        end = {0: 3, 3: 4, 4: 8}[i]
        metric.update(embeddings[i:end], people[i:end])
    assert float(metric.compute()) == pytest.approx(want, abs=1e-6)


def test_verification_needs_pairs() -> None:
    metric = VerificationAUC(2)
    metric.update(torch.eye(2), torch.tensor([0, 1]))
    with pytest.raises(UserError, match="0 pairs of one person"):
        metric.compute()


def test_attribute_scores_equal_scikit_learn() -> None:
    torch.manual_seed(0)
    names = ("yaw", "hat=no", "age", "hat=yes", "hat=red")
    true = torch.randn(40, 5)
    true[:, [1, 3, 4]] = torch.eye(3)[torch.randint(3, (40,))]
    predicted = true + 0.7 * torch.randn(40, 5)
    metric = AttributeScores(names)
    metric.update(predicted[:13], true[:13])
    metric.update(predicted[13:], true[13:])
    scores = metric.compute()
    assert set(scores) == {"yaw_r2", "age_r2", "hat_accuracy"}
    assert float(scores["yaw_r2"]) == pytest.approx(r2_score(true[:, 0], predicted[:, 0]), abs=1e-6)
    assert float(scores["age_r2"]) == pytest.approx(r2_score(true[:, 2], predicted[:, 2]), abs=1e-6)
    want = accuracy_score(true[:, [1, 3, 4]].argmax(1), predicted[:, [1, 3, 4]].argmax(1))
    assert float(scores["hat_accuracy"]) == pytest.approx(want)
    with pytest.raises(UserError, match="expected two equal"):
        metric.update(torch.zeros(1, 4), torch.zeros(1, 4))


@pytest.mark.parametrize("kind", [IdentitySimilarity, EmbeddedPerceptualDistance])
def test_network_metrics(kind, network: FaceNetwork) -> None:
    torch.manual_seed(0)
    x, y = torch.rand(2, 4, 3, 64, 64) * 2 - 1
    whole, single = kind(network), kind(network)
    whole.update(x, y)
    for i in range(4):
        single.update(x[i : i + 1], y[i : i + 1])
    torch.testing.assert_close(whole.per_image()[1], single.per_image()[1], rtol=1e-4, atol=1e-5)
    same = kind(network)
    same.update(x, x)
    assert float(same.compute()) == pytest.approx(1.0 if kind is IdentitySimilarity else 0.0, abs=1e-5)
    assert not any("network" in key or "backbone" in key for key in whole.state_dict())
    if kind is IdentitySimilarity:
        want = torch.nn.functional.cosine_similarity(network.embed(x), network.embed(y)).mean()
        assert float(whole.compute()) == pytest.approx(float(want), abs=1e-5)
