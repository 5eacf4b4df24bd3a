"""The encoders of the Feature-Style encoder and StyleFeatureEditor against the official code, in double precision."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stylegan_inv.encoders.feature_space.feature_fusion import FeatureFusion
from stylegan_inv.encoders.feature_space.feature_style import FeatureStyleEncoder
from stylegan_inv.encoders.feature_space.iresnet import IResNet
from tests.feature_golden import channel_norms, feature_state, images, official, rnd
from tests.golden import arrays, check, key_shapes, needs_golden

pytestmark = needs_golden
MAP = {"feature_channels": 512, "feature_size": 16}


class Inverter(nn.Module):
    """The parts of StyleFeatureEditor's inverter under their official names."""

    def __init__(self, num_ws: int) -> None:
        super().__init__()
        self.fs_backbone = FeatureStyleEncoder(num_ws, 512, feature_channels=512, feature_size=64)
        self.fuser = FeatureFusion(512)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_keys_and_shapes() -> None:
    with torch.device("meta"):
        networks = {
            "fse_encoder_n18": FeatureStyleEncoder(18, 512, **MAP),
            "fse_encoder_n14": FeatureStyleEncoder(14, 512, **MAP),
            "iresnet50": IResNet(),
            "sfe_inverter_n12": Inverter(12),
            "sfe_inverter_n18": Inverter(18),
            "sfe_editor": FeatureFusion(512),
        }
    for keys, network in networks.items():
        assert {key: tuple(value.shape) for key, value in network.state_dict().items()} == key_shapes(keys), keys
    fse, inverter, editor = (networks[name] for name in ("fse_encoder_n18", "sfe_inverter_n18", "sfe_editor"))
    assert [parameters(fse), len(fse.state_dict())] == arrays("fse_encoder")["params"].tolist()
    counts = [parameters(inverter.fs_backbone), parameters(inverter.fuser), parameters(inverter), parameters(editor)]
    states = [len(inverter.state_dict()), len(editor.state_dict())]
    assert counts + states == arrays("sfe_parts")["params"].tolist()


@pytest.mark.slow
def test_feature_style_encoder() -> None:
    name = "fse_encoder"
    with torch.device("meta"):
        encoder = FeatureStyleEncoder(18, 512, **MAP)
    encoder = official(encoder, "fse_encoder_n18")
    with torch.no_grad():
        maps = encoder.maps(images(0, 1))
        check(name, "block_norms", torch.cat([channel_norms(m) for m in maps]))
        check(name, "pooled", encoder.pooled(maps))
        codes, features = encoder(images(0, 1))
        check(name, "codes", codes)
        check(name, "F_chan_norm", channel_norms(features))
        check(name, "F_slice", features[:, ::16])
        encoder.train()
        codes, features = encoder(images(0, 2))
    check(name, "train_codes", codes[:, ::3])
    check(name, "train_F_chan_norm", channel_norms(features))
    check(name, "train_F_slice", features[:, ::32])
    check(name, "running_mean_after", encoder.content_layer[5].running_mean)
    check(name, "running_var_after", encoder.content_layer[5].running_var)


@pytest.mark.slow
def test_style_feature_editor_parts() -> None:
    name = "sfe_parts"
    with torch.device("meta"):
        inverter, editor = Inverter(12), FeatureFusion(512)
    inverter, editor = official(inverter, "sfe_inverter_n12"), official(editor, "sfe_editor")
    with torch.no_grad():
        maps = inverter.fs_backbone.maps(images(0, 1))
        codes, features = inverter.fs_backbone(images(0, 1))
    check(name, "codes", codes)
    check(name, "F_pred_chan_norm", channel_norms(features))
    check(name, "F_pred_slice", features[:, ::16, ::4, ::4])
    check(name, "c3_chan_norm", channel_norms(maps[2]))
    check(name, "c4_chan_norm", channel_norms(maps[3]))
    check(name, "c3_slice", maps[2][:, ::16, ::4, ::4])
    for part, network in (("fuser", inverter.fuser), ("editor", editor)):
        both = rnd(f"sfe.{part}_in", (2, 1024, 8, 8), 0, 2).requires_grad_()
        out = network(*both.chunk(2, dim=1))
        check(name, f"{part}_slice", out[:, ::8])
        check(name, f"{part}_chan_norm", channel_norms(out))
        (gradient,) = torch.autograd.grad((out * rnd(f"sfe.{part}_probe", (2, 512, 8, 8))).sum(), both)
        check(name, f"grad_{part}_in_slice", gradient[:, ::32])
        check(name, f"grad_{part}_in_abs_sum", gradient.abs().sum(dim=(0, 2, 3)))
    editor.train()
    with torch.no_grad():
        check(name, "editor_train_slice", editor(*rnd("sfe.editor_in", (2, 1024, 8, 8), 0, 2).chunk(2, dim=1))[:, ::8])
    check(name, "editor_train_running_var", editor.body[4].body[5].running_var)
    assert feature_state("sfe_editor")["conv.weight"].equal(editor.conv.weight.detach().float())
