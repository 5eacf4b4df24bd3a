"""Options of a frozen generator: implementation, precision, recomputation and CUDA graphs."""

from __future__ import annotations

import pytest
import torch
from hydra import compose, initialize_config_dir

from stylegan_inv.config import CONF_DIR, instantiate
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator, GraphedSynthesis, load_generator
from stylegan_inv.generators.frozen import cuda_graphs


def small(**options: object) -> Generator:
    torch.manual_seed(0)
    table = {4: 8, 8: 8, 16: 8, 32: 8}
    generator = Generator(32, z_dim=4, w_dim=8, mapping_layers=1, channels=table, **options)  # type: ignore[arg-type]
    for layer in generator.synthesis.layers():
        torch.nn.init.normal_(layer.noise_strength, std=0.3)
    return generator


def codes(generator: Generator, batch: int = 2) -> torch.Tensor:
    source = torch.Generator().manual_seed(1)
    return torch.randn(batch, generator.num_ws, generator.w_dim, generator=source).requires_grad_()


# -- implementation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ops", ["auto", "fast", "ref"])
def test_implementation_is_chosen_when_loading_and_from_the_command_line(ops: str) -> None:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        cfg = compose("train", overrides=[f"generator.ops={ops}"])
    generator = instantiate(cfg.generator)
    assert generator.config["ops"] == ops == generator.synthesis.b16.conv0.ops == generator.mapping.fc0.ops
    w = generator.mapping(torch.randn(1, generator.z_dim, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(generator.synthesis(w), load_generator("synthfaces64").synthesis(w), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ops": "gpu"}, "unknown implementation 'gpu'"),
        ({"dtype": "float16"}, "generator.dtype=float16: expected one of"),
    ],
)
def test_unknown_choices(options: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_generator("synthfaces64", **options)  # type: ignore[arg-type]


# -- precision ---------------------------------------------------------------------------------------------------------


def test_bfloat16_is_sixty_decibels_from_float32_on_a_trained_generator() -> None:
    """Layers below 64 px stay in float32; at 64 px that leaves the last of five blocks. Range of an image: [-1, 1]."""
    full, low = load_generator("synthfaces64"), load_generator("synthfaces64", dtype="bfloat16")
    z = torch.randn(32, full.z_dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        w = full.mapping(z)
        error = (low.synthesis(w) - full.synthesis(w)).square().mean(dim=(1, 2, 3))
    assert error.min() > 0, "nothing was computed in bfloat16"
    assert 10 * torch.log10(4 / error.mean()) >= 60
    assert (10 * torch.log10(4 / error)).min() >= 58  # the worst single image; measured: 59.5, and 62.7 on average


# -- recomputation -----------------------------------------------------------------------------------------------------


def kept_bytes(generator: Generator, w: torch.Tensor) -> tuple[int, torch.Tensor]:
    """Returns the bytes that autograd keeps of a forward pass, without weights, and the image."""
    sizes: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in [*generator.parameters(), *generator.buffers()]}

    def pack(t: torch.Tensor) -> torch.Tensor:
        if t.untyped_storage().data_ptr() not in own:
            sizes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        image = generator.synthesis(w)
    return sum(sizes.values()), image


@pytest.mark.parametrize("ops", ["ref", "fast"])
@pytest.mark.parametrize("trains", [False, True])
def test_blocks_are_computed_again_where_the_modules_run(ops: str, trains: bool) -> None:
    plain, again = small(ops=ops), small(ops=ops)
    for generator, recompute in ((plain, False), (again, True)):
        generator.freeze(recompute=recompute).synthesis.fused.enabled = False  # as on a GPU
        generator.requires_grad_(trains)
    a, b = codes(plain), codes(again)
    (much, want), (little, got) = kept_bytes(plain, a), kept_bytes(again, b)
    assert little < 0.5 * much
    assert torch.equal(got, want)
    want.square().sum().backward()
    got.square().sum().backward()
    torch.testing.assert_close(b.grad, a.grad, rtol=1e-6, atol=1e-6)
    for (name, p), q in zip(plain.synthesis.named_parameters(), again.synthesis.parameters(), strict=True):
        if trains:
            torch.testing.assert_close(q.grad, p.grad, rtol=1e-5, atol=1e-5, msg=name)
        else:
            assert q.grad is None
    with torch.no_grad():
        assert torch.equal(again.synthesis(b), plain.synthesis(a))


def test_random_noise_is_the_same_when_computed_again() -> None:
    gradients = []
    for recompute in (False, True):
        generator = small().freeze(recompute=recompute)
        generator.synthesis.fused.enabled = False
        torch.manual_seed(5)
        w = codes(generator)
        generator.synthesis(w, noise="random").square().sum().backward()
        gradients.append(w.grad)
    torch.testing.assert_close(gradients[1], gradients[0])


# -- CUDA graphs -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is available")
def test_graphs_need_a_gpu() -> None:
    with pytest.raises(UserError, match=r"no GPU is available here; call generator\.synthesis"):
        GraphedSynthesis(small().freeze(), 1)


def test_graphs_refuse_what_was_not_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is captured, and the errors of other shapes; with a stand-in for the capture, which needs a GPU."""
    captured = []

    def capture(function: object, sample: tuple[torch.Tensor, ...]) -> object:
        captured.append(sample[0])
        return function

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    generator = small().freeze()
    with pytest.raises(UserError, match=r"the generator is on cpu, expected a GPU; move it: \.cuda\(\)"):
        GraphedSynthesis(generator, 2)
    monkeypatch.setattr(cuda_graphs, "_check_device", lambda generator: None)
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", capture)
    with pytest.raises(UserError, match="still trains"):
        GraphedSynthesis(small(), 2)
    for batch, noise, message in ((0, "const", "batch=0"), (True, "const", "batch=True"), (2, "some", "noise=some")):
        with pytest.raises(UserError, match=message):
            GraphedSynthesis(generator, batch, noise)
    assert not captured
    graphed, w = GraphedSynthesis(generator, 2), codes(generator)
    assert captured[0].shape == w.shape and captured[0].requires_grad
    torch.testing.assert_close(graphed(w), generator.synthesis(w))
    with pytest.raises(UserError, match=r"codes of shape \(1, 8, 8\), but \(2, 8, 8\) was captured"):
        graphed(w[:1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU to capture a graph on")
@pytest.mark.parametrize("noise", ["const", "none"])
def test_graphs_render_and_differentiate_like_the_synthesis(noise: str) -> None:
    generator = small().cuda().freeze()
    graphed = GraphedSynthesis(generator, 2, noise)
    for seed in (1, 2):  # the second call replays over the memory of the first
        w = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(seed)).cuda().requires_grad_()
        want, got = generator.synthesis(w, noise=noise), graphed(w)
        torch.testing.assert_close(got, want)
        (a,), (b,) = (torch.autograd.grad(image.square().sum(), w) for image in (want, got))
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4)
