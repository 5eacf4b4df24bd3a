"""The encoders of pSp, e4e and ReStyle: sizes, maps of the styles, stages, pretrained backbones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from stylegan_inv.config import instantiate
from stylegan_inv.encoders.backbone import Backbone, Layers
from stylegan_inv.encoders.fpn import FPNEncoder
from stylegan_inv.encoders.irse import FaceRecognition, curricularface, ir_se
from stylegan_inv.encoders.last_layer import LastLayerEncoder
from stylegan_inv.encoders.resnet_backbone import resnet34
from stylegan_inv.encoders.single_level import SingleLevelEncoder
from stylegan_inv.encoders.single_w import SingleWEncoder
from stylegan_inv.errors import UserError

CONF = Path(__file__).resolve().parents[2] / "conf"
CHANNELS = (8, 16, 24, 32)
UNITS = (1, 2, 1, 1)
TINY = {
    "ir_se": partial(ir_se, channels=CHANNELS, units=UNITS),
    "resnet34": partial(resnet34, channels=CHANNELS, units=UNITS),
}
SIZED = {"fpn": FPNEncoder, "single_level": SingleLevelEncoder}
ENCODERS = {**SIZED, "single_w": SingleWEncoder, "last_layer": LastLayerEncoder}


def tiny(name: str, num_ws: int = 10, in_channels: int = 3, backbone: str = "ir_se", **options: Any) -> Any:
    torch.manual_seed(0)
    if name in SIZED:
        options.setdefault("resolution", 64)
    return ENCODERS[name](num_ws, 12, in_channels, backbone=TINY[backbone], **options)


def images(batch: int = 2, channels: int = 3, size: int | tuple[int, int] = 64) -> Tensor:
    height, width = (size, size) if isinstance(size, int) else size
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


# -- sizes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "parameters", "tensors"),
    [
        (partial(FPNEncoder, 18, 512), 267_136_704, 621),
        (partial(FPNEncoder, 16, 512), 238_293_696, 593),
        (partial(FPNEncoder, 14, 512), 209_450_688, 565),
        (partial(FPNEncoder, 18, 512, progressive=True), 267_136_704, 621),
        (partial(FPNEncoder, 18, 512, 6), 267_138_432, 621),
        (partial(FPNEncoder, 18, 512, 6, backbone=resnet34), 257_480_768, 453),
        (partial(SingleLevelEncoder, 18, 512), 205_585_792, 565),
        (partial(SingleLevelEncoder, 16, 512, backbone=resnet34), 176_524_352, 377),
        *((partial(SingleWEncoder, n, 512), 31_212_736, 387) for n in (18, 16, 14)),
        (partial(LastLayerEncoder, 18, 512), 48_524_480, 394),
        (partial(LastLayerEncoder, 16, 512), 48_524_480 - 2 * 512 * 513, 394),
        (partial(LastLayerEncoder, 14, 512), 48_524_480 - 4 * 512 * 513, 394),
    ],
)
def test_size_of_the_official_encoders(build: Callable[[], nn.Module], parameters: int, tensors: int) -> None:
    with torch.device("meta"):
        encoder = build()
    assert sum(p.numel() for p in encoder.parameters()) == parameters
    assert len(encoder.state_dict()) == tensors


@pytest.mark.parametrize("num_ws", [18, 16, 14])
def test_depth_of_the_heads_follows_from_the_map(num_ws: int) -> None:
    def depths(resolution: int) -> list[int]:
        with torch.device("meta"):
            encoder = FPNEncoder(num_ws, 512, resolution=resolution)
        return [sum(isinstance(layer, nn.Conv2d) for layer in style.convs) for style in encoder.styles]

    assert depths(256) == [4] * 3 + [5] * 4 + [6] * (num_ws - 7)
    assert depths(64) == [2] * 3 + [3] * 4 + [4] * (num_ws - 7)


@pytest.mark.parametrize("backbone", TINY)
@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize(("num_ws", "in_channels"), [(1, 3), (4, 19), (10, 6), (18, 1)])
def test_codes_for_any_number_of_styles_and_channels(name: str, backbone: str, num_ws: int, in_channels: int) -> None:
    encoder = tiny(name, num_ws, in_channels, backbone)
    assert encoder(images(2, in_channels)).shape == (2, num_ws, 12)


@pytest.mark.parametrize("backbone", TINY)
@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("size", [32, 128, 200, (48, 64), (64, 36)])
def test_any_resolution(name: str, backbone: str, size: int | tuple[int, int]) -> None:
    longest = size if isinstance(size, int) else max(size)
    encoder = tiny(name, backbone=backbone, **({"resolution": longest} if name in SIZED else {}))
    x = images(2, 3, size)
    assert encoder(x).shape == (2, 10, 12)
    height, width = x.shape[2:]
    sides = [(-(-height // stride), -(-width // stride)) for stride in (2, 4, 8, 16)]
    assert [tuple(level.shape[2:]) for level in encoder.maps(x)] == sides


def test_single_w_is_a_view_of_one_code() -> None:
    codes = tiny("single_w", 14)(images())
    assert codes.stride(1) == 0
    assert not torch.equal(codes[0, 0], codes[1, 0])


# -- which style reads what ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "first"), [(1, 7), (2, 3), (3, 0)])
@pytest.mark.parametrize("backbone", TINY)
def test_a_map_reaches_only_its_own_and_finer_styles(backbone: str, level: int, first: int) -> None:
    encoder = tiny("fpn", 14, backbone=backbone).eval()
    with torch.no_grad():
        before = encoder(images())
        maps = encoder.maps(images())
        maps[level] = torch.zeros_like(maps[level])
        encoder.maps = lambda _: maps
        changed = (encoder(images()) != before).any(dim=2).all(dim=0)
    assert changed.tolist() == [False] * first + [True] * (14 - first)


def test_finer_maps_pass_through_the_lateral_layers() -> None:
    encoder = tiny("fpn", 14).eval()
    with torch.no_grad():
        before = encoder(images())
        encoder.latlayer2.weight.mul_(2)
        assert (encoder(images()) != before).any(dim=2).all(dim=0).tolist() == [False] * 7 + [True] * 7


def test_all_styles_of_a_single_level_read_the_last_map() -> None:
    encoder = tiny("single_level", 10).eval()
    maps = encoder.maps(images())
    for level in range(3):
        maps[level] = torch.full_like(maps[level], torch.nan)
    before = encoder(images())
    encoder.maps = lambda _: maps
    torch.testing.assert_close(encoder(images()), before, rtol=0, atol=0)


# -- progressive ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", TINY)
@pytest.mark.parametrize("name", SIZED)
def test_stages_add_one_offset_each(name: str, backbone: str) -> None:
    plain = tiny(name, backbone=backbone).eval()
    encoder = tiny(name, backbone=backbone, progressive=True).eval()
    encoder.load_state_dict(plain.state_dict())
    x = images()
    styles = plain(x)
    want = torch.cat([styles[:, :1], styles[:, :1] + styles[:, 1:]], dim=1)
    torch.testing.assert_close(encoder(x), want, rtol=0, atol=0)  # all offsets from the start
    for stage in (0, 1, 3, 7, 9, 18):
        encoder.set_stage(stage)
        codes = encoder(x)
        torch.testing.assert_close(codes[:, : stage + 1], want[:, : stage + 1], rtol=0, atol=0)
        assert all(torch.equal(codes[:, layer], codes[:, 0]) for layer in range(stage + 1, 10))


@pytest.mark.parametrize("name", SIZED)
def test_blocks_above_the_stage_are_not_used(name: str) -> None:
    encoder = tiny(name, progressive=True)
    calls: list[int] = []
    for number, style in enumerate(encoder.styles):
        style.register_forward_hook(lambda *_, number=number: calls.append(number))
    laterals = [child for key, child in encoder.named_children() if key.startswith("latlayer")]
    for number, lateral in enumerate(laterals, start=101):
        lateral.register_forward_hook(lambda *_, number=number: calls.append(number))
    for stage in (0, 2, 3, 6, 7):
        calls.clear()
        encoder.set_stage(stage)
        encoder.zero_grad()
        encoder(images()).square().sum().backward()
        expected = {*range(stage + 1)}
        if laterals:
            expected |= {101 + i for i, first in enumerate((3, 7)) if stage >= first}
        assert set(calls) == expected
        assert [style.linear.weight.grad is not None for style in encoder.styles] == [i <= stage for i in range(10)]


def test_the_stage_is_not_in_the_state_dict() -> None:
    encoder = tiny("fpn", progressive=True)
    keys = set(encoder.state_dict())
    encoder.set_stage(0)
    assert set(encoder.state_dict()) == keys == set(tiny("fpn").state_dict())


def test_wrong_stages() -> None:
    with pytest.raises(UserError, match=r"set encoder\.progressive=true"):
        tiny("fpn").set_stage(0)
    with pytest.raises(UserError, match="stage=-1: expected a whole number of at least 0"):
        tiny("fpn", progressive=True).set_stage(-1)


# -- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", TINY)
@pytest.mark.parametrize("name", ENCODERS)
def test_every_parameter_gets_a_gradient(name: str, backbone: str) -> None:
    encoder = tiny(name, backbone=backbone)
    x = images(4).requires_grad_()
    encoder(x).square().sum().backward()
    silent = [key for key, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []
    assert x.grad is not None and x.grad.abs().amin(dim=(1, 2, 3)).isfinite().all() and x.grad.any()


@pytest.mark.parametrize("backbone", TINY)
@pytest.mark.parametrize("name", ENCODERS)
def test_evaluation_is_per_image_and_training_is_not(name: str, backbone: str) -> None:
    encoder = tiny(name, backbone=backbone)
    x = images(3)
    trained = encoder(x)
    encoder.eval()
    codes = encoder(x)
    torch.testing.assert_close(torch.cat([encoder(x[i : i + 1]) for i in range(3)]), codes, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(trained, codes, rtol=1e-2)


@pytest.mark.parametrize("backbone", TINY)
@pytest.mark.parametrize("name", ENCODERS)
def test_channels_last_gives_the_same_codes(name: str, backbone: str) -> None:
    encoder = tiny(name, backbone=backbone).eval()
    codes = encoder(images())
    encoder.to(memory_format=torch.channels_last)
    x = images().contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(encoder(x), codes, rtol=1e-4, atol=1e-5)
    assert all(level.is_contiguous(memory_format=torch.channels_last) for level in encoder.maps(x))


@pytest.mark.parametrize("name", ENCODERS)
def test_layers_can_be_replaced(name: str) -> None:
    """SyncBatchNorm and low-rank adapters replace layers, also in a copy."""
    encoder = tiny(name, backbone="resnet34").eval()
    twin = copy.deepcopy(encoder)
    twin.bn1 = nn.Sequential(twin.bn1, nn.Threshold(torch.inf, 0.0))
    assert not encoder.maps(images())[0].allclose(encoder.maps(0 * images())[0])
    assert twin.maps(images())[0].equal(twin.maps(0 * images())[0])


# -- pretrained backbones ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def arcface_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    network = FaceRecognition(UNITS, channels=CHANNELS)
    network(images(4, 3, 112))  # moves the running statistics
    path = tmp_path_factory.mktemp("weights") / "model_ir_se50.pth"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)  # as in 2019
    return path


@pytest.fixture(scope="module")
def torchvision_resnet() -> ResNet:
    torch.manual_seed(4)
    network = ResNet(BasicBlock, list(UNITS), num_classes=5)
    network(images(4))
    return network.eval()


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory: pytest.TempPathFactory, torchvision_resnet: ResNet) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet.pth"
    # torchvision's own files do not count batches.
    state = {k: v for k, v in torchvision_resnet.state_dict().items() if "num_batches_tracked" not in k}
    torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ENCODERS)
def test_ir_se_loads_a_recognition_network(name: str, arcface_file: Path) -> None:
    recipe = partial(TINY["ir_se"], pretrained=str(arcface_file))
    options = {"resolution": 64} if name in SIZED else {}
    encoder = ENCODERS[name](10, 12, 3, backbone=recipe, **options)
    state, own = torch.load(arcface_file, weights_only=True), encoder.state_dict()
    shared = [key for key in state if key.startswith(("input_layer.", "body."))]
    assert len(shared) == len([key for key in own if key.startswith(("input_layer.", "body."))]) > 50
    assert all(torch.equal(own[key], state[key]) for key in shared)
    assert all(p.requires_grad for p in encoder.parameters())


def test_resnet_loads_torchvision_weights(resnet_file: Path, torchvision_resnet: ResNet) -> None:
    backbone = Backbone(resnet34(units=UNITS, pretrained=resnet_file)).eval()
    net, x = torchvision_resnet, images()
    levels = []
    level = nn.functional.prelu(net.bn1(net.conv1(x)), torch.tensor([0.25]))
    for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
        level = layer(level)
        levels.append(level)
    for got, want in zip(backbone.maps(x), levels, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("kind", TINY)
@pytest.mark.parametrize("in_channels", [6, 9])
def test_second_images_start_at_zero_or_from_the_normal_distribution(
    kind: str, in_channels: int, arcface_file: Path, resnet_file: Path
) -> None:
    def backbone(channels: int, **options: str) -> Backbone:
        torch.manual_seed(5)
        if kind == "ir_se":
            return Backbone(TINY[kind](channels, pretrained=arcface_file, **options)).eval()
        return Backbone(resnet34(channels, units=UNITS, pretrained=resnet_file, **options)).eval()

    x = images(2, in_channels)
    zero, alone = backbone(in_channels), backbone(3)
    for got, want in zip(zero.maps(x), alone.maps(x[:, :3]), strict=True):
        torch.testing.assert_close(got, want)
    normal = backbone(in_channels, extra_channels="normal")
    first = {"ir_se": "input_layer.0", "resnet34": "conv1"}[kind]
    weight = normal.get_submodule(first).weight.detach()
    torch.testing.assert_close(weight[:, :3], alone.get_submodule(first).weight)
    assert abs(float(weight[:, 3:].std()) - 1) < 0.15 and abs(float(weight[:, 3:].mean())) < 0.15


@pytest.mark.parametrize("in_channels", [1, 19])
def test_other_inputs_keep_an_initialised_stem(in_channels: int, arcface_file: Path) -> None:
    torch.manual_seed(6)
    fresh = Backbone(TINY["ir_se"](in_channels)).state_dict()
    torch.manual_seed(6)
    started = Backbone(TINY["ir_se"](in_channels, pretrained=arcface_file)).state_dict()
    file = torch.load(arcface_file, weights_only=True)
    for key, value in started.items():
        assert torch.equal(value, fresh[key] if key.startswith("input_layer.") else file[key])


def test_errors_name_wrong_files(tmp_path: Path, arcface_file: Path, resnet_file: Path) -> None:
    with pytest.raises(UserError, match="missing.pth: no such file, expected pretrained weights"):
        TINY["ir_se"](pretrained=tmp_path / "missing.pth")
    with pytest.raises(UserError, match=r"missing body\.0\.res_layer.*unexpected bn1\."):
        TINY["ir_se"](pretrained=resnet_file)
    with pytest.raises(UserError, match=r"missing .*bn1.*unexpected body\."):
        resnet34(units=UNITS, pretrained=arcface_file)
    with pytest.raises(UserError, match=r"unexpected body\.4\.[^;]* \(\d+\)"):
        ir_se(channels=CHANNELS, units=(1, 1, 1, 1), pretrained=arcface_file)
    with pytest.raises(UserError, match=r"shape .*\.weight \(32, 24, 3, 3\) instead of \(40, 24, 3, 3\)"):
        ir_se(channels=(8, 16, 24, 40), units=UNITS, pretrained=arcface_file)
    with pytest.raises(UserError, match="extra_channels=random: expected one of zero, normal"):
        TINY["ir_se"](6, pretrained=arcface_file, extra_channels="random")
    page = tmp_path / "page.pth"
    page.write_bytes(b"<!DOCTYPE html><html>Quota exceeded</html>")
    with pytest.raises(UserError, match="web page"):
        TINY["ir_se"](pretrained=page)


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("harm"),))


def test_files_are_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"input_layer.0.weight": Harm()}, tmp_path / "harm.pth")
    with pytest.raises(UserError, match=r"harm\.pth"):
        TINY["ir_se"](pretrained=tmp_path / "harm.pth")
    assert not (tmp_path / "harm").exists()


# -- face recognition ----------------------------------------------------------------------------------------------


def test_recognition_networks() -> None:
    with torch.device("meta"):
        arcface, curricular = FaceRecognition(), curricularface()
    assert len(arcface.body) == 24 and len(curricular.body) == 49
    assert not any(".fc1." in key for key in curricular.state_dict())
    # Without weights the closing batch norm has its statistics alone.
    closing = [key for key in curricular.state_dict() if key.startswith("output_layer.4.")]
    assert sorted(key.rsplit(".", 1)[1] for key in closing) == ["num_batches_tracked", "running_mean", "running_var"]
    assert "output_layer.4.weight" in arcface.state_dict()

    network = FaceRecognition(UNITS, channels=CHANNELS).eval()
    faces = images(3, 3, 112)
    embeddings = network(faces)
    assert embeddings.shape == (3, 512)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))
    with pytest.raises(UserError, match=r"expected \(B, 3, 112, 112\)"):
        network(images(1, 3, 64))


# -- errors --------------------------------------------------------------------------------------------------------


def test_errors() -> None:
    with pytest.raises(UserError, match=r"got an input of shape \(2, 6, 64, 64\), expected \(B, 3, H, W\)"):
        tiny("fpn")(images(2, 6))
    with pytest.raises(UserError, match=r"expected 64 as its longest side; .* set encoder\.resolution"):
        tiny("single_level")(images(2, 3, 128))
    with pytest.raises(UserError, match=r"expected \(B, 3, H, W\)"):
        tiny("single_w")(images(2, 4))
    with pytest.raises(UserError, match="resolution=16: expected a whole number of at least 32"):
        tiny("fpn", resolution=16)
    with pytest.raises(UserError, match="num_ws=0"):
        tiny("single_level", 0)
    with pytest.raises(UserError, match=r"units=\[1, 2\]: expected four positive numbers"):
        ir_se(units=(1, 2))
    with pytest.raises(UserError, match=r"channels=\[64, 0, 1, 1\]"):
        resnet34(channels=(64, 0, 1, 1))


def test_own_backbone() -> None:
    """A function returns other layers; their names become the keys."""

    def recipe(in_channels: int) -> Layers:
        widths = (in_channels, *CHANNELS)
        groups = [[nn.Conv2d(a, b, 3, 2, 1)] for a, b in zip(widths, CHANNELS, strict=False)]
        return Layers(in_channels, {"mine": nn.Identity()}, groups, CHANNELS)

    encoder = FPNEncoder(10, 12, backbone=recipe, resolution=64)
    assert encoder(images()).shape == (2, 10, 12)
    assert "body.0.weight" in encoder.state_dict()


# -- configuration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["ir_se_tiny", "resnet34"])
@pytest.mark.parametrize("path", sorted((CONF / "encoder").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_builds_an_encoder_for_its_data(path: Path, backbone: str) -> None:
    overrides = [f"encoder={path.stem}", "dataset.resolution=32"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        if "backbone" in compose("train", overrides).encoder:
            overrides += [f"encoder/backbone={backbone}", "encoder.backbone.channels=[8,16,24,32]"]
        recipe = instantiate(compose("train", overrides).method.encoder)
    if "feature_style" in path.stem:
        encoder = recipe(num_ws=6, w_dim=12, in_channels=3, feature_channels=5, feature_size=16)
        codes, features = encoder(images(2, 3, getattr(encoder, "input_size", 32)))
        assert codes.shape == (2, 6, 12) and features.shape == (2, 5, 16, 16)
        return
    encoder = recipe(num_ws=6, w_dim=12, in_channels=6)
    assert encoder(images(2, 6, 32)).shape == (2, 6, 12)


@pytest.mark.parametrize("path", ["fpn", "single_level", "small"])
def test_e4e_makes_the_encoder_progressive(path: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["method=e4e", f"encoder={path}", "dataset.resolution=32"])
        assert cfg.encoder.progressive is True and not compose("train", [f"encoder={path}"]).encoder.progressive
