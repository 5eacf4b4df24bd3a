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


@pytest.mark.parametrize("name", ROSINALITY)
def test_rosinality_generator(name, tmp_path):
    sd = golden.reference_state(ROSINALITY[name])
    average = golden.tensor(name, "latent_avg").float()
    generator = load(tmp_path, {"g_ema": sd, "latent_avg": average})
    z, w_plus = golden.tensor(name, "z"), golden.tensor(name, "w_plus").requires_grad_()
    w = generator.mapping(z)[:, 0]
    golden.check(name, "w", w)
    golden.check(name, "w_truncated", generator.mapping(z, psi=0.7)[:, -1])
    golden.check(name, "image_truncated", generator(z, psi=0.7))

    maps = [m.clone().requires_grad_() for m in generator.synthesis.noise_maps()]
    image = generator.synthesis(w_plus, noise=maps)
    golden.check(name, "image", image)
    golden.check(name, "image", generator.synthesis(w_plus, noise="const"))
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
        golden.check(name, "image_zero_noise", generator.synthesis(w_plus, noise=[0 * m for m in maps]))
        mixed = torch.cat([w[:1, None].expand(-1, 4, -1), w[1:, None].expand(-1, 6, -1)], dim=1)
        golden.check(name, "image_mixed", generator.synthesis(mixed))


@pytest.mark.parametrize("name", NVIDIA)
def test_nvidia_generator(name, tmp_path):
    generator = load(tmp_path, golden.reference_state(NVIDIA[name]))
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


@pytest.mark.parametrize(("name", "keys"), [("nv_g64_m8", "nvidia_g64_m8"), ("ros_g64_cm2", "rosinality_g64_cm2")])
def test_generator_in_the_other_layout_and_in_single_precision(name, keys, tmp_path):
    sd = golden.reference_state(keys)
    if keys.startswith("nvidia"):
        content = {"g_ema": to_rosinality(sd), "latent_avg": sd["mapping.w_avg"]}
    else:
        content = to_nvidia(from_rosinality({**sd, "latent_avg": golden.tensor(name, "latent_avg")[0].float()}))
    torch.save(content, tmp_path / "generator.pt")
    generator = load_generator(tmp_path / "generator.pt")
    z = golden.tensor(name, "z").float()
    golden.check(name, "w", generator.mapping(z)[:, 0], "f32")
    codes, image = ("ws", "image_const") if name.startswith("nv") else ("w_plus", "image")
    golden.check(name, image, generator.synthesis(golden.tensor(name, codes).float()), "f32")
    golden.check(name, image, generator.double().synthesis(golden.tensor(name, codes)))


@pytest.mark.parametrize("other_layout", [False, True], ids=["own-layout", "other-layout"])
@pytest.mark.parametrize(("name", "keys"), [("ros_d64", "rosinality_d64"), ("nv_d64", "nvidia_d64")])
def test_discriminator(name, keys, other_layout, tmp_path):
    sd = golden.reference_state(keys)
    if other_layout:
        sd = to_rosinality(sd) if keys.startswith("nvidia") else to_nvidia(from_rosinality(sd))
    torch.save({"d": sd}, tmp_path / "d.pt")
    discriminator = load_discriminator(tmp_path / "d.pt").double()
    images = golden.tensor(name, "img_u8")
    golden.check(name, "logits_all8", discriminator(images))
    golden.check(name, "logits_first2", discriminator(images[:2]))
    x = images[:4].requires_grad_()
    logits = discriminator(x)
    golden.check(name, "logits_first4", logits)
    (grad,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    golden.check(name, "grad_first4", grad[:1])
    r1 = grad.square().sum(dim=(1, 2, 3)).mean()
    golden.check(name, "r1_first4", r1)
    if name == "ros_d64" and not other_layout:
        named = dict(discriminator.named_parameters())
        grads = torch.autograd.grad(r1, list(named.values()), allow_unused=True)  # the last bias has no part in it
        sums = to_rosinality(
            {key: (g if g is not None else torch.zeros_like(named[key])) for key, g in zip(named, grads, strict=True)}
        )
        got = torch.stack([sums[key].abs().sum() for key in golden.entry(name)["param_names"]])
        golden.check(name, "r1_param_grad_abs_sums", got)


def blank(shapes):
    """A state dict of these shapes that takes no memory; the filters have their values."""
    f = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    return {
        key: torch.outer(f, f) * (4 if "kernel" in key and "convs" in key and ".blur." in key else 1)
        if key.endswith("resample_filter")
        else torch.zeros(()).expand(shape)
        for key, shape in shapes.items()
        if not key.endswith("kernel")
    }


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


@pytest.mark.parametrize("keys", ["rosinality_g64_cm2", "nvidia_g64_m2", "rosinality_d64", "nvidia_d64"])
def test_there_and_back_is_exact(keys):
    sd = golden.reference_state(keys)
    if keys.startswith("rosinality"):
        back = to_rosinality(to_nvidia(from_rosinality(sd)))
    else:
        rosinality = to_rosinality(sd)
        if "_g" in keys:
            rosinality["latent_avg"] = sd["mapping.w_avg"]
        back = to_nvidia(from_rosinality(rosinality))
    assert set(back) == set(sd)
    assert all(torch.equal(back[key], sd[key]) for key in sd)


def test_from_nvidia_drops_only_filters():
    sd = golden.reference_state("nvidia_d64")
    assert set(sd) - set(from_nvidia(sd)) == {key for key in sd if key.endswith("resample_filter")}
