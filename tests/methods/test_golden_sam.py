"""SAM's choice of latents, its rendering, edits and optimisation against two official codes, in double precision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from stylegan_inv.generators import Generator, load_generator
from stylegan_inv.latents.naturalness import GaussianizedW
from stylegan_inv.losses.features import LpipsFeatures
from stylegan_inv.methods.common.per_image import InputImages
from stylegan_inv.methods.feature_space.sam import SAM
from stylegan_inv.methods.regions.latent_choice import choose_latents, segment_means, shrunk_mask
from stylegan_inv.optim.optimization_state import Monitor, OptimizationState, Variables
from stylegan_inv.optim.per_image_optimization import optimize
from tests import golden
from tests.golden import arrays, check, filler, golden_dir, needs_golden
from tests.methods.tiny import Blurs

pytestmark = needs_golden
#: Official name of a latent -> side of its feature map. The official order is that of the choice.
SIZES = {"F10": 128, "F8": 64, "F6": 32, "F4": 16}
LAYERS = {"F4": "b16", "F6": "b32", "F8": "b64", "F10": "b128"}
NAMES = (*SIZES, "W+")


def rnd(*args: Any) -> Tensor:
    drawn: Tensor = filler("fill_features").rnd(*args)
    return drawn.double()


def photograph(stride: int = 1) -> Tensor:
    with np.load(golden_dir() / "images.npz") as file:
        return golden.fill().image(file["img256"][2:3]).double()[:, :, ::stride, ::stride]


def maps(name: str, cells: int, shifts: dict[str, float]) -> Tensor:
    found = []
    for latent in NAMES:
        if latent not in shifts:  # not a candidate
            found.append(torch.full((cells, cells), torch.inf, dtype=torch.float64))
            continue
        values = 0.225 + shifts[latent] + rnd(f"{name}.{latent}", (1, 1, cells, cells), 0, 0, 0.12)[0, 0]
        found.append(values)
    return torch.stack([m.repeat_interleave(256 // 16 if cells == 16 else 8, 0) for m in found]).repeat_interleave(
        256 // 16 if cells == 16 else 8, 2
    )


def segments(name: str) -> Tensor:
    return torch.from_numpy(arrays(name)["segments"].astype(np.int64))


def masks(choice: Tensor) -> dict[str, Tensor]:
    return {name: shrunk_mask((choice == number).double(), size) for number, (name, size) in enumerate(SIZES.items())}


def adobe_maps() -> Tensor:
    return maps("sam.inv", 16, dict.fromkeys(NAMES, 0.0))


def five_masks() -> Tensor:
    shifts = {"W+": 0.06, "F4": 0.04, "F6": 0.03, "F8": 0.0, "F10": 0.0}
    return maps("sam.inv2", 16, shifts)


def test_choice_of_five_latents() -> None:
    name = "sam_masks"
    found, numbers = five_masks(), segments(name)
    means = segment_means(found, numbers)
    check(name, "segment_means", means[~means.isnan().any(1)])
    for threshold in (0.2, 0.225, 0.25):
        choice = choose_latents(found, numbers, threshold)
        assert torch.equal(choice, torch.from_numpy(arrays(name)[f"classes_{threshold}"]).long())
        together = sum(((choice == k).double() for k in range(5)), torch.zeros_like(found[0]))
        assert bool((together == 1).all())
    choice = choose_latents(found, numbers, 0.225)
    for key, mask in masks(choice).items():
        check(name, f"mask_{key}", mask)
    check(name, "mask_W+", (choice == 4).double()[::2, ::2])


def test_thresholds_at_both_ends() -> None:
    found, numbers = five_masks(), segments("sam_masks")
    assert bool((choose_latents(found, numbers, 10.0) == 4).all())
    assert bool((choose_latents(found, numbers, -10.0) == 0).all())


class Given(SAM):
    """With masks and samples of W that are given, and a record of the terms."""

    def prepare_state(self, w: Tensor, given: dict[str, Tensor], offsets: dict[str, Tensor]) -> Variables:
        noise = torch.cat([m.flatten(1) for m in self.generator.synthesis.noise_maps()], dim=1)
        variables: Variables = {"w": w, "start w": w.clone(), "noise": noise}
        for name, layer in self.official.items():
            variables[layer], variables[f"mask {layer}"] = offsets[name].clone(), given[name][None, None]
        return variables

    official: dict[str, str]

    def _loss(self, variables: Variables, targets: Any, step: int) -> dict[str, Tensor]:
        terms = super()._loss(variables, targets, step)
        self.terms.append({name: float(value.detach()) for name, value in terms.items()})
        inputs = ["w", *self.layers]
        gradients = torch.autograd.grad(
            terms["total"].sum(), [variables[n] for n in inputs], retain_graph=True, allow_unused=True
        )
        self.gradients.append([torch.zeros(1) if g is None else g for g in gradients])
        self.images.append(self.render(variables).detach())
        return terms


def build(kind: type, generator: Generator, features: Any, official: dict[str, str], **kwargs: Any) -> Any:
    made = kind(generator=generator, features=features, layers=list(official.values()), **kwargs)
    made.official, made.terms, made.gradients, made.images = official, [], [], []
    made._gaussian = gaussian(generator)
    return made


def gaussian(generator: Generator) -> GaussianizedW:
    with torch.no_grad():
        z = rnd("sam.z", (5000, 512), 0)
        return GaussianizedW(torch.cat([generator.mapping.w(part) for part in z.split(500)]))


def load(tmp_path: Path, keys: str) -> Generator:
    state = filler("fill_features").reference_state(golden_dir() / "keys" / f"{keys}.json")
    content = state if keys.startswith("nvidia") else {"g_ema": state, "latent_avg": torch.zeros(512)}
    torch.save(content, tmp_path / "generator.pt")
    return load_generator(tmp_path / "generator.pt").double()


def perceptual(tmp_path: Path) -> LpipsFeatures:
    torch.save(
        filler("fill_features").reference_state(golden_dir() / "keys" / "torchvision_vgg16_features.json"),
        tmp_path / "vgg.pth",
    )
    return LpipsFeatures("vgg", tmp_path / "vgg.pth").double()


def random_offsets(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {name: rnd(f"sam.off.{name}", (1, *shape), 0, 0, 0.5) for name, shape in shapes.items()}


SHAPES_256 = {"F4": (512, 16, 16), "F6": (512, 32, 32), "F8": (256, 64, 64), "F10": (128, 128, 128)}


@pytest.mark.slow
def test_forward_and_edit(tmp_path: Path) -> None:
    name, generator = "sam_forward", load(tmp_path, "nvidia_g256_m2_base16384")
    method = build(Given, generator, Blurs(), LAYERS, drop_offsets=True)
    given = masks(choose_latents(five_masks(), segments("sam_masks"), 0.225))
    w = rnd("sam.w", (1, 14, 512), 0, 0, 0.5)
    variables = method.prepare_state(w, given, random_offsets(SHAPES_256))
    with torch.no_grad():
        check(name, "image_offsets", method.render(variables)[..., ::2, ::2])
        check(name, "image_plain", generator.synthesis(w)[..., ::4, ::4])
        found = generator.synthesis(w, features=method._offsets(variables), return_features=method.layers)
        for key, layer in LAYERS.items():
            check(name, f"{key}_chan_norm", found.features[layer].norm(dim=(2, 3))[0])
        changes = method.edit_changes(variables, found.features)
        edited = w + rnd("sam.n", (1, 14, 512), 0, 0, 0.3)
        check(name, "image_edit", generator.synthesis(edited, features=changes)[..., ::4, ::4])


@pytest.mark.slow
@pytest.mark.long  # minutes; the parts are checked by the tests above
def test_optimisation_of_the_official_code(tmp_path: Path) -> None:
    name, generator = "sam_adobe", load(tmp_path, "nvidia_g256_m2_base16384")
    method = build(Given, generator, perceptual(tmp_path), LAYERS, steps=5, drop_offsets=True)
    check(name, "mean_v", method.gaussian().mean)
    check(name, "inv_cov_v_diag", method.gaussian().precision.diagonal())
    check(name, "inv_cov_v_row0", method.gaussian().precision[0])
    means = segment_means(adobe_maps(), segments(name))
    check(name, "segment_means", means[~means.isnan().any(1)])
    for threshold in (0.15, 0.225, 0.3):
        choice = choose_latents(adobe_maps(), segments(name), threshold)
        assert torch.equal(choice[::2, ::2], torch.from_numpy(arrays(name)[f"classes_{threshold}"]).long())
    given = masks(choose_latents(adobe_maps(), segments(name), 0.225))
    check(name, "mask_F4", given["F4"])
    check(name, "mask_F10", given["F10"][::2, ::2])

    w = rnd("sam.w", (1, 14, 512), 0, 0, 0.5)
    variables = method.prepare_state(w, given, random_offsets(SHAPES_256))
    for key in ("w", "b16", "b128"):
        variables[key].requires_grad_()
    image = method.render(variables)
    check(name, "image_offsets", image[..., ::4, ::4])
    probe = (image * rnd("sam.probe", (1, 3, 256, 256), 0)).sum()
    grad_w, grad_4, grad_10 = torch.autograd.grad(probe, [variables[k] for k in ("w", "b16", "b128")])
    check(name, "grad_w", grad_w)
    check(name, "grad_F4_abs_sum", grad_4.abs().sum((0, 2, 3)))
    check(name, "grad_F10_abs_sum", grad_10.abs().sum((0, 2, 3)))
    with torch.no_grad():
        found = generator.synthesis(w, features=method._offsets(variables), return_features=method.layers)
        changes = method.edit_changes(variables, found.features)
        edited = w + rnd("sam.n", (1, 14, 512), 0, 0, 0.3)
        check(name, "image_edit", generator.synthesis(edited, features=changes)[..., ::4, ::4])

    zeros = {key: torch.zeros(1, *shape, dtype=torch.float64) for key, shape in SHAPES_256.items()}
    state = optimised(method, method.prepare_state(w.clone(), given, zeros), photograph())
    rec = [terms["pixel"] + terms["perceptual"] for terms in method.terms]
    check(name, "rec", torch.tensor(rec))
    check(name, "mvg", torch.tensor([terms["naturalness"] for terms in method.terms]))
    check(name, "delta", torch.tensor([terms["delta"] for terms in method.terms]))
    check(name, "frec", torch.tensor([5 * terms["features"] for terms in method.terms]))
    check_gradients(name, method)
    check(name, "w_final", state["w"])
    check(name, "F4_final_chan_norm", state["b16"].norm(dim=(2, 3))[0])
    check(name, "F10_final_chan_norm", state["b128"].norm(dim=(2, 3))[0])
    check(name, "F4_final_slice", state["b16"][:, ::16])
    check(name, "image_last", method.images[-1][..., ::4, ::4])


class Enlarged(LpipsFeatures):
    """Compares images that are enlarged to 256 px, as area resizing does it."""

    def maps(self, image: Tensor) -> list[Tensor]:
        return super().maps(F.interpolate(image, size=(256, 256), mode="area"))


@pytest.mark.slow
@pytest.mark.long  # minutes; the parts are checked by the tests above
def test_optimisation_of_ganinverter(tmp_path: Path) -> None:
    name, generator = "sam_ganinverter", load(tmp_path, "rosinality_g64_cm2")
    official = {"F4": "b16.conv0", "F6": "b32.conv0", "F8": "b64.conv0"}
    features = perceptual(tmp_path)
    features.__class__ = Enlarged
    method = build(Given, generator, features, official, steps=4, code_penalty=5.0, clamp=False)
    check(name, "mean_v", method.gaussian().mean)
    check(name, "inv_cov_v_diag", method.gaussian().precision.diagonal())
    found = maps("sam.inv", 8, {"W+": 0.06, "F4": 0.04, "F6": 0.02, "F8": 0.0})
    choice = choose_latents(found, segments(name), 0.225)
    assert torch.equal(choice, torch.from_numpy(arrays(name)["classes"]).long())
    given = masks(choice)
    for key in official:
        check(name, f"mask_{key}", given[key])
    w = rnd("sam.w", (1, 10, 512), 0, 0, 0.5)
    shapes = {"F4": (512, 16, 16), "F6": (512, 32, 32), "F8": (512, 64, 64)}
    with torch.no_grad():
        check(name, "image_offsets", method.render(method.prepare_state(w, given, random_offsets(shapes))))
    zeros = {key: torch.zeros(1, *shape, dtype=torch.float64) for key, shape in shapes.items()}
    state = optimised(method, method.prepare_state(w.clone(), given, zeros), photograph(4), photograph())
    for key, term in {"mse": "pixel", "lpips": "perceptual", "mvg": "naturalness", "delta": "delta"}.items():
        check(name, key, torch.tensor([terms[term] for terms in method.terms]))
    check_gradients(name, method)
    check(name, "w_final", state["w"])
    for key, layer in official.items():
        check(name, f"{key}_final_chan_norm", state[layer].norm(dim=(2, 3))[0])
    check(name, "F4_final_slice", state["b16.conv0"][:, ::16])
    with torch.no_grad():
        check(name, "image_final", method.render(state))


def check_gradients(name: str, method: Any) -> None:
    sums = [[float(g.abs().sum()) for g in step] for step in method.gradients]
    check(name, "grad_abs_sum", torch.tensor(sums, dtype=torch.float64))
    check(name, "grad_w_0", method.gradients[0][0])


def optimised(method: Any, variables: Variables, image: Tensor, at_256: Tensor | None = None) -> Variables:
    names: Sequence[str] = method.stage_names()
    state = OptimizationState(variables)
    stage = method.stage(len(names) - 1, InputImages(image), image)
    if at_256 is not None:
        stage.targets.features = method.features.network.maps(at_256)
    state.begin_stage(stage.variables, stage.steps)
    optimize(stage, state, Monitor())
    return state.variables
