"""What every method is: its kinds, its input size, its default edit, and the means of its validation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Discriminator
from stylegan_inv.generators.variants.low_rank_difference import compress, tuned
from stylegan_inv.losses.adversarial import AdversarialLoss
from stylegan_inv.losses.compose import LearningTerm
from stylegan_inv.losses.pixel import L2
from stylegan_inv.methods import E4E, PSP, PTI, Inversion, InversionMethod, PerImageMethod, ReStyle, TrainedMethod
from stylegan_inv.methods.common.capabilities import MakesVariants, StartsFromMethod
from stylegan_inv.methods.common.image_means import ImageMeans
from tests.methods.test_encoder_methods import DIM, SIZE, TinyEncoder, generator, images, make


class MeanColour(InversionMethod):
    """A method that defines nothing but `invert`."""

    def invert(self, images: Tensor) -> Inversion:
        w = self.average_codes(len(images)) + images.mean((1, 2, 3))[:, None, None]
        return Inversion(w, self.generator.synthesis(w))


class SizedEncoder(TinyEncoder):
    resolution = 12


def test_the_kinds_share_no_machinery() -> None:
    assert not issubclass(PerImageMethod, TrainedMethod) and not issubclass(PTI, TrainedMethod)
    assert all(issubclass(kind, TrainedMethod) for kind in (PSP, E4E, ReStyle))
    for name in ("training_losses", "parameter_groups", "step_auxiliary"):
        assert name not in dir(PerImageMethod) and name in dir(TrainedMethod)


def test_what_methods_offer_besides_invert() -> None:
    assert isinstance(make(PSP), MakesVariants) and not isinstance(make(ReStyle), MakesVariants)
    assert isinstance(make(ReStyle), StartsFromMethod) and not isinstance(make(PSP), StartsFromMethod)


def test_input_size_is_that_of_the_encoder_the_generator_or_as_set() -> None:
    assert MeanColour(generator()).input_size == SIZE
    assert make(PSP).input_size == SIZE
    method = make(PSP, encoder=SizedEncoder)
    assert method.input_size == 12
    method.input_size = 32
    assert method.input_size == 32
    with pytest.raises(UserError, match="input_size=0: expected a whole number of at least 1"):
        method.input_size = 0


def test_a_trained_method_gets_at_most_256_px(monkeypatch: pytest.MonkeyPatch) -> None:
    method = make(PSP)
    monkeypatch.setattr(method.generator, "resolution", 1024)
    assert method.input_size == 256
    assert MeanColour(method.generator).input_size == 1024


@torch.no_grad()
def test_an_edit_keeps_the_noise_of_the_inversion() -> None:
    method = MeanColour(generator())
    for layer in method.generator.synthesis.layers():
        layer.noise_strength.fill_(0.5)
    inversion = method.invert(images(2))
    torch.testing.assert_close(method.edit(inversion, lambda w: w), inversion.image)
    torch.testing.assert_close(method.edit(inversion, lambda w: w + 0.1), method.generator.synthesis(inversion.w + 0.1))
    inversion.noise = [torch.randn(2, *m.shape[1:]) for m in method.generator.synthesis.noise_maps()]
    wanted = method.generator.synthesis(inversion.w + 0.1, noise=inversion.noise)
    torch.testing.assert_close(method.edit(inversion, lambda w: w + 0.1), wanted)


@torch.no_grad()
def test_an_edit_keeps_the_weights_of_each_image() -> None:
    method, changed = MeanColour(generator()), generator()
    changed.synthesis.get_parameter("b16.torgb.bias").add_(0.5)
    difference = compress(method.generator.synthesis, changed.synthesis, 4)
    inversion = method.invert(images(2))
    inversion.weights = {name: torch.stack([0 * part, part]) for name, part in difference.items()}
    inversion.noise = [torch.randn(2, *m.shape[1:]) for m in method.generator.synthesis.noise_maps()]
    edited = method.edit(inversion, lambda w: -w)
    for row, network in enumerate((method.generator, tuned(method.generator, difference))):
        noise = [m[row : row + 1] for m in inversion.noise]
        torch.testing.assert_close(edited[row], network.synthesis(-inversion.w[row : row + 1], noise=noise)[0])


def test_means_count_images_and_not_batches() -> None:
    means = ImageMeans()
    means.add("mse", torch.tensor([1.0, 2.0, 3.0]))
    means.add("mse", torch.tensor([10.0]))
    means.add("other", torch.tensor([5.0]))
    values = means.compute()
    assert {name: float(value) for name, value in values.items()} == {"mse": 4.0, "other": 5.0}
    assert values["mse"].dtype == torch.float64 and ImageMeans().compute() == {}


@pytest.mark.parametrize("lr", [0.0, 1e-3])
def test_only_a_term_with_an_optimiser_gets_one(lr: float) -> None:
    term = AdversarialLoss(Discriminator(SIZE, channels={4: 8, 8: 8, 16: 8}), lr=lr)
    assert isinstance(term, LearningTerm) and not isinstance(L2(), LearningTerm)
    loss: Any = make(PSP).loss
    loss.terms["gan"] = term
    optimizers = make(PSP, loss=loss).auxiliary_optimizers()
    assert [one.name for one in optimizers] == (["gan"] if lr else [])


def test_auxiliary_optimizers_of_the_method_come_before_those_of_terms() -> None:
    def latent(w_dim: int) -> nn.Module:
        from stylegan_inv.methods import LatentDiscriminatorTraining

        return LatentDiscriminatorTraining(w_dim)

    loss: Any = make(PSP).loss
    loss.terms["gan"] = AdversarialLoss(Discriminator(SIZE, channels={4: 8, 8: 8, 16: 8}), lr=1e-3)
    loss.weights["gan"] = 1.0
    method = make(E4E, loss=loss, adversary=latent)
    assert [one.name for one in method.auxiliary_optimizers()] == ["latent_discriminator", "gan"]
    optimizers, _ = method.configure_optimizers()
    assert [o.param_groups[0]["name"] for o in optimizers] == ["encoder", "latent", "discriminator"]
    assert DIM == method.adversary.discriminator.mlp[0].in_features
