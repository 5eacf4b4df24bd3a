"""Training of the embedded face network, which embeds identities and predicts attributes.

Not a paper. Identity: supervised contrastive loss (Khosla et al., NeurIPS 2020, arXiv 2004.11362, equation 2) over
several images of each person. Attributes: squared error of the standardised numbers, cross entropy of the choices.
Training images are degraded like reconstructions (blur, small shifts, colour, noise), so that the embedding holds for
reconstructions and the features respond to visible differences rather than to exact pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from stylegan_inv.encoders.face_network import FaceNetwork, save_face_network
from stylegan_inv.metrics.face_similarity import AttributeScores, VerificationAUC
from stylegan_inv.utils.checks import real_number
from stylegan_inv.utils.domains import domain_of


class FaceNetworkTraining(pl.LightningModule):
    """Trains a `FaceNetwork` on batches of image, factors and identity (`data.PeopleDataModule`).

    Args:
        network: Network to train.
        optimizer: Partial of a torch optimiser.
        scheduler: Partial of a learning rate scheduler, stepped after each step; None for a constant learning rate.
        temperature: Temperature of the contrastive loss.
        factor_weight: Weight of the attribute loss; that of the identity loss is 1.
        degradation: Strength of the degradation of training images; 0 disables it, 1 is the default.
        export: File of the trained network, written at the end, relative to the run folder; None for none.
    """

    def __init__(
        self,
        network: FaceNetwork,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., Any] | None = None,
        temperature: float = 0.1,
        factor_weight: float = 4.0,
        degradation: float = 1.0,
        export: str | Path | None = None,
    ) -> None:
        super().__init__()
        real_number("method.temperature", temperature, above=0)
        real_number("method.degradation", degradation, least=0)
        self.network = network
        self._make_optimizer, self._make_scheduler = optimizer, scheduler
        self.temperature, self.factor_weight, self.degradation = temperature, factor_weight, degradation
        self.export = export
        self._auc = VerificationAUC(network.embedding_dim)
        self._auc_degraded = VerificationAUC(network.embedding_dim)
        self._scores = AttributeScores(network.factor_names)

    def configure_optimizers(self) -> Any:
        """Returns the optimiser, without weight decay of norms and biases."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "name": "weights"},
            {"params": [p for p in parameters if p.ndim <= 1], "name": "biases", "weight_decay": 0.0},
        ]
        optimizer = self._make_optimizer(groups)
        if self._make_scheduler is None:
            return optimizer
        return [optimizer], [{"scheduler": self._make_scheduler(optimizer), "interval": "step"}]

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Returns the sum of identity and attribute loss of a degraded batch."""
        embeddings, logits = self.network(degrade(batch["image"], self.degradation))
        identity = supervised_contrastive(embeddings, batch["identity"], self.temperature)
        numbers, choices = factor_losses(logits, batch["factors"], self.network.choices)
        total = identity + self.factor_weight * (numbers + 0.5 * choices)
        self.log_dict({"train/loss/identity": identity, "train/loss/numbers": numbers, "train/loss/choices": choices})
        self.log("train/loss/total", total, prog_bar=True)
        return total

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Collects embeddings and predicted attributes of people that are not in the training data."""
        embeddings, logits = self.network(batch["image"])
        self._auc.update(embeddings, batch["identity"])
        self._scores.update(self.network.probabilities(logits), batch["factors"])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(batch_idx)  # the same degradation in each validation
            self._auc_degraded.update(self.network(degrade(batch["image"], 1.0))[0], batch["identity"])

    def on_validation_epoch_end(self) -> None:
        """Logs the verification AUC on original and degraded images, and the score of each factor."""
        scores = self._scores.compute()
        r2 = [v for name, v in scores.items() if name.endswith("_r2")]
        accuracy = [v for name, v in scores.items() if name.endswith("_accuracy")]
        values = {f"val/{name}": value for name, value in scores.items()}
        values["val/id_auc"] = self._auc.compute()
        values["val/id_auc_degraded"] = self._auc_degraded.compute()
        if r2:
            values["val/mean_r2"] = torch.stack(r2).mean()
        if accuracy:
            values["val/mean_accuracy"] = torch.stack(accuracy).mean()
        self.log_dict({name: value.float() for name, value in values.items()}, rank_zero_only=True)
        for metric in (self._auc, self._auc_degraded, self._scores):
            metric.reset()

    def on_fit_end(self) -> None:
        """Writes the trained network."""
        if self.export is not None and self.trainer.is_global_zero:
            path = Path(self.trainer.default_root_dir) / self.export
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            self.network.domain = domain_of(data)
            save_face_network(self.network.eval(), path, {"steps": str(self.trainer.global_step)})


def supervised_contrastive(embeddings: Tensor, people: Tensor, temperature: float) -> Tensor:
    """Returns the supervised contrastive loss, averaged over the images.

    The loss of image i is
    ``-1/|P(i)| sum_{p in P(i)} log( exp(s_ip / t) / sum_{a != i} exp(s_ia / t) )``,
    where P(i) are the other images of the same person and s are cosine similarities.

    Args:
        embeddings: (B, E), of unit length.
        people: Identities, (B,).
        temperature: Temperature t.
    """
    own = torch.eye(len(people), dtype=torch.bool, device=people.device)
    logits = (embeddings @ embeddings.T / temperature).masked_fill(own, -torch.inf)
    log_probability = logits - logits.logsumexp(dim=1, keepdim=True)
    positive = (people[:, None] == people[None]) & ~own
    per_image = log_probability.masked_fill(~positive, 0).sum(dim=1) / positive.sum(dim=1).clamp_min(1)
    return -per_image.mean()


def factor_losses(logits: Tensor, factors: Tensor, choices: Mapping[str, list[int]]) -> tuple[Tensor, Tensor]:
    """Returns the mean squared error of the numbers and the mean cross entropy of the choices.

    Args:
        logits: Predictions, (B, F).
        factors: Standardised numbers and one-hot choices, (B, F).
        choices: Name of a choice -> its columns; all other columns are numbers.
    """
    chosen = {column for columns in choices.values() for column in columns}
    numbers = [column for column in range(factors.shape[1]) if column not in chosen]
    error = F.mse_loss(logits[:, numbers], factors[:, numbers]) if numbers else logits.new_zeros(())
    entropies = [F.cross_entropy(logits[:, c], factors[:, c].argmax(dim=1)) for c in choices.values()]
    return error, torch.stack(entropies).mean() if entropies else logits.new_zeros(())


def degrade(image: Tensor, strength: float = 1.0) -> Tensor:
    """Returns images (B, 3, H, W) in [-1, 1] with random blur, shift, scale, colour and noise, different for each."""
    if strength == 0:
        return image
    batch, height = len(image), image.shape[-2]
    options = {"device": image.device, "dtype": image.dtype}

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        random: Tensor = torch.rand(batch, *shape, **options)  # type: ignore[call-overload]
        return low + (high - low) * random

    # Half of the images are resampled; the others stay sharp.
    moves = (torch.rand(batch, 1, **options) < 0.5).to(image.dtype)  # type: ignore[call-overload]
    matrix = torch.zeros(batch, 2, 3, **options)  # type: ignore[call-overload]
    scale = 1 + strength * moves * uniform(-0.05, 0.05, 1)
    matrix[:, 0, 0] = matrix[:, 1, 1] = scale[:, 0]
    matrix[:, :, 2] = strength * moves * uniform(-0.05, 0.05, 2)  # in units of half the width: 1.6 px at 64 px
    grid = F.affine_grid(matrix, list(image.shape), align_corners=False)
    image = F.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    # Gaussian blur up to 1.2 px at 64 px, with one kernel per image as a grouped convolution.
    sigma = strength * uniform(0.0, 1.2, 1).square() * height / 64 + 0.05
    offsets = torch.arange(-4, 5, **options)  # type: ignore[call-overload]
    kernel = torch.exp(-offsets.square() / (2 * sigma.square()))
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(3, dim=0)
    flat = F.pad(image, (4, 4, 4, 4), mode="reflect").reshape(1, batch * 3, height + 8, -1)
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=batch * 3)
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=batch * 3)
    image = flat.reshape(image.shape)

    gain = 1 + strength * uniform(-0.08, 0.08, 3, 1, 1)
    shift = strength * uniform(-0.05, 0.05, 3, 1, 1)
    noise = strength * uniform(0.0, 0.06, 1, 1, 1) * torch.randn_like(image)
    return image * gain + shift + noise
