"""Names and errors of the arguments of the synthesis network, and the arguments of its variants."""

from __future__ import annotations

import pytest
import torch

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.generators.progressive import Stage
from tests.generators.frozen_generators import frozen


def test_original_stylegan():
    """The same arguments for the network with adaptive instance normalisation."""
    torch.manual_seed(0)
    generator = Generator(8, z_dim=4, w_dim=6, mapping_layers=1, channels={4: 3, 8: 2}, style="adain").double()
    synthesis = generator.synthesis
    assert synthesis.layer_names() == ["b4.layer0", "b4.layer1", "b8.layer0", "b8.layer1"]
    assert synthesis.feature_names() == ["b4.layer0", "b4.layer1", "b4", "b8.layer0", "b8.layer1", "b8"]
    w, y = torch.randn(2, 4, 6, dtype=torch.float64), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    seen = {}
    hook = synthesis.b4.layer1.register_forward_hook(lambda *args: seen.update(x=args[2]))
    image = synthesis(w)
    hook.remove()
    assert torch.equal(synthesis(w, upto="b4.layer1"), seen["x"])
    style = synthesis.b8.layer0.affine(w[:, 2])
    assert torch.equal(synthesis(w, styles={"b8.layer0": style}), image)
    replace = synthesis.b4.layer1.register_forward_hook(lambda *args: args[2] * 0.3 + y)
    want = synthesis(w)
    replace.remove()
    for name in ("b4.layer1", "b4"):
        result = synthesis(w, features={name: (0.3, y)}, return_features=["b4"])
        assert torch.equal(result.image, want) and torch.equal(result.features["b4"], seen["x"] * 0.3 + y)
    weights = {"b8.torgb.bias": torch.ones(2, 3, dtype=torch.float64) * torch.tensor([[1.0], [2.0]])}
    torch.testing.assert_close(synthesis(w, weights=weights), image + torch.tensor([1.0, 2.0])[:, None, None, None])
    with pytest.raises(UserError, match=r"synthesis\.styles=b8\.torgb: expected one of b4\.layer0"):
        synthesis(w, styles={"b8.torgb": style})


@pytest.mark.parametrize("style", ["modulated", "adain"])
def test_part_of_a_growing_network_takes_no_changes(style):
    generator = Generator(8, z_dim=4, w_dim=6, mapping_layers=1, channels={4: 3, 8: 2}, style=style, progressive=True)
    w = torch.randn(1, 4, 6)
    name = generator.synthesis.feature_names()[0]
    assert generator.synthesis(w, stage=Stage(8), upto=name).shape == (1, 3, 4, 4)
    with pytest.raises(UserError, match=r"Stage\(resolution=4, alpha=1.0\) with upto: .*expected stage=None"):
        generator.synthesis(w, stage=Stage(4), upto=name)


ERRORS = {
    r"synthesis\.features=b7\.conv1: expected one of b4\.conv1, b4, ": {"features": {"b7.conv1": 0}},
    r"synthesis\.features=b8\.torgb: expected one of": {"features": {"b8.torgb": 0}},
    r"synthesis\.features=b16: no layer reads .*expected b16\.conv1": {"features": {"b16": (1.0, 0.0)}},
    r"the map of b8 is \(2, 20, 4, 4\), expected \(1 or 2, 20, 8, 8\)": {"features": {"b8": torch.zeros(2, 20, 4, 4)}},
    r"the map of b8 is \(3, 20, 8, 8\)": {"features": {"b8": torch.zeros(3, 20, 8, 8)}},
    r"the scale of b8 is \(7, 1, 1\), expected .* \(2, 20, 8, 8\)": {"features": {"b8": (torch.ones(7, 1, 1), 0)}},
    r"the shift of b8 is \(1, 2, 20, 8, 8\)": {"features": {"b8": (1, torch.ones(1, 2, 20, 8, 8))}},
    r"synthesis\.return_features=rgb: expected one of": {"return_features": ["rgb"]},
    r"synthesis\.upto=b32: expected one of": {"upto": "b32"},
    r"upto=b8: b16\.conv0 comes after it; expected a layer up to b8": {"upto": "b8", "return_features": ["b16.conv0"]},
    r"synthesis\.styles=b8: expected one of b4\.conv1, b4\.torgb": {"styles": {"b8": torch.zeros(2, 20)}},
    r"the style of b8\.conv0 is \(2, 20\), expected \(2, 5\)": {"styles": {"b8.conv0": torch.zeros(2, 20)}},
    r"the style of b8\.conv0 is \(1, 5\), expected \(2, 5\)": {"styles": {"b8.conv0": torch.zeros(1, 5)}},
    r"neither codes nor a style for b4\.torgb; give w, or": {"w": None, "styles": {"b4.conv1": torch.zeros(2, 5)}},
    r"neither codes nor a style for b4\.conv1": {"w": None},
    r"synthesis\.weights=b8\.conv1: expected one of b4\.const": {"weights": {"b8.conv1": torch.zeros(1)}},
    r"the difference of b8\.conv1\.bias is \(20,\), expected \(1 or 2, 20\)": {
        "weights": {"b8.conv1.bias": torch.zeros(20)}
    },
    r"the difference of b8\.conv1\.noise_strength is \(3,\), expected \(1 or 2\)": {
        "weights": {"b8.conv1.noise_strength": torch.zeros(3)}
    },
}  # fmt: skip  # fmt: skip


@pytest.mark.parametrize("message", ERRORS)
def test_errors_are_one_line(message):
    generator = frozen()
    with pytest.raises(UserError, match=message) as info:
        generator.synthesis(**{"w": torch.zeros(2, 6, 6), **ERRORS[message]})
    assert "\n" not in str(info.value)


def test_names():
    synthesis = frozen().synthesis
    assert synthesis.layer_names() == [
        "b4.conv1", "b4.torgb", "b8.conv0", "b8.conv1", "b8.torgb", "b16.conv0", "b16.conv1", "b16.torgb"
    ]  # fmt: skip
    assert synthesis.feature_names() == [
        "b4.conv1", "b4", "b8.conv0", "b8.conv1", "b8", "b16.conv0", "b16.conv1", "b16"
    ]  # fmt: skip
    parameters = dict(synthesis.named_parameters())
    assert all(f"{name}.affine.weight" in parameters for name in synthesis.layer_names())
