"""Every embedder with every refiner on a 16-px generator: the refiner starts from its codes, or says why it cannot."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.methods.common.base import InversionMethod
from stylegan_inv.methods.common.embedding_stage import EmbeddingStage
from stylegan_inv.methods.image2stylegan import Image2StyleGAN
from stylegan_inv.methods.image2stylegan_pp import Image2StyleGANPP
from stylegan_inv.methods.projector import Projector
from stylegan_inv.methods.pti import PTI
from tests.hypernetworks.test_conformance import hyperinverter, hyperstyle
from tests.methods.test_feature_methods import fse, sfe
from tests.methods.test_refinement import Known, dhr, hfgi, sam
from tests.methods.tiny import tiny, tiny_generator, tiny_images


def noise_maps(**settings: Any) -> Any:
    stage = EmbeddingStage("noise", 2, 0.05, pixel=1.0)
    return tiny(Image2StyleGANPP, stages={"noise": stage}, **settings)


def started(make: Callable[[Any], Any], start: Any) -> Any:
    method = make(tiny_generator())
    method.start_from(start)
    return method.eval()


# A method that finds codes alone, as pSp, e4e and ReStyle do; methods that optimise codes; and the refiners themselves.
STARTS: dict[str, Callable[[], InversionMethod]] = {
    "encoder": Known,
    "projector": lambda: tiny(Projector, steps=2),
    "image2stylegan": lambda: tiny(Image2StyleGAN, steps=2),
    "noise": lambda: noise_maps(start=Known()),
    "pti": lambda: tiny(PTI, start=Known(), steps=2, distance_threshold=None, rank=2),
    "hyperstyle": lambda: hyperstyle(tiny_generator()).eval(),
    "hyperinverter": lambda: hyperinverter(tiny_generator()).eval(),
    "hfgi": hfgi,
    "fse": fse,
    "sfe": sfe,
    "sam": sam,
    "dhr": dhr,
}
ALONE = ("encoder", "projector", "image2stylegan", "noise")
REFINERS: dict[str, Callable[[Any], Any]] = {
    "w_plus": lambda start: tiny(Image2StyleGAN, steps=2, start=start),
    "noise": lambda start: noise_maps(start=start),
    "pti": lambda start: tiny(PTI, start=start, steps=2, distance_threshold=None, rank=2),
    "sam": lambda start: sam(start=start),
    "dhr": lambda start: dhr(start=start),
    "hfgi": lambda start: hfgi(start=start),
    "hyperstyle": partial(started, hyperstyle),
    "hyperinverter": partial(started, hyperinverter),
    "sfe": lambda start: sfe(start=start),
}


def moved(w: Tensor) -> Tensor:
    return w + 0.3


@pytest.mark.parametrize("refiner", REFINERS)
@pytest.mark.parametrize("start", STARTS)
def test_pair(start: str, refiner: str) -> None:
    images, embedder = tiny_images(1), STARTS[start]()
    torch.manual_seed(0)
    try:
        method = REFINERS[refiner](embedder)
        found = method.invert(images)
    except UserError as error:
        assert start not in ALONE, error
        assert "\n" not in str(error) and "method.start" in str(error)
        assert type(embedder).__name__ in str(error) and type(REFINERS[refiner](Known())).__name__ in str(error)
        return
    torch.manual_seed(0)
    codes = embedder.invert(images).w
    if refiner == "sfe":  # its own encoder finds the codes; the start's codes give the change of the map
        torch.testing.assert_close(found.kept["start_codes"], codes.expand_as(found.kept["start_codes"]))
    else:
        first = found.steps[0].w if found.steps else found.w
        torch.testing.assert_close(first, codes.expand_as(first))
    same, edited = method.edit(found, lambda w: w), method.edit(found, moved)
    torch.testing.assert_close(same, found.image, atol=1e-5, rtol=1e-5)
    assert edited.shape == images.shape and bool(edited.isfinite().all()) and not torch.allclose(edited, same)
