"""InterFaceGAN and SeFa against the official code's numbers; GANSpace against scikit-learn and its formula."""

from __future__ import annotations

import pytest
import torch

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator, from_rosinality
from stylegan_inv.latents.discovery.ganspace import Components, components, load_components
from stylegan_inv.latents.discovery.interfacegan import extreme_codes, project_away, separate, train_boundary, walk
from stylegan_inv.latents.discovery.sefa import factorize, sefa_directions, style_weights
from tests.golden import check, needs_golden, reference_state, tensor


def golden(key: str) -> torch.Tensor:
    return tensor("interfacegan", key)


def agree(got: torch.Tensor, want: torch.Tensor, least: float) -> None:
    cosine = torch.cosine_similarity(got.double(), want.double().reshape(got.shape), dim=-1).abs()
    assert float(cosine.min()) >= least, cosine


@needs_golden
def test_boundaries_equal_the_official_code():
    w, scores = golden("latents"), golden("scores")[:, 0]
    top, bottom = extreme_codes(scores, 0.2)
    assert len(top) == len(bottom) == 100
    rows = [golden(f"{side}_order")[:70].long() for side in ("positive", "negative")]
    normal, _ = separate(w[top[rows[0]]], w[bottom[rows[1]]])
    assert float(normal @ golden("boundary")[0]) > 0, "high scores are on the positive side"
    agree(normal, golden("boundary"), 0.9999)
    agree(train_boundary(w, scores, 100, train=1.0).normal, golden("boundary_all"), 0.9999)
    scores[::7] = -1
    agree(train_boundary(w, scores, 80, train=1.0, invalid=-1).normal, golden("boundary_filtered"), 0.9999)


@needs_golden
def test_conditional_projection_and_walks_equal_the_official_code():
    boundary, conditions = golden("boundary")[0], [golden(f"cond{k}")[0] for k in (1, 2, 3)]
    for count in (1, 2, 3):
        projected = project_away(boundary, conditions[:count])
        agree(projected, golden(f"projected_{count}"), 0.99999)
        for condition in conditions[:count]:
            assert abs(float(projected @ condition)) < 1e-6
    check("interfacegan", "interpolated", walk(golden("code"), boundary, torch.linspace(-3, 3, 7).double()))
    check("interfacegan", "interpolated_wp", walk(golden("code_wp"), boundary, torch.linspace(-3, 3, 5).double()))


def test_known_boundary_is_found_and_accuracy_uses_held_out_codes():
    source = torch.Generator().manual_seed(0)
    w, normal = (
        torch.randn(600, 12, generator=source),
        torch.nn.functional.normalize(torch.randn(12, generator=source), dim=0),
    )
    found = train_boundary(w, w @ normal, 0.2)
    agree(found.normal, normal, 0.95)
    assert found.count == 84 and found.accuracy is not None and found.accuracy > 0.95
    nothing = train_boundary(w, torch.randn(600, generator=source), 0.2)
    assert nothing.accuracy is not None and 0.2 < nothing.accuracy < 0.8, "random scores have no boundary"
    assert train_boundary(w, w @ normal, 0.2, train=1.0).accuracy is None


def test_bad_scores():
    w = torch.randn(20, 4)
    for scores, chosen in ((torch.zeros(20), 0.2), (torch.arange(20.0), 0.02), (torch.full((20,), torch.nan), 0.2)):
        with pytest.raises(UserError, match="boundary"):
            train_boundary(w, scores, chosen)
    with pytest.raises(UserError, match="19 scores"):
        train_boundary(w, torch.arange(19.0), 0.2)
    with pytest.raises(UserError, match="nothing is left"):
        project_away(w[0], [w[0] * 2, w[1]])


@needs_golden
def test_sefa_equals_the_official_factorisation():
    state = reference_state("rosinality_g64_cm2")
    generator = Generator(64, z_dim=512, w_dim=512)
    generator.load_state_dict(from_rosinality(state), strict=False)
    weights = [weight.double() for weight in style_weights(generator, [0, 1])]
    values, rows = factorize(weights)
    check("sefa", "eigenvalues", values[:20])
    agree(rows[:10], tensor("sefa", "directions"), 0.999)
    all_layers = ["conv1.conv", "to_rgb1.conv", *(f"convs.{k}.conv" for k in range(8))]
    plain, right = factorize([state[f"{name}.modulation.weight"].double() for name in all_layers], normalize=False)
    check("sefa", "rosinality_singular_values", plain[:20].sqrt())
    agree(right[:5], tensor("sefa", "rosinality_directions"), 0.999)


def test_sefa_directions_change_the_styles_most():
    torch.manual_seed(0)
    generator = Generator(16, z_dim=8, w_dim=8, mapping_layers=1, channel_base=64, channel_max=8)
    first, *_, last = sefa_directions(generator, [1, 2], 8)
    assert first.layers == (1, 2) and first.name == "sefa_0"
    unit = [weight / weight.norm(dim=1, keepdim=True) for weight in style_weights(generator, [1, 2])]
    change = [sum(float((weight @ d.vector).square().sum()) for weight in unit) for d in (first, last)]
    best = max(
        sum(float((w @ v).square().sum()) for w in unit) for v in torch.nn.functional.normalize(torch.randn(500, 8))
    )
    assert change[0] >= best >= change[1]


def test_principal_components_equal_scikit_learn():
    from sklearn.decomposition import PCA

    w = torch.randn(500, 6) @ torch.diag(torch.tensor([5.0, 3, 2, 1, 0.5, 0.1])) @ torch.randn(6, 6) + 4
    want, got = PCA(3).fit(w.double().numpy()), components(w, 3)
    agree(got.axes, torch.tensor(want.components_), 0.99999)
    torch.testing.assert_close(got.std.double(), torch.tensor(want.explained_variance_).sqrt(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got.mean.double(), torch.tensor(want.mean_), rtol=1e-4, atol=1e-4)
    shift = got.direction(1, [0, 2])
    moved = shift.apply(torch.zeros(1, 4, 6), 2.0)[0]
    torch.testing.assert_close(moved[0], 2 * got.std[1] * got.axes[1])
    assert not moved[[1, 3]].any()


def test_published_components_set_a_coordinate(tmp_path):
    axes = torch.linalg.qr(torch.randn(6, 6)).Q[:3]
    torch.save(
        {"mean": torch.randn(1, 6), "comp": axes[:, None], "std": torch.tensor([3.0, 2, 1])}, tmp_path / "pca.pt"
    )
    read: Components = load_components(tmp_path / "pca.pt")
    w = torch.randn(2, 4, 6)
    edited = read.set_coordinate(w, 1, 1.5, [0, 1])
    # e4e: coord = <w[0] - mean, comp> / std; (strength - coord) * comp * std is added to the layers.
    for row in range(2):
        coordinate = float((w[row, 0] - read.mean) @ axes[1] / 2)
        torch.testing.assert_close(edited[row, 1], w[row, 1] + (1.5 - coordinate) * axes[1] * 2)
        assert torch.equal(edited[row, 2:], w[row, 2:])
        torch.testing.assert_close((edited[row, 0] - read.mean) @ axes[1] / 2, torch.tensor(1.5))
    with pytest.raises(UserError, match="no such file"):
        load_components(tmp_path / "none.pt")
    torch.save({"mean": 1}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="expected mean, comp and std"):
        load_components(tmp_path / "other.pt")
