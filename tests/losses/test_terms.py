"""Every loss term and the weighted sum against their formulae in float64."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.encoders.face_network import FaceNetwork
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Discriminator
from stylegan_inv.losses import adversarial
from stylegan_inv.losses.adversarial import AdversarialLoss
from stylegan_inv.losses.arcface import ArcFace
from stylegan_inv.losses.compose import NORMALISE, LossInputs, LossTerms
from stylegan_inv.losses.crop import face_crop
from stylegan_inv.losses.identity import IdentityLoss
from stylegan_inv.losses.latent.regularization import DeltaNorm, WNorm
from stylegan_inv.losses.perceptual import EmbeddedPerceptual
from stylegan_inv.losses.pixel import L2


class Counting(FaceNetwork):
    """Counts forward passes of the backbone."""

    passes = 0

    def features(self, image: Tensor) -> list[Tensor]:
        self.passes += 1
        return super().features(image)


@pytest.fixture
def network() -> Counting:
    torch.manual_seed(0)
    return Counting(8, ("yaw",), 16).double()


def inputs(batch: int = 2, **kwargs: Any) -> LossInputs:
    torch.manual_seed(1)
    image = torch.rand(batch, 3, 64, 64, dtype=torch.float64) * 2 - 1
    return LossInputs(image=image.requires_grad_(), target=torch.rand_like(image) * 2 - 1, **kwargs)


def loop_mse(a: Tensor, b: Tensor) -> float:
    flat = [(float(x) - float(y)) ** 2 for x, y in zip(a.flatten(), b.flatten(), strict=True)]
    return sum(flat) / len(flat)


@pytest.mark.parametrize("batch", [1, 2])
def test_l2(batch: int) -> None:
    x = inputs(batch)
    assert float(L2()(x)) == pytest.approx(loop_mse(x.image.detach(), x.target))


def test_l2_in_the_interest_region() -> None:
    mask = torch.zeros(2, 1, 64, 64, dtype=torch.float64)
    mask[:, :, 16:32] = 1
    x = inputs(mask=mask)
    inside = loop_mse(x.image.detach()[:, :, 16:32], x.target[:, :, 16:32])
    assert float(L2(region="interest")(x)) == pytest.approx(inside / 4)  # a quarter of all pixels
    assert float(L2(region="interest", normalise="mask_area")(x)) == pytest.approx(inside)


def test_a_soft_mask_weights_the_pixels() -> None:
    mask = torch.rand(2, 1, 64, 64, dtype=torch.float64)
    x = inputs(mask=mask)
    error = (x.image - x.target).detach().square()
    weight = mask.square().expand_as(error)
    want = torch.nn.functional.mse_loss(x.image.detach(), x.target, reduction="none")
    torch.testing.assert_close(want, error)
    got = L2(region="interest", normalise="mask_area")(x).detach()
    assert float(got) == pytest.approx(float((weight * error).sum() / weight.sum()))


def test_empty_mask_gives_zero() -> None:
    x = inputs(mask=torch.zeros(2, 1, 64, 64, dtype=torch.float64))
    loss = L2(region="interest", normalise="mask_area")(x)
    loss.backward()
    assert float(loss.detach()) == 0 and x.image.grad is not None and x.image.grad.abs().max() == 0


def test_the_crop_of_a_face() -> None:
    """Rows 35 to 222 and columns 32 to 219 at 256 px; other sizes are pooled to that first."""
    rows, columns = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    crop = face_crop(torch.stack([rows, columns])[None])
    assert crop.shape == (1, 2, 188, 188)
    assert crop[0, 0, [0, -1], 0].tolist() == [35, 222] and crop[0, 1, 0, [0, -1]].tolist() == [32, 219]
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(face_crop(image)[..., 1:5, 0:4], image[..., 9:10, 8:9].expand(-1, -1, 4, 4))
    large = torch.rand(1, 3, 512, 512)
    torch.testing.assert_close(face_crop(large), F.avg_pool2d(large, 2)[..., 35:223, 32:220])


def test_crop_losses(network: Counting) -> None:
    x = inputs()
    image, target = (F.interpolate(p.detach(), scale_factor=4)[..., 35:223, 32:220] for p in (x.image, x.target))
    torch.testing.assert_close(L2(region="crop")(x), F.mse_loss(image, target))
    want = EmbeddedPerceptual(network)(LossInputs(image=image, target=target))
    torch.testing.assert_close(EmbeddedPerceptual(network, region="crop")(x), want)


@pytest.mark.parametrize("batch", [1, 3])
def test_identity(batch: int, network: Counting) -> None:
    x = inputs(batch)
    want = 1 - F.cosine_similarity(network.eval().embed(x.image), network.embed(x.target)).mean()
    torch.testing.assert_close(IdentityLoss(network)(x), want)
    assert float(IdentityLoss(network)(LossInputs(image=x.target, target=x.target))) == pytest.approx(0, abs=1e-12)


def test_identity_requires_only_embed() -> None:
    class Embedder(nn.Module):
        def embed(self, image: Tensor) -> Tensor:
            return F.normalize(image.flatten(1), dim=1)

    x = inputs()
    want = 1 - F.cosine_similarity(x.image.flatten(1), x.target.flatten(1)).mean()
    torch.testing.assert_close(IdentityLoss(Embedder())(x), want)


@pytest.mark.parametrize("batch", [1, 2])
def test_perceptual(batch: int, network: Counting) -> None:
    x = inputs(batch)
    maps = zip(network.eval().features(x.image), network.features(x.target), strict=True)
    want = torch.stack([(2 - 2 * F.cosine_similarity(a, b, dim=1)).mean() for a, b in maps]).mean()
    torch.testing.assert_close(EmbeddedPerceptual(network)(x), want, rtol=1e-4, atol=1e-5)


def test_arcface_receives_the_crop_of_any_size_at_112_px() -> None:
    small = torch.rand(2, 3, 64, 64)
    large = small.repeat_interleave(4, 2).repeat_interleave(4, 3)
    seen = [ArcFace(nn.Identity()).embed(image) for image in (small, large)]
    assert seen[0].shape == (2, 3, 112, 112)
    torch.testing.assert_close(*seen)
    torch.testing.assert_close(seen[1], F.adaptive_avg_pool2d(large[..., 35:223, 32:220], 112))


def test_improvement_of_identity(network: Counting) -> None:
    x = inputs(source=torch.rand(2, 3, 64, 64, dtype=torch.float64))
    a, b, c = (network.eval().embed(image) for image in (x.image, x.target, x.select("source")))
    want = (F.cosine_similarity(a, b) - F.cosine_similarity(b, c)).mean()
    torch.testing.assert_close(IdentityLoss(network)(x), 1 - F.cosine_similarity(a, b).mean())
    torch.testing.assert_close(IdentityLoss(network).improvement(x), want)
    itself = LossInputs(image=x.image, target=x.target, source=x.target)
    torch.testing.assert_close(IdentityLoss(network).improvement(itself), -IdentityLoss(network)(itself))


def test_embedded_perceptual_by_the_area_of_interest(network: Counting) -> None:
    mask = torch.zeros(2, 1, 64, 64, dtype=torch.float64)
    mask[..., :16] = 1
    x = inputs(mask=mask)
    whole, area = (EmbeddedPerceptual(network, "interest", normalise)(x) for normalise in NORMALISE)
    torch.testing.assert_close(area, 4 * whole)


def test_delta_norm() -> None:
    w = torch.randn(3, 5, 8, dtype=torch.float64)
    for p in (1, 2, 3):
        norms = [
            sum(abs(float(a - b)) ** p for a, b in zip(w[n, i], w[n, 0], strict=True)) ** (1 / p)
            for i in range(1, 5)
            for n in range(3)
        ]
        assert float(DeltaNorm(p)(inputs(3, w=w))) == pytest.approx(sum(norms) / 3)


def test_delta_norm_of_equal_layers_has_no_gradient() -> None:
    w = torch.randn(1, 1, 8, dtype=torch.float64).repeat(2, 5, 1).requires_grad_()
    loss = DeltaNorm()(inputs(w=w))
    loss.backward()
    assert float(loss.detach()) == 0 and w.grad is not None and w.grad.abs().max() == 0


@pytest.mark.parametrize("kind", adversarial.KINDS)
def test_adversarial_image_loss(kind: str) -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(64, channel_base=512).double()
    term = AdversarialLoss(discriminator, kind)
    x = inputs(1)
    loss = term(x)
    expected = adversarial.generator_loss(discriminator(x.image), kind, discriminator(x.target))
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert x.image.grad is not None and x.image.grad.abs().max() > 0
    assert all(p.grad is None and not p.requires_grad for p in term.parameters()), (
        "the encoder must not train the discriminator"
    )
    assert set(term.state_dict()) == {"steps", *(f"discriminator.{name}" for name in discriminator.state_dict())}


def test_identity_and_moco_together_are_refused(network: Counting) -> None:
    class Objects(IdentityLoss):
        compares = "objects"

    terms = {"id": IdentityLoss(network), "masked_id": IdentityLoss(network, "interest"), "moco": Objects(network)}
    with pytest.raises(UserError, match=r"loss\.id \(faces\).*loss\.moco \(objects\); expected identity or MoCo"):
        LossTerms(terms, {"id": 0.1, "masked_id": 0.1, "moco": 0.5})
    LossTerms(terms, {"id": 0.1, "masked_id": 0.1, "moco": 0.0})
    LossTerms(terms, {"id": 0.0, "masked_id": 0.0, "moco": 0.5})


def test_w_norm_has_a_gradient_at_the_average() -> None:
    w_avg = torch.randn(8, dtype=torch.float64)
    w = w_avg.repeat(2, 4, 1).requires_grad_()
    WNorm()(inputs(w=w, w_avg=w_avg)).backward()
    assert w.grad is not None and w.grad.isfinite().all()
    three = (w_avg + torch.tensor([3.0] + [0.0] * 7)).expand(1, 1, 8)
    assert float(WNorm()(inputs(1, w=three, w_avg=w_avg))) == pytest.approx(3)


def test_gradient_reaches_the_image_and_not_the_network(network: Counting) -> None:
    terms = LossTerms({"id": IdentityLoss(network), "p": EmbeddedPerceptual(network)}, {"id": 1.0, "p": 1.0})
    before = {k: v.clone() for k, v in network.state_dict().items()}
    x = inputs()
    x.target.requires_grad_()
    terms.train()(x)[0].backward()
    assert x.image.grad is not None and x.image.grad.abs().max() > 0
    assert x.target.grad is None
    assert all(p.grad is None for p in network.parameters())
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())  # batch norm is not updated either
    assert terms.state_dict() == {} and list(terms.parameters()) == []


def test_numerical_gradient(network: Counting) -> None:
    terms = LossTerms({"id": IdentityLoss(network), "p": EmbeddedPerceptual(network)}, {"id": 0.5, "p": 2.0})
    x = inputs(1)
    terms(x)[0].backward()
    assert x.image.grad is not None
    direction = torch.randn_like(x.image)
    eps = 1e-6
    with torch.no_grad():
        up, down = (terms(LossInputs(image=x.image + s * direction, target=x.target))[0] for s in (eps, -eps))
    torch.testing.assert_close((up - down) / (2 * eps), (x.image.grad * direction).sum(), rtol=1e-5, atol=1e-8)


def test_weighted_sum_and_raw_values() -> None:
    x = inputs(w=torch.ones(2, 4, 8), w_avg=torch.zeros(8))
    total, raw = LossTerms({"l2": L2(), "w": WNorm()}, {"l2": 2.0, "w": 0.5})(x)
    torch.testing.assert_close(total, 2 * raw["l2"] + 0.5 * raw["w"])
    torch.testing.assert_close(raw["l2"], F.mse_loss(x.image, x.target))


def test_zero_weight_is_not_computed() -> None:
    total, raw = LossTerms({"l2": L2(), "w": WNorm()}, {"l2": 1.0, "w": 0.0})(inputs())  # no codes given
    assert set(raw) == {"l2"} and total == raw["l2"]


def test_terms_share_forward_passes_and_the_target_is_computed_once(network: Counting) -> None:
    terms = LossTerms({"id": IdentityLoss(network), "p": EmbeddedPerceptual(network)}, {"id": 1.0, "p": 1.0})
    x = inputs()
    first, _ = terms(x)
    assert network.passes == 2
    again, _ = terms(LossInputs(image=x.image, target=x.target))  # the next step of a refinement
    assert network.passes == 3
    torch.testing.assert_close(first, again)
    with torch.no_grad():
        x.target.add_(0.1)
    terms(LossInputs(image=x.image, target=x.target))
    assert network.passes == 5, "features of a changed target must be computed again"


def test_cached_target_is_released(network: Counting) -> None:
    terms = LossTerms({"p": EmbeddedPerceptual(network)}, {"p": 1.0})
    x = inputs()
    gone = weakref.ref(x.target)
    terms(x)
    del x
    assert gone() is None


def test_inference_mode(network: Counting) -> None:
    with torch.inference_mode():
        terms = LossTerms({"p": EmbeddedPerceptual(network)}, {"p": 1.0})
        image = torch.rand(1, 3, 64, 64, dtype=torch.float64)
        assert float(terms(LossInputs(image=image, target=image.clone()))[0]) == pytest.approx(0)


def test_masked_terms_depend_only_on_the_interest_region(network: Counting) -> None:
    mask = torch.zeros(2, 1, 64, 64, dtype=torch.float64)
    mask[..., :32] = 1
    terms = {"id": IdentityLoss(network, "interest"), "p": EmbeddedPerceptual(network, "interest")}
    x = inputs(mask=mask)
    LossTerms(terms, {"id": 1.0, "p": 1.0})(x)[0].backward()
    assert x.image.grad is not None
    assert x.image.grad[..., 32:].abs().max() == 0 and x.image.grad[..., :32].abs().max() > 0


def test_errors() -> None:
    class NotScalar(nn.Module):
        def forward(self, x: LossInputs) -> Tensor:
            return x.image

    with pytest.raises(UserError, match="expected the same names"):
        LossTerms({"l2": L2()}, {"l3": 1.0})
    with pytest.raises(UserError, match=r"loss\.l2\.weight=nan"):
        LossTerms({"l2": L2()}, {"l2": float("nan")})
    with pytest.raises(UserError, match=r"loss\.x: got a value of shape"):
        LossTerms({"x": NotScalar()}, {"x": 1.0})(inputs())
    with pytest.raises(UserError, match="pool the generator's output"):
        LossInputs(image=torch.zeros(1, 3, 64, 64), target=torch.zeros(1, 3, 32, 32))
    with pytest.raises(UserError, match="no mask"):
        L2(region="interest")(inputs())
    with pytest.raises(UserError, match="expected one of whole, interest, crop"):
        L2(region="face")
    with pytest.raises(UserError, match="region=crop: expected one of whole, interest$"):
        IdentityLoss(nn.Identity(), region="crop")
    with pytest.raises(UserError, match="normalise=area: expected one of all_pixels, mask_area"):
        L2(normalise="area")
    with pytest.raises(UserError, match="mask_area with region=whole"):
        L2(normalise="mask_area")
    with pytest.raises(UserError, match="expected one of nonsaturating, minimax"):
        AdversarialLoss(nn.Identity(), "gan")
    with pytest.raises(UserError, match="compares with the source"):
        inputs().select("source")
    with pytest.raises(UserError, match="p=0.5: expected a number of at least 1"):
        DeltaNorm(0.5)
    with pytest.raises(UserError, match="DeltaNorm got no codes"):
        DeltaNorm()(inputs())
    with pytest.raises(UserError, match="WNorm got no codes"):
        WNorm()(inputs())
