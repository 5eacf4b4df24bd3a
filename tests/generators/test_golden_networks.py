"""Whole networks against the public implementations, loaded from files in both key layouts."""

from __future__ import annotations

import pytest
import torch

from stylegan_inv.generators import (
    from_nvidia,
    from_rosinality,
    load_discriminator,
    load_generator,
    to_nvidia,
    to_rosinality,
)
from tests import golden

pytestmark = golden.needs_golden

ROSINALITY = {"ros_g64_cm1": "rosinality_g64_cm1", "ros_g64_cm2": "rosinality_g64_cm2"}
NVIDIA = {name: name.replace("nv_", "nvidia_") for name in ("nv_g64_m2", "nv_g64_m8", "nv_g64_m8_base16384")}


def load(tmp_path, content):
    torch.save(content, tmp_path / "generator.pt")
    return load_generator(tmp_path / "generator.pt").double()


def other_layout(keys):
    """The same network under the other family's names."""
    sd = golden.reference_state(keys)
    if keys.startswith("rosinality"):
        return to_nvidia(from_rosinality(sd))
    average = {"latent_avg": sd["mapping.w_avg"]} if "_g" in keys else {}
    return {**to_rosinality(sd), **average}


def there_and_back(keys):
    """Is the conversion to the other layout and back exact?"""
    sd, other = golden.reference_state(keys), other_layout(keys)
    back = to_rosinality(other) if keys.startswith("rosinality") else to_nvidia(from_rosinality(other))
    return set(back) == set(sd) and all(torch.equal(back[key], sd[key]) for key in sd)


@pytest.mark.parametrize("name", ROSINALITY)
def test_rosinality_generator(name, tmp_path):
    keys = ROSINALITY[name]
    assert there_and_back(keys)
    average = golden.tensor(name, "latent_avg").float()
    generator = load(tmp_path, {"g_ema": golden.reference_state(keys), "latent_avg": average})
    z, w_plus = golden.tensor(name, "z"), golden.tensor(name, "w_plus").requires_grad_()
    w = generator.mapping(z)[:, 0]
    golden.check(name, "w", w)
    golden.check(name, "w_truncated", generator.mapping(z, psi=0.7)[:, -1])
    golden.check(name, "image_truncated", generator(z, psi=0.7, noise="const"))

    maps = [m.clone().requires_grad_() for m in generator.synthesis.noise_maps()]
    image = generator.synthesis(w_plus, noise=maps)
    golden.check(name, "image", image)
    wanted = golden.entry(name)["outputs"]
    loss = (image * golden.tensor(name, "probe")).sum()
    grad, *noise_grads = torch.autograd.grad(loss, [w_plus, *maps])
    golden.check(name, "grad_w_plus", grad)
    for i, value in enumerate(noise_grads):
        if f"grad_noise_{i}" in wanted:
            golden.check(name, f"grad_noise_{i}", value)
    if "image_mixed" in wanted:
        golden.check(name, "image_from_z", generator(z))
        golden.check(name, "image_zero_noise", generator.synthesis(w_plus, noise="none"))
        mixed = torch.cat([w[:1, None].expand(-1, 4, -1), w[1:, None].expand(-1, 6, -1)], dim=1)
        golden.check(name, "image_mixed", generator.synthesis(mixed))
        torch.save(other_layout(keys), tmp_path / "other.pt")
        other = load_generator(tmp_path / "other.pt")
        golden.check(name, "image", other.synthesis(w_plus.float()), "f32")


@pytest.mark.parametrize("name", NVIDIA)
def test_nvidia_generator(name, tmp_path):
    keys = NVIDIA[name]
    assert there_and_back(keys)
    generator = load(tmp_path, golden.reference_state(keys))
    z, ws = golden.tensor(name, "z"), golden.tensor(name, "ws").requires_grad_()
    golden.check(name, "w", generator.mapping(z)[:, 0])
    golden.check(name, "w_psi07", generator.mapping(z, psi=0.7)[:, 0])
    golden.check(name, "ws_psi07_cutoff4", generator.mapping(z, psi=0.7, cutoff=4))
    golden.check(name, "image_full_psi07_const", generator(z, psi=0.7, noise="const"))
    golden.check(name, "image_none", generator.synthesis(ws, noise="none"))
    image = generator.synthesis(ws)
    golden.check(name, "image_const", image)
    (grad,) = torch.autograd.grad((image * golden.tensor(name, "probe")).sum(), ws)
    golden.check(name, "grad_ws", grad)
    if name == "nv_g64_m8":
        torch.save(other_layout(keys), tmp_path / "other.pt")
        other = load_generator(tmp_path / "other.pt")
        golden.check(name, "w_psi07", other.mapping(z.float(), psi=0.7)[:, 0], "f32")
        golden.check(name, "image_const", other.synthesis(ws.float()), "f32")


@pytest.mark.parametrize(("name", "keys"), [("ros_d64", "rosinality_d64"), ("nv_d64", "nvidia_d64")])
def test_discriminator_forward(name, keys, tmp_path):
    assert there_and_back(keys)
    images = golden.tensor(name, "img_u8").float()
    torch.save(golden.reference_state(keys), tmp_path / "d.pt")
    discriminator = load_discriminator(tmp_path / "d.pt").requires_grad_(False)
    golden.check(name, "logits_all8", discriminator(images), "f32")
    torch.save({"d": other_layout(keys)}, tmp_path / "other.pt")
    discriminator = load_discriminator(tmp_path / "other.pt").requires_grad_(False)
    golden.check(name, "logits_first2", discriminator(images[:2]), "f32")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "keys"),
    [pytest.param("ros_d64", "rosinality_d64", marks=pytest.mark.long), ("nv_d64", "nvidia_d64")],
)
def test_discriminator_in_double_precision(name, keys, tmp_path):
    torch.save(golden.reference_state(keys), tmp_path / "d.pt")
    discriminator = load_discriminator(tmp_path / "d.pt").double()
    second_order = name == "ros_d64"
    discriminator.requires_grad_(second_order)
    x = golden.tensor(name, "img_u8")[:4].requires_grad_()
    logits = discriminator(x)
    golden.check(name, "logits_first4", logits)
    (grad,) = torch.autograd.grad(logits.sum(), x, create_graph=second_order)
    golden.check(name, "grad_first4", grad[:1])
    r1 = grad.square().sum(dim=(1, 2, 3)).mean()
    golden.check(name, "r1_first4", r1)
    if second_order:
        named = dict(discriminator.named_parameters())
        grads = torch.autograd.grad(r1, list(named.values()), allow_unused=True)  # the last bias has no part in it
        sums = to_rosinality(
            {key: (g if g is not None else torch.zeros_like(named[key])) for key, g in zip(named, grads, strict=True)}
        )
        got = torch.stack([sums[key].abs().sum() for key in golden.entry(name)["param_names"]])
        golden.check(name, "r1_param_grad_abs_sums", got)


def blank(shapes):
    """A state dict of these shapes that takes no memory, without the filters."""
    filters = ("resample_filter", "kernel")
    return {key: torch.zeros(()).expand(shape) for key, shape in shapes.items() if not key.endswith(filters)}


@pytest.mark.parametrize(
    ("rosinality", "nvidia"),
    [
        ("rosinality_g64_cm2", "nvidia_g64_m8"),
        ("rosinality_g64_cm1", "nvidia_g64_m8_base16384"),
        ("rosinality_g1024_cm2", "nvidia_g1024_m8"),
        ("rosinality_d64", "nvidia_d64"),
    ],
)
def test_key_lists_of_both_layouts(rosinality, nvidia):
    ros, nv = golden.key_shapes(rosinality), golden.key_shapes(nvidia)
    assert {k: tuple(v.shape) for k, v in to_rosinality(blank(nv)).items()} == ros
    converted = to_nvidia(
        from_rosinality({**blank(ros), "latent_avg": torch.zeros(512)} if "_g" in nvidia else blank(ros))
    )
    assert {k: tuple(v.shape) for k, v in converted.items()} == nv


def test_from_nvidia_drops_only_filters():
    sd = golden.reference_state("nvidia_d64")
    assert set(sd) - set(from_nvidia(sd)) == {key for key in sd if key.endswith("resample_filter")}
