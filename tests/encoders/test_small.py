"""The small encoder: shapes, initialisation and pretrained weights."""

from __future__ import annotations

import pytest
import torch

from stylegan_inv.encoders.face_network import FaceNetwork, load_face_network, save_face_network
from stylegan_inv.encoders.small import SmallEncoder
from stylegan_inv.errors import UserError


@pytest.fixture(scope="module")
def face_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("face") / "face.safetensors"
    save_face_network(FaceNetwork(8, ("yaw",), 16), path)
    return str(path)


@pytest.mark.parametrize("fusion", ["early", "difference"])
@pytest.mark.parametrize("in_channels", [3, 6])
@pytest.mark.parametrize("batch", [1, 3])
def test_shapes_and_zero_initial_output(fusion: str, in_channels: int, batch: int) -> None:
    encoder = SmallEncoder(10, 32, in_channels, width=8, fusion=fusion)
    codes = encoder(torch.randn(batch, in_channels, 64, 64))
    assert codes.shape == (batch, 10, 32)
    assert codes.abs().max() == 0
    codes.sum().backward()
    assert encoder.own.weight.grad is not None and encoder.own.weight.grad.abs().max() > 0


@pytest.mark.parametrize("fusion", ["early", "difference"])
def test_training_and_evaluation_agree_and_images_do_not_mix(fusion: str) -> None:
    torch.manual_seed(0)
    encoder = SmallEncoder(4, 8, 6, width=8, fusion=fusion)
    for layer in (encoder.own, encoder.common):
        torch.nn.init.normal_(layer.weight, 0, 0.02)
    x = torch.randn(4, 6, 64, 64)
    whole = encoder.train()(x)
    torch.testing.assert_close(encoder.eval()(x), whole)
    torch.testing.assert_close(torch.cat([encoder(x[i : i + 1]) for i in range(4)]), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fusion", ["early", "difference"])
def test_loads_a_face_network(fusion: str, face_file: str) -> None:
    encoder = SmallEncoder(4, 8, 6, width=8, pretrained=face_file, fusion=fusion)
    face = load_face_network(face_file)
    x = torch.randn(2, 3, 64, 64)
    other = torch.randn(2, 3, 64, 64)
    seen = encoder.backbone(x if encoder.siamese else torch.cat([x, other], dim=1))
    for got, want in zip(seen, face.features(x), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    assert all(p.requires_grad for p in encoder.parameters())
    assert not any(p.requires_grad for p in face.parameters())


@pytest.mark.parametrize("in_channels", [1, 8])
def test_sketches_and_label_maps_get_a_first_convolution_of_their_own(in_channels: int, face_file: str) -> None:
    torch.manual_seed(0)
    encoder = SmallEncoder(4, 8, in_channels, width=8, pretrained=face_file, fusion="early")
    face = load_face_network(face_file)
    assert encoder(torch.randn(2, in_channels, 64, 64)).shape == (2, 4, 8)
    assert torch.equal(encoder.backbone.blocks[0].conv0[0].weight, face.backbone.blocks[0].conv0[0].weight)
    stem = encoder.backbone.stem[0].weight
    assert stem.shape[1] == in_channels and stem.std() > 0
    # All channels have the same scale, so none has the pretrained weights.
    assert stem.std((0, 2, 3)).min() > 0.8 * stem.std((0, 2, 3)).max()


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    encoder = SmallEncoder(4, 8, 6, width=8)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-3)
    for _ in range(4):  # layers that start at zero get gradients one after the other
        optimizer.zero_grad()
        # Strong contrast: biases before a ReLU cancel in the difference of two images that open the same units.
        (encoder(20 * torch.randn(4, 6, 64, 64)) - 1).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in encoder.parameters())


def test_a_perfect_reconstruction_gives_no_correction() -> None:
    torch.manual_seed(0)
    encoder = SmallEncoder(4, 8, 6, width=8, fusion="difference")
    for layer in (encoder.own, encoder.common):
        torch.nn.init.normal_(layer.weight)
    x = torch.randn(2, 3, 64, 64)
    assert encoder(torch.cat([x, x], dim=1)).abs().max() < 1e-5
    swapped = encoder(torch.cat([x, x.flip(0)], dim=1))
    torch.testing.assert_close(swapped[0], -swapped[1], rtol=1e-4, atol=1e-4)


def test_errors(face_file: str) -> None:
    with pytest.raises(UserError, match="expected one of early, difference"):
        SmallEncoder(4, 8, fusion="late")
    with pytest.raises(UserError, match="set encoder.width=8"):
        SmallEncoder(4, 8, width=12, pretrained=face_file)
    with pytest.raises(UserError, match=r"expected \(B, 6, H, W\)"):
        SmallEncoder(4, 8, width=8)(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize("in_channels", [3, 6])
def test_a_head_of_limited_rank(in_channels: int) -> None:
    torch.manual_seed(0)
    encoder = SmallEncoder(5, 8, in_channels, width=8, rank=3)
    x = torch.randn(2, in_channels, 64, 64)
    assert encoder(x).abs().max() == 0
    projection, last = encoder.own
    for parameter in (*last.parameters(), *encoder.common.parameters()):
        torch.nn.init.normal_(parameter, 0, 0.1)
    full = SmallEncoder(5, 8, in_channels, width=8)
    state = {name: value for name, value in encoder.state_dict().items() if not name.startswith("own.")}
    state["own.weight"] = last.weight @ projection.weight
    if last.bias is not None:
        state["own.bias"] = last.bias
    full.load_state_dict(state)
    torch.testing.assert_close(encoder(x), full(x), rtol=1e-4, atol=1e-4)
    assert torch.linalg.matrix_rank(state["own.weight"]) == 3
    assert 0.9 < projection.weight.norm() ** 2 / projection.weight.shape[1] < 1.1, "it keeps the norm of the features"


def test_rank_96_fits_into_3_megabytes() -> None:
    encoder = SmallEncoder(10, 192, 6, rank=96)
    assert 2 * sum(parameter.numel() for parameter in encoder.parameters()) < 2_900_000


def test_a_rank_of_zero_is_refused() -> None:
    with pytest.raises(UserError, match="encoder.rank=0: expected a whole number of at least 1"):
        SmallEncoder(4, 8, width=8, rank=0)
