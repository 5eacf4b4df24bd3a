"""Feature insertion, feature modulation and weight differences, against official code that uses them."""

from __future__ import annotations

import functools
import importlib.util
import json
from types import ModuleType

import numpy as np
import pytest
import torch

from stylegan_inv.generators import Generator, load_generator
from tests import golden

pytestmark = golden.needs_golden


@functools.cache
def fill(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, golden.golden_dir() / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(golden.golden_dir() / f"{name}.npz") as f:
        return dict(f)


def check(name: str, key: str, got: torch.Tensor) -> None:
    """Within the golden's own tolerance, in double precision."""
    family = "index_refiners_b" if name.startswith("fse") else "index_refiners_a"
    index = json.loads((golden.golden_dir() / f"{family}.json").read_text())
    entry = next(e for e in index["goldens"] if e["id"] == name)
    want = torch.from_numpy(arrays(name)[key]).double()
    error = golden.relative_error(got, want)
    assert error <= entry["outputs"][key]["tol"]["f64"], f"{name}/{key}: relative L2 error {error:.2e}"


@pytest.fixture(params=["fast path", "modules"])
def fast(request) -> bool:
    return request.param == "fast path"


def load(tmp_path, state, fast: bool) -> Generator:
    torch.save(state, tmp_path / "generator.pt")
    generator = load_generator(tmp_path / "generator.pt").double()
    generator.synthesis.fused.enabled = fast
    return generator


def rosinality(tmp_path, filler: str, fast: bool) -> Generator:
    state = fill(filler).reference_state(golden.golden_dir() / "keys" / "rosinality_g64_cm2.json")
    return load(tmp_path, {"g_ema": state, "latent_avg": torch.zeros(512)}, fast)


def test_feature_style_encoder_inserts_a_feature(fast, tmp_path):
    """The feature with index 5 is what block b16 hands on: its ToRGB reads the generator's own feature map."""
    name, rnd = "fse_generator_insert", fill("fill_features").rnd
    synthesis = rosinality(tmp_path, "fill_features", fast).synthesis
    w = rnd("fse.w", (1, 10, 512), 0, 0, 0.5).double().requires_grad_()
    feature = rnd("fse.F", (1, 512, 16, 16), 0, 0, 2).double().requires_grad_()
    probe = rnd("fse.probe", (1, 3, 64, 64), 0).double()
    check(name, "image_plain", synthesis(w))
    names = [n for n in synthesis.feature_names() if "." in n]  # conv1, convs.0, convs.1, ...
    for s in (0.0, 0.3, 1.0):
        result = synthesis(w, features={"b16": (1 - s, s * feature)}, return_features=names)
        check(name, f"image_{s:g}", result.image)
        norms = torch.stack([result.features[n].norm() for n in names])
        if s == 0.3:
            own = result.features["b16.conv1"]
            check(name, "outs5_chan_norm", own.norm(dim=(2, 3))[0])
        if s < 1:
            const = synthesis.const.norm()[None]
            check(name, "outs_norm" if s else "outs_norm_0", torch.cat([const, norms]))
        if s:
            grad_w, grad_f = torch.autograd.grad((result.image * probe).sum(), [w, feature])
            check(name, "grad_w" if s < 1 else "grad_w_1", grad_w)
            check(name, "grad_F_abs_sum" if s < 1 else "grad_F_1_abs_sum", grad_f.abs().sum(dim=(0, 2, 3)))
        if s == 0.3:
            check(name, "grad_F_slice", grad_f[:, ::8])
    inserted = synthesis(w, features={"b16": feature})
    check(name, "image_1", inserted)
    edited = w + 15 * rnd("fse.n", (1, 10, 512), 0, 0, 0.02).double()
    moved = feature + synthesis(edited, upto="b16") - synthesis(w, upto="b16")
    check(name, "edit_F_slice", moved[:, ::8])
    check(name, "edit_image", synthesis(edited, features={"b16": moved}))


def test_hfgi_modulates_a_feature_map(fast, tmp_path):
    """After the activated first convolution of 64 px; its ToRGB and the next layer read the result."""
    name, filler = "hfgi_fusion", fill("fill_refiners_a")
    synthesis = rosinality(tmp_path, "fill_refiners_a", fast).synthesis
    w = filler.array("hfgi.w_plus", (2, 10, 512), std=0.7).double().requires_grad_()
    scale, shift = (
        filler.array(f"hfgi.{part}", (2, 512, 64, 64), std=0.3).double().requires_grad_() for part in ("scale", "shift")
    )
    check(name, "image_plain", synthesis(w[:1]))
    image = synthesis(w, features={"b64.conv0": (1 + scale, shift)})
    check(name, "image", image)
    probe = filler.array("hfgi.probe_image", (2, 3, 64, 64)).double()
    grad_w, *gradients = torch.autograd.grad((image * probe).sum(), [w, scale, shift])
    check(name, "grad_w_plus", grad_w)
    for part, gradient in zip(("scale", "shift"), gradients, strict=True):
        check(name, f"grad_{part}_sub", filler.sub(gradient, 1409))
        check(name, f"grad_{part}_channel_sum", gradient.sum(dim=(2, 3)))
        check(name, f"grad_{part}_map_sum", gradient.sum(dim=1))


def test_hyperinverter_adds_to_the_weights(tmp_path):
    name, filler = "hyperinverter_generator", fill("fill_refiners_a")
    state = golden.reference_state("nvidia_g64_m8")
    synthesis = load(tmp_path, state, True).synthesis
    w = filler.array("hyperinverter.ws", (1, 10, 512)).double().requires_grad_()
    shapes = {
        **dict.fromkeys(("b4.conv1.weight", "b8.conv0.weight", "b64.conv1.weight"), ((512, 512, 3, 3), 0.2)),
        **dict.fromkeys(("b16.torgb.weight", "b64.torgb.weight"), ((3, 512, 1, 1), 0.1)),
        **dict.fromkeys(("b8.conv1.affine.weight", "b32.torgb.affine.weight"), ((512, 512), 0.3)),
    }
    weights = {
        n: filler.array(f"hyperinverter.dw.{n}", shape, std=std).double()[None].requires_grad_()
        for n, (shape, std) in shapes.items()
    }
    check(name, "image_plain", synthesis(w))
    image = synthesis(w, weights=weights)
    check(name, "image", image)
    with torch.no_grad():
        check(name, "image", synthesis(w, weights=weights))  # by the fused kernels
    probe = filler.array("hyperinverter.probe_image", (1, 3, 64, 64)).double()
    grad_w, *gradients = torch.autograd.grad((image * probe).sum(), [w, *weights.values()])
    check(name, "grad_ws", grad_w)
    for n, gradient in zip(weights, gradients, strict=True):
        key, gradient = f"grad_dw_{n.replace('.', '_')}", gradient[0]
        check(name, f"{key}_sub", filler.sub(gradient, max(1, gradient.numel() // 1500) | 1))
        check(name, f"{key}_sum_out", gradient.flatten(1).sum(dim=1))
