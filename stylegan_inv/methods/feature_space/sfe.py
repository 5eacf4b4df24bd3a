"""The Devil is in the Details: StyleFeatureEditor for Detail-Rich StyleGAN Inversion and High Quality Image Editing.

Denis Bobkov, Vadim Titov, Aibek Alanov, Dmitry Vetrov, CVPR 2024, arXiv 2406.10601.
Official code: ControlGenAI/StyleFeatureEditor, commit 00996c3.

Differences:

* Both phases are one run: the inverter is trained until ``editor_first_step``, the feature editor after it. The
  official code starts its second phase from a file of the first.
* The inverter and the start are in evaluation mode while the editor is trained. The official code trains with batch
  statistics in both, which also move their running statistics (``train_mode_everywhere``).
* Edits in training are directions in W or W+. The official code also has edits of StyleCLIP and StyleSpace.
* R1 is a step of the discriminator's optimiser of its own, as in all methods here.
* The layer, the embedder whose codes give the change of the map (``start``; official code: e4e) and the codes of the
  images are arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.errors import UserError
from stylegan_inv.latents.directions import Direction, load_direction
from stylegan_inv.methods.common.base import Inversion, InversionMethod, pool
from stylegan_inv.methods.common.discriminators.image_discriminator_training import ImageDiscriminatorTraining
from stylegan_inv.methods.common.feature_layers import FeatureLayer, frozen_start, rendered, resized, start_codes
from stylegan_inv.methods.common.trained import TrainedMethod
from stylegan_inv.optim.auxiliary import AuxiliaryOptimizer
from stylegan_inv.utils.checks import one_of, real_number, whole_number

#: Index of the layer in the paper: 64 px.
PAPER_INDEX = 9
#: Names of the codes of an inversion that an edit needs: its fused map, and the codes of the start.
FUSED, START_CODES = "fused", "start_codes"


class SFE(TrainedMethod):
    """Fuses a predicted feature map with that of the codes, and edits it by the change of the map of other codes.

    With the predicted map P and the map G_k(w) of the codes (section 3.2), ``F = fuser(P, G_k(w))``. An edit changes
    the codes v of the start to v', and the image is

        y = G(w'; H at k),    H = editor(F, G_k(v) - G_k(v')).

    An inversion is the edit that changes nothing: the editor is applied to a difference of zero. Before
    ``editor_first_step`` the map is F itself, and edits keep ``F - G_k(w)``, as those of `FSE`.

    Args:
        encoder: Called with ``num_ws``, ``w_dim``, ``in_channels``, ``feature_channels`` and ``feature_size``; returns
            an `encoders.feature_space.feature_style.FeatureEncoder`.
        fuser: Called with ``channels``; returns a network on two feature maps.
        editor: Likewise.
        feature_index: Index k of the layer, see `FeatureLayer`; None for the paper's 9 (64 px).
        start: Method whose codes v give the change of the map; None for the inverter's own codes.
        codes: Codes w of the images: ``own`` of the inverter, or those of the ``start``.
        editor_first_step: Step from which the editor is trained, and nothing else. Official code: 300,000.
        directions: Names or files of directions in training.
        strength: Largest strength of an edit in training, in units of the direction.
        adversary: Called without arguments, returns an `ImageDiscriminatorTraining`; None for no discriminator.
        feature_weight: Weight of the mean squared error between F and G_k(w). Official code: 0.01.
        scale_steps: Steps until F replaces the map of the codes. Official code: 10,000.
        loss_size: Side of the images that the losses compare, in pixels; None for that of the data. Official code: 256.
        training_noise: Noise of the synthesis network in training: ``random`` or ``const``.
        train_mode_everywhere: Whether the inverter and the start use batch statistics while the editor is trained.
        **kwargs: Arguments of `TrainedMethod`.
    """

    def __init__(
        self,
        *,
        encoder: Callable[..., nn.Module],
        fuser: Callable[..., nn.Module],
        editor: Callable[..., nn.Module],
        feature_index: int | None = None,
        start: InversionMethod | None = None,
        codes: str = "own",
        editor_first_step: int = 300000,
        directions: Sequence[str] | None = (),
        strength: float = 3.0,
        adversary: Callable[[], ImageDiscriminatorTraining] | None = None,
        feature_weight: float = 0.01,
        scale_steps: int = 10000,
        loss_size: int | None = None,
        training_noise: str = "random",
        train_mode_everywhere: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.layer = FeatureLayer.of(self.generator, feature_index, PAPER_INDEX)
        self.encoder: Any = encoder(
            num_ws=self.generator.num_ws,
            w_dim=self.generator.w_dim,
            in_channels=self.in_channels,
            feature_channels=self.layer.channels,
            feature_size=self.layer.size,
        )
        self.fuser, self.editor = fuser(channels=self.layer.channels), editor(channels=self.layer.channels)
        self.codes = one_of("method.codes", codes, ("own", "start"))
        self.editor_first_step = whole_number("method.editor_first_step", editor_first_step, least=0)
        self.strength = real_number("method.strength", strength, above=0)
        self.adversary = None if adversary is None else adversary()
        self.feature_weight = feature_weight
        self.scale_steps = whole_number("method.scale_steps", scale_steps, least=0)
        self.loss_size = loss_size if loss_size is None else whole_number("method.loss_size", loss_size, least=16)
        self.training_noise = one_of("method.training_noise", training_noise, ("random", "const"))
        self.train_mode_everywhere = train_mode_everywhere
        self.start_from(start)
        # Only training edits. A run that is loaded to invert has no loss, and its directions are not read.
        self.directions = [] if self.loss is None else [self._direction(name) for name in directions or ()]
        self._images: tuple[Tensor, Tensor] | None = None  # real and fake, for the discriminator
        self.on_step(0)

    def start_from(self, start: object) -> None:
        """Sets the method whose codes give the change of the map, see the argument ``start``.

        Raises:
            UserError: Not a method, or one of another generator.
        """
        self.start = frozen_start(self, start)
        if self.start is None and self.codes == "start":
            raise UserError("method.codes=start: got no method.start; give the run or shipped encoder that finds them")

    def starting_methods(self) -> list[InversionMethod]:  # noqa: D102
        return [] if self.start is None else [self.start.network]

    # -- inversion and edits -------------------------------------------------------------------------------------------

    def encode(self, images: Tensor, **synthesis: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Returns the codes w, the codes v of the start, the image G(w), its map G_k(w) and the fused map F."""
        codes, predicted = self.encoder(resized(images, self.encoder.input_size))
        own = codes + self.generator.w_avg
        v = own if self.start is None else start_codes(self, self.start, images)
        w = own if self.codes == "own" else v
        image, map_of_codes = rendered(self.generator, self.layer, w, **synthesis)
        return w, v, image, map_of_codes, self.fuser(predicted, map_of_codes)

    def map_of(self, w: Tensor, noise: Any = "const") -> Tensor:
        """Returns the generator's own map of codes (B, L, D), (B, C, r, r)."""
        features: Tensor = self.generator.synthesis(w, noise=noise, upto=self.layer.output)
        return features

    def invert(self, images: Tensor) -> Inversion:  # noqa: D102
        codes, predicted = self.encoder(resized(images, self.encoder.input_size))
        own = codes + self.generator.w_avg
        needs_start = self.start is not None and (self.edits_with_networks or self.codes == "start")
        v = start_codes(self, self.start, images) if self.start is not None and needs_start else own
        w = own if self.codes == "own" else v
        map_of_codes = self.map_of(w)
        fused = self.fuser(predicted, map_of_codes)
        if not self.edits_with_networks:
            image = self.generator.synthesis(w, features=self.layer.replaced(fused))
            return Inversion(w, image, features=self.layer.added(fused - map_of_codes))
        features = self.editor(fused, torch.zeros_like(fused))
        image = self.generator.synthesis(w, features=self.layer.replaced(features))
        return Inversion(w, image, kept={FUSED: fused, START_CODES: v})

    def edit(self, inversion: Inversion, edit: Callable[[Tensor], Tensor]) -> Tensor:
        """Returns images of edited codes; the edit is applied to the codes of the image and to those of the start."""
        w = edit(inversion.w)
        if inversion.kept is None:
            return super().render_edited(inversion, w)
        return self.edited(inversion, w, edit(inversion.kept[START_CODES]))

    def render_edited(self, inversion: Inversion, w: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        """Returns images of other codes (B, L, D); those of the start are moved by the same difference."""
        if inversion.kept is None:
            return super().render_edited(inversion, w, noise)
        return self.edited(inversion, w, inversion.kept[START_CODES] + w - inversion.w, noise=noise or "const")

    def edited(
        self, inversion: Inversion, w: Tensor, v: Tensor, *, keep: Tensor | None = None, noise: Any = "const"
    ) -> Tensor:
        """Returns the images (B, 3, R, R) of edited codes.

        Args:
            inversion: Result of :meth:`invert`.
            w: Edited codes of the images (B, L, D).
            v: Edited codes of the start (B, L, D).
            keep: Mask (B, 1, H, W) in [0, 1] of what does not change, 1 = keep (section 3.4 of the code); None for
                none.
            noise: Noise of the synthesis network.
        """
        assert inversion.kept is not None
        change = self.map_of(inversion.kept[START_CODES], noise) - self.map_of(v, noise)
        if keep is not None:
            change = change * (1 - resized(keep, self.layer.size))
        features = self.editor(inversion.kept[FUSED].to(change), change)
        images: Tensor = self.generator.synthesis(w, noise=noise, features=self.layer.replaced(features))
        return images

    # -- training ------------------------------------------------------------------------------------------------------

    def on_step(self, step: int) -> None:
        """Sets the phase, the share of F in training, and whether the discriminator is used."""
        self.scale = 1.0 if self.scale_steps == 0 else min(1.0, step / self.scale_steps)
        self.edits_with_networks = step >= self.editor_first_step
        self._adversarial = self.adversary is not None and step >= self.adversary.first_step
        for part in (self.encoder, self.fuser):
            part.requires_grad_(not self.edits_with_networks)
        self.editor.requires_grad_(self.edits_with_networks)

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Restores the phase."""
        super().on_load_checkpoint(checkpoint)
        self.on_step(checkpoint["global_step"])

    def training_losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the losses of the inverter, or of the editor once it is trained."""
        if not self.edits_with_networks:
            return self.inverter_losses(batch)
        if not self.directions:
            raise UserError("method.directions: got none, but the editor learns from edits; give directions of W or W+")
        everywhere = self.train_mode_everywhere
        self.encoder.train(everywhere), self.fuser.train(everywhere)
        if self.start is not None:
            self.start.network.train(everywhere)
        index = int(torch.randint(len(self.directions), ()))
        strength = self.strength * (2 * float(torch.rand(())) - 1)
        try:
            return self.editor_losses(batch, lambda w: self.directions[index].apply(w, strength))
        finally:
            if self.start is not None:
                self.start.network.eval()

    def inverter_losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Phase 1: both G(w, F) and G(w) are compared with the images; returns the means over both."""
        w, _, plain, map_of_codes, fused = self.encode(self.source(batch), noise=self.training_noise)
        changes = self.layer.replaced(fused, self.scale)
        image = self.generator.synthesis(w, noise=self.training_noise, features=changes)
        terms = self._mean_losses([(w, image, batch["image"]), (w, plain, batch["image"])], batch)
        terms["features"] = F.mse_loss(fused, map_of_codes)
        terms["total"] = terms["total"] + self.feature_weight * terms["features"]
        return self._with_adversarial_loss(terms, batch, torch.cat([image, plain]))

    def editor_losses(self, batch: Mapping[str, Tensor], edit: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Phase 2: the inversion is compared with the image, the edited start's image with its edit by the start."""
        noise = self.training_noise
        with torch.no_grad():
            w, v, _, _, fused = self.encode(self.source(batch), noise=noise)
            edited_v = edit(v)
            example, before = rendered(self.generator, self.layer, v, noise=noise)
            target, after = rendered(self.generator, self.layer, edited_v, noise=noise)
            examples = self.encode(pool(example, self.source(batch).shape[-1]), noise=noise)
        inversion = self._with_map(w, self.editor(fused, torch.zeros_like(fused)))
        edited_w = edit(examples[0])
        edited = self._with_map(edited_w, self.editor(examples[4], before - after))
        terms = self._mean_losses([(w, inversion, batch["image"]), (edited_w, edited, target)], batch)
        return self._with_adversarial_loss(terms, batch, inversion)

    def parameter_groups(self) -> list[dict[str, Any]]:  # noqa: D102
        inverter = [*self.encoder.parameters(), *self.fuser.parameters()]
        return [{"params": inverter, "name": "inverter"}, {"params": list(self.editor.parameters()), "name": "editor"}]

    def auxiliary_optimizers(self) -> list[AuxiliaryOptimizer]:  # noqa: D102
        own = [] if self.adversary is None else [self.adversary.auxiliary_optimizer()]
        return [*own, *super().auxiliary_optimizers()]

    def _backward(self, batch: Mapping[str, Tensor]) -> None:
        super()._backward(batch)
        if self._images is not None and self.adversary is not None:
            (real, fake), self._images = self._images, None
            self.step_auxiliary("discriminator", self.adversary.learning_losses(real, fake))

    def _with_map(self, w: Tensor, features: Tensor) -> Tensor:
        image: Tensor = self.generator.synthesis(w, noise=self.training_noise, features=self.layer.replaced(features))
        return image

    def _mean_losses(
        self, pairs: Sequence[tuple[Tensor, Tensor, Tensor]], batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Returns the mean of each loss over (codes, images, targets), at ``loss_size``."""
        size = self.loss_size or batch["image"].shape[-1]
        found = [self.losses(Inversion(w, image), {**batch, "image": pool(target, size)}) for w, image, target in pairs]
        return {name: torch.stack([one[name] for one in found]).mean() for name in found[0]}

    def _with_adversarial_loss(
        self, terms: dict[str, Tensor], batch: Mapping[str, Tensor], images: Tensor
    ) -> dict[str, Tensor]:
        if self.adversary is None or not self._adversarial:
            return terms
        value = self.adversary.encoder_loss(images)
        self._images = pool(batch["image"], images.shape[-1]).detach().float(), images.detach().float()
        return {**terms, "adversarial": value, "total": terms["total"] + self.adversary.weight * value}

    def _direction(self, name: str) -> Direction:
        direction = load_direction(name)
        direction.check_generator(self.generator)
        return direction
