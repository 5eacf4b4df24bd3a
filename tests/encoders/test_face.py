"""The face network: sizes, folding, files, sharing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stylegan_inv.encoders import face_network as face
from stylegan_inv.encoders.face_network import FaceNetwork, load_face_network, perceptual_distance, save_face_network
from stylegan_inv.encoders.small_backbone import SmallBackbone, to_input_size
from stylegan_inv.errors import UserError
from stylegan_inv.utils.frozen_module import Frozen

NAMES = ("yaw", "hat=no", "age", "hat=yes")


def shaken(norm: bool = True) -> FaceNetwork:
    """A network whose batch norms have statistics of their own."""
    torch.manual_seed(0)
    network = FaceNetwork(8, NAMES, embedding_dim=16, norm=norm)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
    return network.eval()


def images(batch: int = 3, size: int = 64) -> torch.Tensor:
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_outputs_have_their_shapes_and_ranges() -> None:
    network = shaken()
    maps = network.features(images())
    assert [tuple(m.shape) for m in maps] == [(3, 8, 32, 32), (3, 16, 16, 16), (3, 32, 8, 8), (3, 48, 4, 4)]
    torch.testing.assert_close(network.embed(images()).norm(dim=1), torch.ones(3))
    assert network.pooled(images()).shape == (3, 48)
    read_out = network.read_out(images())
    torch.testing.assert_close(read_out[:, 1] + read_out[:, 3], torch.ones(3))
    assert network.embed(images(1)).shape == (1, 16)


def test_folding_batch_norm_changes_nothing() -> None:
    network = shaken().double()
    folded = network.folded()
    x = images().double()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    for got, want in zip(folded.features(x), network.features(x), strict=True):
        torch.testing.assert_close(got, want)
    torch.testing.assert_close(folded.read_out(x), network.read_out(x))


@pytest.mark.parametrize("size", [64, 128, 100, 32, 256])
def test_images_are_resized_to_64(size: int) -> None:
    network = shaken()
    assert network.embed(images(2, size)).shape == (2, 16)
    flat = torch.full((1, 3, size, size), 0.25)
    torch.testing.assert_close(to_input_size(flat), torch.full((1, 3, 64, 64), 0.25))


def test_integer_ratios_are_box_means() -> None:
    x = images(1, 192)
    want = x.reshape(1, 3, 64, 3, 64, 3).mean(dim=(3, 5))
    torch.testing.assert_close(to_input_size(x), want)


def test_file_round_trip_and_sharing(tmp_path) -> None:
    network = shaken()
    path = tmp_path / "face.safetensors"
    save_face_network(network, path, {"seed": "7"})
    loaded = load_face_network(path)
    torch.testing.assert_close(loaded.embed(images()), network.embed(images()))
    assert loaded.factor_names == NAMES
    assert load_face_network(str(path)) is loaded
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


def test_errors_name_bad_files(tmp_path) -> None:
    with pytest.raises(UserError, match=r"no_such.*no such file.*train one with"):
        load_face_network("no_such")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"<html>quota exceeded</html>")
    with pytest.raises(UserError, match="not a readable safetensors"):
        load_face_network(broken)
    from safetensors.torch import save_file

    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, str(other))
    with pytest.raises(UserError, match="expected a face network"):
        load_face_network(other)


def test_perceptual_distance_follows_the_formula() -> None:
    a = [torch.rand(2, 5, 4, 4, dtype=torch.float64), torch.rand(2, 7, 2, 2, dtype=torch.float64)]
    b = [torch.rand_like(m) for m in a]
    want = torch.zeros(2, dtype=torch.float64)
    for x, y in zip(a, b, strict=True):
        for i in range(2):
            cosine = torch.nn.functional.cosine_similarity(x[i], y[i], dim=0)
            want[i] += (2 - 2 * cosine).mean() / len(a)  # |u - v|^2 of unit vectors
    torch.testing.assert_close(perceptual_distance(a, b), want, rtol=1e-6, atol=1e-7)
    assert perceptual_distance(a, a).abs().max() == 0


def test_perceptual_gradient_is_finite_for_zero_features() -> None:
    a = torch.zeros(1, 4, 2, 2, requires_grad=True)
    perceptual_distance([a], [torch.rand(1, 4, 2, 2)]).sum().backward()
    assert a.grad is not None and a.grad.isfinite().all()


def test_frozen_networks_move_but_are_not_saved() -> None:
    network = shaken()
    holder = nn.Sequential(Frozen(network))
    assert holder.state_dict() == {} and list(holder.parameters()) == []
    holder.train()
    assert not network.training
    holder.double()
    assert network.identity_head.weight.dtype == torch.float64
    holder.load_state_dict({})


def test_backbone_errors() -> None:
    with pytest.raises(UserError, match=r"\(1, 3, 60, 64\)"):
        SmallBackbone(3, 8)(torch.zeros(1, 3, 60, 64))
    with pytest.raises(UserError, match=r"\(1, 6, 64, 64\)"):
        shaken().embed(torch.zeros(1, 6, 64, 64))


@pytest.mark.parametrize("name", ["face_train", "face_eval"])
def test_embedded_networks(name: str) -> None:
    """The embedded networks load, are small and distinguish people."""
    from stylegan_inv.data.synthfaces.dataset import sample_identity_pairs
    from stylegan_inv.data.synthfaces.factor_specs import VECTOR_NAMES
    from stylegan_inv.metrics.face_similarity import roc_auc

    path = face.ASSETS / f"{name}.safetensors"
    assert path.stat().st_size < 8e6 and (face.ASSETS / f"{name}.md").is_file()
    network = load_face_network(name)
    assert network.factor_names == VECTOR_NAMES
    a, b = (network.embed(images) for images in sample_identity_pairs(2, 24))
    cosines = a @ b.T
    own = torch.eye(24, dtype=torch.bool)
    assert roc_auc(cosines[own], cosines[~own]) > 0.95
