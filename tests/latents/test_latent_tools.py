"""Statistics, truncation, interpolation, mixing, noise and neighbours against their formulae and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.spatial.distance import mahalanobis

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.latents.interpolation import interpolate, path
from stylegan_inv.latents.layer_ranges import layer_range
from stylegan_inv.latents.mixing import mixing_matrix
from stylegan_inv.latents.nearest import nearest_codes
from stylegan_inv.latents.noise_maps import noise_deviation, noise_layers, noise_on
from stylegan_inv.latents.statistics import WStatistics, map_codes, sample_z
from stylegan_inv.latents.truncation import truncate


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(3)
    made = Generator(32, z_dim=8, w_dim=8, mapping_layers=2, channel_base=256, channel_max=8)
    for layer in made.synthesis.layers():
        layer.noise_strength.data.fill_(0.3)
    made.w_avg.copy_(torch.randn(8))
    return made.freeze()


def test_layer_ranges():
    assert layer_range("coarse", 18) == [0, 1, 2, 3] and layer_range("middle", 18) == [4, 5, 6, 7]
    assert layer_range("fine", 18) == list(range(8, 18)) and layer_range("fine", 10) == [8, 9]
    for count in (6, 10, 18):
        assert [k for name in ("coarse", "middle", "fine") for k in layer_range(name, count)] == list(range(count))
    assert layer_range("2-4", 10) == [2, 3, 4] and layer_range(None, 3) == [0, 1, 2] == layer_range("all", 3)
    assert layer_range("none", 10) == [] and layer_range(5, 10) == [5] and layer_range([7, 1], 10) == [7, 1]
    for wrong in ("big", "4-2", "8-12", [10], [-1], [True], ["a"], 10):
        with pytest.raises(UserError, match="layers="):
            layer_range(wrong, 10)


def test_statistics_and_the_distance_to_w():
    rng = np.random.default_rng(0)
    w = torch.from_numpy(rng.normal(size=(4000, 5)) @ rng.normal(size=(5, 5)) + 2)
    found = WStatistics.of(w)
    np.testing.assert_allclose(found.covariance, np.cov(w.numpy().T), rtol=1e-9)
    np.testing.assert_allclose(found.axes.T @ torch.diag(found.std**2) @ found.axes, found.covariance, atol=1e-9)
    assert (found.std.diff() <= 0).all()
    want = mahalanobis(w[0], w.mean(0), np.linalg.inv(np.cov(w.numpy().T))) / math.sqrt(5)
    assert float(found.distance(w[0])) == pytest.approx(want, rel=1e-6)
    assert float(found.distance(w).square().mean()) == pytest.approx(1, abs=1e-3)
    with pytest.raises(UserError, match="at least 2"):
        WStatistics.of(w[:1])


def test_samples_equal_the_mapping_network(generator):
    z = sample_z(generator, 3, seed=5)
    assert torch.equal(z, sample_z(generator, 3, seed=5)) and not torch.equal(z, sample_z(generator, 3, seed=6))
    torch.testing.assert_close(map_codes(generator, z), generator.mapping(z)[:, 0])


def test_truncation_equals_the_mapping_network_and_scales_single_layers(generator):
    z = sample_z(generator, 4)
    w = generator.mapping(z)
    torch.testing.assert_close(truncate(w, generator.w_avg, 0.6), generator.mapping(z, psi=0.6))
    torch.testing.assert_close(truncate(w, generator.w_avg, 0.6, "coarse"), generator.mapping(z, psi=0.6, cutoff=4))
    psi = torch.linspace(-1, 2, 8)
    each = truncate(w, generator.w_avg, psi, "0-6")
    for layer in range(8):
        factor = float(psi[layer]) if layer < 7 else 1
        torch.testing.assert_close(each[:, layer], generator.w_avg + factor * (w[:, layer] - generator.w_avg))
    for wrong in (float("nan"), torch.ones(3)):
        with pytest.raises(UserError, match="psi"):
            truncate(w, generator.w_avg, wrong)


def test_linear_and_spherical_interpolation():
    a, b = torch.tensor([[3.0, 0, 0]]), torch.tensor([[0, 1.0, 0]])
    torch.testing.assert_close(interpolate(a, b, 0.25), torch.tensor([[2.25, 0.25, 0]]))
    # A third of a right angle is 30 degrees; the length changes from 3 to 1.
    got = interpolate(a, b, 1 / 3, "spherical")
    want = (3 - 2 / 3) * torch.tensor([[math.cos(math.pi / 6), math.sin(math.pi / 6), 0]])
    torch.testing.assert_close(got, want)
    center = torch.tensor([1.0, 2, 3])
    torch.testing.assert_close(interpolate(a + center, b + center, 1 / 3, "spherical", center), want + center)
    z = torch.nn.functional.normalize(torch.randn(2, 50, 96), dim=-1)
    assert torch.allclose(interpolate(z[0], z[1], 0.5, "spherical").norm(dim=-1), torch.ones(50), atol=1e-5)
    for mode in ("linear", "spherical"):  # equal, parallel and opposite codes
        for other in (a, 2 * a, -a):
            ends = [interpolate(a, other, t, mode) for t in (0.0, 0.5, 1.0)]
            assert all(torch.isfinite(end).all() for end in ends)
            torch.testing.assert_close(ends[0], a)
            torch.testing.assert_close(ends[2], other)
    with pytest.raises(UserError, match="mode=round"):
        interpolate(a, b, 0.5, "round")
    with pytest.raises(UserError, match="equal shapes"):
        interpolate(a, torch.zeros(2, 3), 0.5)


def test_path_contains_all_codes_at_equal_steps():
    codes = torch.randn(3, 6, 8)
    way = path(codes, 4)
    assert way.shape == (9, 6, 8)
    torch.testing.assert_close(way[[0, 4, 8]], codes)
    steps = way.diff(dim=0).flatten(1).norm(dim=1)
    torch.testing.assert_close(steps[:4], steps[:1].expand(4))
    with pytest.raises(UserError, match="at least two codes"):
        path(codes[:1], 4)


def test_mixing_matrix_replaces_each_range_by_each_source():
    w, sources = torch.randn(1, 10, 8), torch.randn(3, 10, 8)
    ranges = [layer_range(name, 10) for name in ("coarse", "middle", "fine")]
    table = mixing_matrix(w, sources, ranges)
    assert table.shape == (3, 3, 10, 8)
    for row in range(3):
        for column, layers in enumerate(ranges):
            for layer in range(10):
                want = sources[row, layer] if layer in layers else w[0, layer]
                assert torch.equal(table[row, column, layer], want)


def test_noise_on_some_layers(generator):
    sides = [layer.resolution for layer in generator.synthesis.layers()]
    assert sides == [4, 8, 8, 16, 16, 32, 32]
    assert noise_layers(generator, "coarse") == [0, 1, 2] and noise_layers(generator, "fine") == [3, 4, 5, 6]
    maps, everything = noise_on(generator, [1, 5], seed=2), noise_on(generator, "all", seed=2)
    for k, (some, full) in enumerate(zip(maps, everything, strict=True)):
        assert torch.equal(some, full) if k in (1, 5) else not some.any()
    w = generator.mapping(sample_z(generator, 2))
    none = generator.synthesis(w, noise=noise_on(generator, "none"))
    torch.testing.assert_close(none, generator.synthesis(w, noise="none"))
    for wrong in ("some", [7], [-1]):
        with pytest.raises(UserError, match="noise on"):
            noise_layers(generator, wrong)


def test_noise_deviation_is_the_standard_deviation_over_samples(generator):
    w = generator.mapping(sample_z(generator, 2))
    with torch.no_grad():
        images = torch.stack([generator.synthesis(w, noise=noise_on(generator, "fine", 7 + k, 2)) for k in range(6)])
    want = images.double().std(0).mean(1, keepdim=True).float()
    torch.testing.assert_close(noise_deviation(generator, w, "fine", 6, seed=7), want, rtol=1e-4, atol=1e-6)
    assert float(noise_deviation(generator, w, "none", 3).max()) < 1e-6
    with pytest.raises(UserError, match="at least 2"):
        noise_deviation(generator, w, samples=1)


def test_neighbours_equal_a_k_d_tree():
    codes, query = torch.randn(200, 6, 4), torch.randn(5, 6, 4)
    query[2] = codes[17]
    distances, found = nearest_codes(query, codes, 4)
    want, where = cKDTree(codes.flatten(1).numpy()).query(query.flatten(1).numpy(), 4)
    np.testing.assert_array_equal(found, where)
    np.testing.assert_allclose(distances, want / math.sqrt(24), rtol=1e-5, atol=1e-7)
    assert int(found[2, 0]) == 17 and float(distances[2, 0]) == 0
    with pytest.raises(UserError, match="count=201"):
        nearest_codes(query, codes, 201)
    with pytest.raises(UserError, match="one shape"):
        nearest_codes(query[..., :3], codes)
