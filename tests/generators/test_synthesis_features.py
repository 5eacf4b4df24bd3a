"""Features, styles, weights and partial runs of the synthesis network, against the network written out."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.generators.feature_maps import Synthesis
from stylegan_inv.generators.frozen import fused_plan, native_layer
from stylegan_inv.generators.progressive import Stage
from stylegan_inv.generators.variants.difference import LowRankDifference, compress, tuned
from tests.generators.plain_synthesis import plain_synthesis

TABLE = {4: 5, 8: 20, 16: 17}
BATCH = 2


def make(resolution=16, seed=0, margin=0.0, **kwargs) -> Generator:
    """A frozen generator; ``margin`` keeps the values before each activation away from zero, where signs flip."""
    torch.manual_seed(seed)
    table = {r: c for r, c in TABLE.items() if r <= resolution}
    options = {"z_dim": 6, "w_dim": 6, "mapping_layers": 1, "channels": table, **kwargs}
    generator = Generator(resolution, **options)
    for layer in generator.synthesis.layers():
        torch.nn.init.normal_(layer.noise_strength, std=0.3)
        torch.nn.init.normal_(layer.bias, std=0.3)
        with torch.no_grad():
            layer.bias += margin * (1 - 2 * (torch.arange(len(layer.bias)) % 2))
    for block in generator.synthesis.blocks():
        torch.nn.init.normal_(block.torgb.bias, std=0.3)
    return generator.freeze()


@pytest.fixture(params=["modules", "fused", "native"])
def path(request, monkeypatch):
    """Prepares a generator for one of the three ways in which a frozen network runs on the CPU."""
    kernels = native_layer.load() if request.param == "native" else None
    if request.param == "native" and kernels is None:
        pytest.skip("no compiler")
    monkeypatch.setattr(fused_plan, "native_kernels", lambda: kernels)

    def prepared(generator: Generator) -> Generator:
        generator.synthesis.fused.enabled = request.param != "modules"
        return generator if request.param == "native" else generator.double()

    prepared.name = request.param
    return prepared


def took_the_fast_path(generator) -> bool:
    return generator.synthesis.fused._constants is not None


def rand(*shape, batch=BATCH):
    return torch.randn(batch, *shape, dtype=torch.float64)


def c(name: str) -> int:
    return TABLE[int(name.split(".")[0][1:])]


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
}  # fmt: skip


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


def error(got, want):
    return float((got.detach().double() - want.detach()).norm() / want.detach().norm().clamp_min(1e-30))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("clamp", [None, 3.0], ids=["", "clamped"])
def test_image_and_gradients(path, case, clamp):
    single = path.name == "native"
    # In single precision gradients are only comparable where no activation is close to its kink.
    generator = path(make(margin=8.0 if single and clamp is None else 0.0, conv_clamp=clamp))
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
    assert took_the_fast_path(generator) == (path.name != "modules" and not trained)
    # Without return_features the image and its gradients are the same.
    alone = generator.synthesis(here[0], here[1], **here[2])
    assert error(alone, image) < tolerance
    with torch.no_grad():
        assert error(generator.synthesis(here[0], here[1], **here[2]), image) < tolerance


@pytest.mark.parametrize("upto", ["b4.conv1", "b4", "b8.conv0", "b8.conv1", "b8", "b16.conv1", "b16"])
def test_stops_at_a_feature_map(path, upto):
    generator = path(make(margin=8.0))
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
    generator = make()
    seen = []
    for name, module in generator.synthesis.named_modules():
        if name in generator.synthesis.layer_names():
            module.register_forward_hook(lambda *_, name=name: seen.append(name))
    generator.synthesis(torch.randn(1, 6, 6), upto="b8.conv0")
    assert seen == ["b4.conv1", "b8.conv0"]


def test_names():
    synthesis = make().synthesis
    assert synthesis.layer_names() == [
        "b4.conv1", "b4.torgb", "b8.conv0", "b8.conv1", "b8.torgb", "b16.conv0", "b16.conv1", "b16.torgb"
    ]  # fmt: skip
    assert synthesis.feature_names() == [
        "b4.conv1", "b4", "b8.conv0", "b8.conv1", "b8", "b16.conv0", "b16.conv1", "b16"
    ]  # fmt: skip
    parameters = dict(synthesis.named_parameters())
    assert all(f"{name}.affine.weight" in parameters for name in synthesis.layer_names())


def test_styles_alone(path):
    """The styles that the affine layers compute give the same image without codes, and reach no affine layer."""
    generator = path(make(margin=8.0))
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
    assert took_the_fast_path(generator) == (path.name != "modules")


@pytest.mark.parametrize("fused", [True, False])
def test_first_and_second_derivatives(fused):
    generator = make(resolution=8, channels={4: 2, 8: 3}).double()
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
    assert took_the_fast_path(generator) == fused


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_of_one_image_are_a_tuned_copy(dtype):
    """Bit for bit, also with a compressed difference, and without a trace in the original."""
    generator = make().to(dtype)
    w = torch.randn(3, 6, 6, dtype=dtype)
    plain = generator.synthesis(w)
    other = copy.deepcopy(generator)
    for p in other.parameters():
        p.add_(0.1 * torch.randn_like(p))
    factors = compress(generator.synthesis, other.synthesis, rank=2)
    assert any(name.endswith(".left") for name in factors)
    copied = tuned(generator, factors)
    weights = LowRankDifference({name: t[None] for name, t in factors.items()}, generator.synthesis)
    assert set(weights) == {name for name, _ in generator.synthesis.named_parameters()} and len(weights) == len(
        list(generator.synthesis.parameters())
    )
    for code in (w[:1], w):
        assert torch.equal(generator.synthesis(code, weights=weights), copied.synthesis(code))
        change = {"b8.conv0": (1.0, 0.5)}
        assert torch.equal(
            generator.synthesis(code, features=change, weights=weights), copied.synthesis(code, features=change)
        )
    assert torch.equal(generator.synthesis(w), plain)
    generator.synthesis.fused.enabled = copied.synthesis.fused.enabled = False
    assert torch.equal(generator.synthesis(w, weights=weights), copied.synthesis(w))


def test_weights_of_a_batch_are_those_of_its_images(path):
    generator = path(make())
    dtype = next(generator.parameters()).dtype
    w, noise = torch.randn(3, 6, 6, dtype=dtype), [m.expand(3, -1, -1, -1) for m in generator.synthesis.noise_maps()]
    weights = {
        name: 0.1 * torch.randn(3 if k % 2 else 1, *p.shape, dtype=dtype)
        for k, (name, p) in enumerate(generator.synthesis.named_parameters())
    }
    styles = {"b8.conv1": torch.randn(3, 20, dtype=dtype)}
    features = {"b8": (torch.rand(20, 1, 1, dtype=dtype), torch.randn(3, 20, 8, 8, dtype=dtype))}
    result = generator.synthesis(
        w, noise, features=features, styles=styles, weights=weights, return_features=["b8.conv0"]
    )
    for i in range(3):
        other = copy.deepcopy(generator)
        for name, p in other.synthesis.named_parameters():
            p.add_(weights[name][i if len(weights[name]) > 1 else 0])
        one = other.synthesis(
            w[i : i + 1],
            [m[i : i + 1] for m in noise],
            features={"b8": (features["b8"][0], features["b8"][1][i : i + 1])},
            styles={"b8.conv1": styles["b8.conv1"][i : i + 1]},
            return_features=["b8.conv0"],
        )
        assert torch.equal(result.image[i : i + 1], one.image)
        assert torch.equal(result.features["b8.conv0"][i : i + 1], one.features["b8.conv0"])


def test_weights_train():
    """A hypernetwork's differences get the gradient of the weight itself."""
    generator = make().double()
    w = torch.randn(1, 6, 6, dtype=torch.float64)
    difference = torch.zeros(1, 20, 20, 3, 3, dtype=torch.float64, requires_grad=True)
    (got,) = torch.autograd.grad(
        generator.synthesis(w, weights={"b8.conv1.weight": difference}).square().sum(), difference
    )
    weight = generator.synthesis.b8.conv1.weight.requires_grad_()
    (want,) = torch.autograd.grad(generator.synthesis(w).square().sum(), weight)
    torch.testing.assert_close(got[0], want)


def test_random_noise_is_drawn_once_for_the_whole_batch(path):
    generator = path(make(margin=8.0))
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
    generator = path(make())
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
    monkeypatch.setattr(fused_plan, "native_kernels", lambda: kernels)
    generator = make()
    w, y = torch.randn(2, 6, 6, requires_grad=True), torch.randn(2, 20, 8, 8, requires_grad=True)

    def gradients(retain):
        image = generator.synthesis(w, features={"b8.conv0": (0.5, y), "b8": (y, 1.0)})
        return torch.autograd.grad(image.square().sum(), [w, y], retain_graph=retain)

    want = gradients(True)
    monkeypatch.setattr(native_layer, "_LARGE_BYTES", 0)
    for _ in range(3):
        assert all(map(torch.equal, gradients(False), want))


def test_bfloat16_features():
    generator = make(64, channels=dict.fromkeys((4, 8, 16, 32, 64), 24), margin=8.0)
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
}  # fmt: skip


@pytest.mark.parametrize("message", ERRORS)
def test_errors_are_one_line(message):
    generator = make()
    with pytest.raises(UserError, match=message) as info:
        generator.synthesis(**{"w": torch.zeros(2, 6, 6), **ERRORS[message]})
    assert "\n" not in str(info.value)


def test_other_differences_are_refused():
    base, other = make(), make(seed=1)
    factors = {name: t[None] for name, t in compress(base.synthesis, other.synthesis, 2).items()}
    with pytest.raises(UserError, match="extra is in the file alone; expected the generator that was tuned"):
        LowRankDifference({**factors, "extra": torch.zeros(1)}, base.synthesis)
    with pytest.raises(UserError, match=r"b4\.const is in the network alone"):
        LowRankDifference({k: v for k, v in factors.items() if "b4.const" not in k}, base.synthesis)
    with pytest.raises(UserError, match=r"b4\.const has 79 numbers, expected \(5, 4, 4\)"):
        LowRankDifference({**factors, "b4.const": torch.zeros(1, 79)}, base.synthesis)
