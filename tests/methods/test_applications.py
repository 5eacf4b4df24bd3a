"""The applications on SynthFaces with the embedded generator, evaluated by the network `face_eval`."""

from __future__ import annotations

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from stylegan_inv.config import CONF_DIR, instantiate
from stylegan_inv.data.images.mask_shapes import draw_mask
from stylegan_inv.data.synthfaces.dataset import LABELS, SynthFaces
from stylegan_inv.encoders.face_network import load_face_network
from stylegan_inv.metrics.image import psnr

FACES = SynthFaces(64, seed=2, size=40)


def face(number: int) -> Tensor:
    return FACES[number]["image"][None]


def built(*overrides: str):
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        cfg = compose("invert", overrides=["input=none", "method=image2stylegan_pp", "method.snapshots=1", *overrides])
    return instantiate(cfg.method)


def error(a: Tensor, b: Tensor, where: Tensor) -> float:
    return float((where * (a - b).square()).sum() / (3 * where.sum()))


@pytest.mark.slow
def test_noise_adds_decibels() -> None:
    found = built("method.stages.w.steps=120", "method.stages.noise.steps=120").invert(face(7))
    after_w, after_noise = (float(psnr(step.image.clamp(-1, 1), face(7))) for step in found.steps[-2:])
    assert after_w > 25 and after_noise > after_w + 10 and after_noise > 40


@pytest.mark.slow
def test_face_swap_takes_the_identity_and_keeps_the_rest() -> None:
    mask = draw_mask("ellipse:0.5,0.52,0.27,0.32", 64)[None]
    method = built("application=crossover", "method.stages.w.steps=120", "method.stages.noise.steps=60")
    image, network = method.optimize(face(11), reference=face(34), mask=mask).image, load_face_network("face_eval")
    to_input, to_reference = (float((network.embed(image) * network.embed(face(n))).sum()) for n in (11, 34))
    assert to_input > to_reference + 0.2
    outside = 1 - draw_mask("ellipse:0.5,0.52,0.36,0.42", 64)[None]
    assert error(image, face(34), outside) < 0.05 * error(image, face(11), outside)


@pytest.mark.slow
def test_glasses_are_transferred_and_the_rest_stays() -> None:
    mask = draw_mask("rectangle:0.28,0.4,0.74,0.58", 64)[None]
    found = built("application=feature_transfer", "method.stages.w.steps=120").optimize(
        face(34), reference=face(18), mask=mask
    )
    network = load_face_network("face_eval")
    none = network.factor_names.index("eyeglasses=none")
    before, after = (float(network.read_out(image)[0, none]) for image in (found.steps[-2].image, found.image))
    assert before > 0.9 and after < 0.5
    assert error(found.image, found.steps[-2].image, draw_mask("rectangle:0,0.75,1,1", 64)[None]) < 1e-3


@pytest.mark.slow
def test_hair_takes_the_style_and_the_rest_stays() -> None:
    mask = draw_mask("label:hair", 64, FACES[5]["label"], LABELS)[None]
    steps = [f"method.stages.{stage}.steps=80" for stage in ("embed", "style", "noise")]
    image = built("application=local_style", *steps).optimize(face(5), reference=face(11), mask=mask).image

    def brightness(image: Tensor) -> float:
        return float((mask * image).sum() / (3 * mask.sum()))

    assert brightness(image) < 0.5 * (brightness(face(5)) + brightness(face(11)))
    assert error(image, face(5), 1 - mask) < 0.1 * error(image, face(5), mask)


@pytest.mark.slow
def test_inpainting_and_scribble() -> None:
    mask = draw_mask("rectangle:0.32,0.56,0.68,0.82", 64)[None]
    holed = torch.where(mask > 0.5, torch.ones_like(face(6)), face(6))
    steps = ("method.stages.w.steps=120", "method.stages.noise.steps=40")
    image = built("application=inpainting", *steps).optimize(holed, mask=mask).image
    # The inpainted mouth resembles the hidden one: its error is far below that of the white hole.
    assert error(image, face(6), mask) < 0.1 * error(holed, face(6), mask)
    lips = draw_mask("ellipse:0.5,0.69,0.09,0.035", 64)[None]
    red = torch.tensor([0.5, -0.8, -0.7])[:, None, None]
    scribbled = torch.lerp(face(34), red.expand_as(face(34)), lips)
    steps = ("method.stages.embed.steps=100", "method.stages.noise.steps=40")
    image = built("application=scribble", *steps).optimize(face(34), reference=scribbled, mask=lips).image
    redness = [float((lips * (p[:, :1] - p[:, 1:2])).sum() / lips.sum()) for p in (face(34), image)]
    assert redness[1] > redness[0] + 0.1 and error(image, face(34), 1 - lips) < 0.01
