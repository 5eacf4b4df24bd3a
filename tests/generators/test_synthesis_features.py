"""Features, styles and partial runs of the synthesis network, against the network written out."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from stylegan_inv.generators.feature_maps import Synthesis
from stylegan_inv.generators.frozen import native_layer, network_plan
from tests.generators.frozen_generators import SMALL, error, frozen, used
from tests.generators.plain_synthesis import plain_synthesis

BATCH = 2


def rand(*shape, batch=BATCH):
    return torch.randn(batch, *shape, dtype=torch.float64)


def c(name: str) -> int:
    return SMALL[int(name.split(".")[0][1:])]


def feature_map(name: str, batch=BATCH):
    r = int(name.split(".")[0][1:])
    return rand(c(name), r, r, batch=batch)


CASES = {
    "map after conv0": lambda g: {"features": {"b8.conv0": feature_map("b8.conv0")}},
    "map after conv1": lambda g: {"features": {"b8.conv1": feature_map("b8.conv1")}},
    "map after a block": lambda g: {"features": {"b8": feature_map("b8")}},
    "one map for all images": lambda g: {"features": {"b8": feature_map("b8", batch=1)}},
    "map after the first layer": lambda g: {"features": {"b4.conv1": feature_map("b4")}},
    "map before the last ToRGB": lambda g: {"features": {"b16.conv1": feature_map("b16")}},
    "modulation": lambda g: {"features": {"b16.conv0": (1 + 0.3 * feature_map("b16"), feature_map("b16"))}},
    "scale for each channel": lambda g: {"features": {"b8.conv1": (rand(20, 1, 1), 0.5)}},
    "added to several blocks": lambda g: {"features": {n: (1.0, feature_map(n)) for n in ("b4", "b8", "b16.conv1")}},
    "changed twice": lambda g: {"features": {"b8.conv1": (2.0, 0.1), "b8": (rand(1, 8, 8), feature_map("b8"))}},
    "some styles": lambda g: {"styles": {"b8.conv0": rand(5), "b8.torgb": rand(20), "b16.conv1": rand(17)}},
    "weights of each image": lambda g: {
        "weights": {n: 0.3 * rand(*g.synthesis.get_parameter(n).shape) for n in ("b8.conv0.weight", "b16.torgb.bias")}
    },
    "weights of all kinds": lambda g: {
        "weights": {n: 0.2 * rand(*p.shape, batch=1) for n, p in g.synthesis.named_parameters()}
    },
    "everything": lambda g: {
        "features": {"b4.conv1": (0.5, feature_map("b4")), "b8": feature_map("b8"), "b16.conv0": (rand(1, 1, 1), 0.1)},
        "styles": {"b4.torgb": rand(5), "b16.conv1": rand(17)},
        "weights": {"b8.conv1.weight": 0.3 * rand(20, 20, 3, 3), "b4.const": rand(5, 4, 4, batch=1)},
    },
}  # fmt: skip  # fmt: skip


def leaves(value) -> list[torch.Tensor]:
    """All tensors of nested arguments."""
    if isinstance(value, torch.Tensor):
        return [value]
    values = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return [t for v in values for t in leaves(v)]


def cast(value, dtype):
    if isinstance(value, torch.Tensor):
        return value.detach().to(dtype).requires_grad_()
    if isinstance(value, dict):
        return {k: cast(v, dtype) for k, v in value.items()}
    return type(value)(cast(v, dtype) for v in value) if isinstance(value, (tuple, list)) else value


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("clamp", [None, 3.0], ids=["", "clamped"])
def test_image_and_gradients(path, case, clamp):
    single = path.name == "native"
    # In single precision gradients are only comparable where no activation is close to its kink.
    generator = path(frozen(margin=8.0 if single and clamp is None else 0.0, conv_clamp=clamp))
    reference = copy.deepcopy(generator.synthesis).double()
    dtype = torch.float32 if single else torch.float64
    arguments = CASES[case](generator)
    w = torch.randn(BATCH, generator.num_ws, 6, dtype=torch.float64)
    noise = [rand(1, layer.resolution, layer.resolution, batch=1 + k % 2) for k, layer in enumerate(reference.layers())]
    here, there = cast([w, noise, arguments], dtype), cast([w, noise, arguments], torch.float64)

    names = ["b4.conv1", "b8.conv0", "b8", "b16.conv1"]
    result = generator.synthesis(here[0], here[1], **here[2], return_features=names)
    image, maps = plain_synthesis(reference, there[0], there[1], **there[2])
    assert isinstance(result, Synthesis) and list(result.features) == names
    assert result.image.is_contiguous() and result.image.dtype == dtype
    tolerance = 1e-5 if single else 1e-12
    assert error(result.image, image) < tolerance
    assert max(error(result.features[name], maps[name]) for name in names) < tolerance

    probes = [torch.randn_like(image), *(torch.randn_like(maps[name]) for name in names)]
    got = [result.image, *result.features.values()]
    loss = sum((t * p.to(dtype)).sum() for t, p in zip(got, probes, strict=True))
    want = sum((t * p).sum() for t, p in zip([image, *(maps[name] for name in names)], probes, strict=True))
    gradients = torch.autograd.grad(loss, leaves(here), allow_unused=True)
    expected = torch.autograd.grad(want, leaves(there), allow_unused=True)
    loose = single and clamp is not None
    for g, e in zip(gradients, expected, strict=True):
        e = torch.zeros(1, dtype=torch.float64) if e is None else e
        g = torch.zeros(1) if g is None else g
        if e.norm() == 0:
            assert g.norm() == 0
        else:
            assert error(g, e) < (1e-2 if loose else 10 * tolerance)
    trained = "weights" in arguments
    assert used(generator) == (path.name != "modules" and not trained)
    # Without return_features the image and its gradients are the same.
    alone = generator.synthesis(here[0], here[1], **here[2])
    assert error(alone, image) < tolerance
    with torch.no_grad():
        assert error(generator.synthesis(here[0], here[1], **here[2]), image) < tolerance


@pytest.mark.parametrize("upto", ["b4.conv1", "b4", "b8.conv0", "b8.conv1", "b8", "b16.conv1", "b16"])
def test_stops_at_a_feature_map(path, upto):
    generator = path(frozen(margin=8.0))
    dtype = next(generator.parameters()).dtype
    w = torch.randn(BATCH, generator.num_ws, 6, dtype=dtype, requires_grad=True)
    shift = torch.randn(BATCH, 5, 4, 4, dtype=dtype, requires_grad=True)
    change = {"b4.conv1": (1.5, shift)}
    every = generator.synthesis(w, features=change, return_features=["b4", upto])
    got = generator.synthesis(w, features=change, upto=upto)
    torch.testing.assert_close(got, every.features[upto], rtol=1e-5, atol=1e-5)
    both = generator.synthesis(w, features=change, upto=upto, return_features=["b4.conv1", upto])
    assert both.image is None and set(both.features) == {"b4.conv1", upto}
    assert torch.equal(both.features[upto], got)
    probe = torch.randn_like(got)
    found = torch.autograd.grad((got * probe).sum(), [w, shift])
    want = torch.autograd.grad((every.features[upto] * probe).sum(), [w, shift])
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-4)
    rows = generator.synthesis.feature_names().index(upto)
    assert found[0][:, -1].abs().sum() == 0 or rows > 8  # the last row styles the last ToRGB alone


def test_upto_runs_no_later_layer_and_no_colours():
    generator = frozen()
    seen = []
    for name, module in generator.synthesis.named_modules():
        if name in generator.synthesis.layer_names():
            module.register_forward_hook(lambda *_, name=name: seen.append(name))
    generator.synthesis(torch.randn(1, 6, 6), upto="b8.conv0")
    assert seen == ["b4.conv1", "b8.conv0"]


def test_styles_alone(path):
    """The styles that the affine layers compute give the same image without codes, and reach no affine layer."""
    generator = path(frozen(margin=8.0))
    synthesis = generator.synthesis
    w = torch.randn(BATCH, 6, 6, dtype=next(generator.parameters()).dtype)
    rows = [0, 1, 1, 2, 3, 3, 4, 5]
    styles = {
        name: synthesis.get_submodule(f"{name}.affine")(w[:, row]).requires_grad_()
        for name, row in zip(synthesis.layer_names(), rows, strict=True)
    }
    image = synthesis(styles=styles)
    torch.testing.assert_close(image, synthesis(w))
    gradients = torch.autograd.grad(image.sum(), list(styles.values()))
    assert all(g.abs().sum() > 0 for g in gradients)
    first = {name: styles[name] for name in ("b4.conv1", "b8.conv0")}
    torch.testing.assert_close(synthesis(styles=first, upto="b8.conv0"), synthesis(w, upto="b8.conv0"))
    assert used(generator) == (path.name != "modules")


@pytest.mark.parametrize("fused", [True, False])
def test_first_and_second_derivatives(fused):
    generator = frozen(resolution=8, channels={4: 2, 8: 3}).double()
    generator.synthesis.fused.enabled = fused
    w, style = torch.randn(1, 4, 6, dtype=torch.float64), rand(3, batch=1)
    features = [rand(2, 4, 4, batch=1), rand(3, 8, 8, batch=1), rand(3, 1, 1, batch=1)]
    weight, noise = rand(3, 2, 3, 3, batch=1), [rand(1, r, r, batch=1) for r in (4, 8, 8)]

    def render(w, style, a, b, c, weight, *noise):
        return generator.synthesis(
            w,
            list(noise),
            features={"b4": a, "b8.conv0": (c, b)},
            styles={"b8.torgb": style},
            weights={"b8.conv0.weight": weight} if weight is not None else None,
            return_features=["b8.conv1"],
        )

    inputs = [t.requires_grad_() for t in (w, style, *features, weight, *noise)]
    assert gradcheck(lambda *t: (render(*t).image, render(*t).features["b8.conv1"]), inputs)
    few = [t for t in inputs if t is not weight]

    def without_weights(w, style, a, b, c, *noise):
        result = render(w, style, a, b, c, None, *noise)
        return result.image.mean(dim=(2, 3)).square(), result.features["b8.conv1"].mean(dim=(2, 3)).square()

    assert gradgradcheck(without_weights, few)
    assert used(generator) == fused


def test_random_noise_is_drawn_once_for_the_whole_batch(path):
    generator = path(frozen(margin=8.0))
    w = torch.randn(3, 6, 6, dtype=next(generator.parameters()).dtype)

    def call(**arguments):
        torch.manual_seed(5)
        return generator.synthesis(w, "random", **arguments)

    want = call()
    assert torch.equal(call(), want) and not torch.equal(generator.synthesis(w, "random"), want)
    zero = torch.zeros(3, 20, dtype=w.dtype)
    for arguments in ({"features": {"b8": (1.0, 0.0)}}, {"weights": {"b8.conv1.bias": zero}}):
        torch.testing.assert_close(call(**arguments), want, rtol=1e-4, atol=1e-4)
    full = call(return_features=["b8.conv1"])
    torch.testing.assert_close(call(upto="b8.conv1"), full.features["b8.conv1"], rtol=1e-4, atol=1e-4)


def test_backward_twice_and_changes_in_place(path):
    generator = path(frozen())
    w = torch.randn(1, 6, 6, dtype=next(generator.parameters()).dtype, requires_grad=True)
    result = generator.synthesis(w, return_features=["b8", "b16.conv0"])
    loss = result.image.square().sum() + result.features["b8"].square().sum()
    first = torch.autograd.grad(loss, w, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(loss, w, retain_graph=True)[0], first)
    features = result.features["b16.conv0"]
    before = features.detach().clone()
    torch.autograd.grad(loss, w)
    assert torch.equal(features, before)  # backward leaves what was returned
    result = generator.synthesis(w, return_features=["b8"])
    with torch.no_grad():
        result.features["b8"].mul_(2)
    with pytest.raises(RuntimeError, match="modified (by an )?inplace"):
        result.image.sum().backward()


def test_memory_is_reused_between_segments(monkeypatch):
    """With the threshold of large outputs at zero: bit for bit the gradients of memory that is never reused."""
    kernels = native_layer.load()
    if kernels is None:
        pytest.skip("no compiler")
    monkeypatch.setattr(network_plan, "native_kernels", lambda: kernels)
    generator = frozen()
    w, y = torch.randn(2, 6, 6, requires_grad=True), torch.randn(2, 20, 8, 8, requires_grad=True)

    def gradients(retain):
        image = generator.synthesis(w, features={"b8.conv0": (0.5, y), "b8": (y, 1.0)})
        return torch.autograd.grad(image.square().sum(), [w, y], retain_graph=retain)

    want = gradients(True)
    monkeypatch.setattr(native_layer, "_LARGE_BYTES", 0)
    for _ in range(3):
        assert all(map(torch.equal, gradients(False), want))


def test_bfloat16_features():
    generator = frozen(64, channels=dict.fromkeys((4, 8, 16, 32, 64), 24), margin=8.0)
    w, y = torch.randn(1, 10, 6, requires_grad=True), torch.randn(1, 24, 64, 64, requires_grad=True)

    def run():
        result = generator.synthesis(w, features={"b64.conv0": (1.0, y)}, return_features=["b64.conv0"])
        loss = result.image.square().mean() + result.features["b64.conv0"].mean()
        return result, torch.autograd.grad(loss, [w, y])

    full, gradients = run()
    generator.freeze(dtype=torch.bfloat16)
    low, low_gradients = run()
    assert low.features["b64.conv0"].dtype == torch.float32 and not torch.equal(low.image, full.image)
    assert error(low.image, full.image.double()) < 1e-2
    for got, want in zip(low_gradients, gradients, strict=True):
        assert torch.cosine_similarity(got.flatten(), want.flatten(), dim=0) > 0.99
