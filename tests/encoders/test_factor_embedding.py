"""The embedding of factors: its features against numpy, and its distillation into the mapping network."""

from __future__ import annotations

import math

import numpy as np
import torch

from stylegan_inv.data.synthfaces.correlated_normals import normals
from stylegan_inv.data.synthfaces.factor_features import factor_features
from stylegan_inv.data.synthfaces.factor_specs import SPECS, Choice, Uniform
from stylegan_inv.data.synthfaces.factors import factors_from_normals
from stylegan_inv.encoders.factor_embedding import FactorEmbedding, distill_mapping
from stylegan_inv.generators.mapping import MappingNetwork
from stylegan_inv.losses.paired.warm_start import PairedWarmStart


def test_features_against_numpy() -> None:
    n = normals(0, np.arange(3))
    features = factor_features(torch.from_numpy(n)).double().numpy()
    assert features.shape == (3, 150) and n.shape == (3, 53)
    vector = factors_from_normals(n).to_vector()
    column = 0
    for spec in SPECS.values():  # numbers as they are, choices standardised
        if isinstance(spec, Choice):
            for p in spec.probabilities:
                want = (vector[:, column] - p) / math.sqrt(p * (1 - p))
                np.testing.assert_allclose(features[:, column], want, rtol=1e-5)
                column += 1
        else:
            np.testing.assert_allclose(features[:, column], vector[:, column], rtol=1e-5)
            column += 1
    assert column == vector.shape[1]
    for i, (name, spec) in enumerate(SPECS.items()):
        if not isinstance(spec, Uniform):
            continue
        share = np.array([0.5 * (1 + math.erf(x / math.sqrt(2))) for x in n[:, i]])
        if name.endswith("_hue"):
            waves = [f(k * np.pi * share) for k in (2, 4) for f in (np.cos, np.sin)]
        else:
            waves = [np.cos(k * np.pi * share) for k in (1, 2, 3)]
        for wave in waves:
            np.testing.assert_allclose(features[:, column], math.sqrt(2) * wave, atol=1e-5)
            column += 1
    assert column == 150


def test_distillation_lowers_the_error_and_keeps_the_random_state() -> None:
    torch.manual_seed(0)
    embedding = FactorEmbedding(lambda n: torch.cat([n, n.square()], 1), 8, 4, w_dim=16, hidden=16)
    teacher = {name: value.clone() for name, value in embedding.state_dict().items()}

    def pupil() -> MappingNetwork:
        torch.manual_seed(1)
        return MappingNetwork(12, 0, 16, 6, num_layers=3, lr_multiplier=1.0)

    def latents(n: torch.Tensor) -> torch.Tensor:
        return PairedWarmStart.latents(n, 12)

    mapping, again = pupil(), pupil()
    torch.manual_seed(7)
    first = distill_mapping(embedding, pupil(), latents, steps=1, batch_size=128)
    state = torch.get_rng_state()
    last = distill_mapping(embedding, mapping, latents, steps=250, batch_size=128, lr=1e-2)
    assert torch.equal(state, torch.get_rng_state())
    assert last < 0.5 * first
    # Another global state, as on another rank: the same network.
    torch.manual_seed(8)
    distill_mapping(embedding, again, latents, steps=250, batch_size=128, lr=1e-2)
    for a, b in zip(mapping.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert all(torch.equal(value, embedding.state_dict()[name]) for name, value in teacher.items())
    sample = embedding(torch.randn(4096, 4))
    torch.testing.assert_close(mapping.w_avg, sample.mean(0).detach(), atol=0.15 * float(sample.std()), rtol=0)


def test_knots_become_the_first_layer() -> None:
    from stylegan_inv.data.synthfaces.factor_features import factor_knots
    from stylegan_inv.encoders.factor_embedding import _start_from_knots
    from stylegan_inv.generators.mapping import MappingNetwork

    knots = factor_knots()
    assert {column for column, _, _ in knots} == set(range(53))
    mapping = MappingNetwork(64, 0, 192, 10, num_layers=2, lr_multiplier=0.5)
    _start_from_knots(mapping, knots)
    z = torch.randn(7, 64)
    layer = mapping.get_submodule("fc0")
    got = layer(z)[:, : len(knots)]
    ramps = torch.stack([slope * (z[:, column] - position) for column, position, slope in knots], dim=1)
    assert torch.allclose(got, torch.nn.functional.leaky_relu(ramps, 0.2) * 2**0.5, atol=1e-4)
