"""Training of the face network: losses compared with loops, degradation, and a short run."""

from __future__ import annotations

import functools
import math

import pytest
import pytorch_lightning as pl
import torch

from stylegan_inv.data.datamodules.people import People, PeopleDataModule
from stylegan_inv.data.synthfaces.factor_specs import VECTOR_NAMES
from stylegan_inv.encoders.face_network import FaceNetwork, load_face_network
from stylegan_inv.errors import UserError
from stylegan_inv.methods.face_network_training import (
    FaceNetworkTraining,
    degrade,
    factor_losses,
    supervised_contrastive,
)


def test_contrastive_loss_against_a_loop() -> None:
    torch.manual_seed(0)
    people = torch.tensor([0, 1, 0, 2, 1, 0])
    e = torch.nn.functional.normalize(torch.randn(6, 5, dtype=torch.float64), dim=1)
    total = 0.0
    for i in range(6):
        positives = [j for j in range(6) if j != i and people[j] == people[i]]
        scale = sum(math.exp(float(e[i] @ e[a]) / 0.2) for a in range(6) if a != i)
        logs = [math.log(math.exp(float(e[i] @ e[p]) / 0.2) / scale) for p in positives]
        total += -sum(logs) / len(logs) if logs else 0.0
    assert float(supervised_contrastive(e, people, 0.2)) == pytest.approx(total / 6, rel=1e-10)
    e.requires_grad_()
    supervised_contrastive(e, people, 0.2).backward()
    assert e.grad is not None and e.grad.isfinite().all()


def test_factor_losses_against_loops() -> None:
    torch.manual_seed(0)
    logits, factors = torch.randn(3, 4, dtype=torch.float64), torch.zeros(3, 4, dtype=torch.float64)
    factors[:, 0] = torch.randn(3)
    factors[[0, 1, 2], [1, 3, 2]] = 1
    numbers, choices = factor_losses(logits, factors, {"hat": [1, 2, 3]})
    assert float(numbers) == pytest.approx(sum(float(logits[i, 0] - factors[i, 0]) ** 2 for i in range(3)) / 3)
    want = 0.0
    for i, column in enumerate((1, 3, 2)):
        want -= math.log(math.exp(logits[i, column]) / sum(math.exp(logits[i, c]) for c in (1, 2, 3))) / 3
    assert float(choices) == pytest.approx(want)


def test_degradation_keeps_the_face_and_depends_on_the_generator_alone() -> None:
    image = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert degrade(image, 0.0) is image
    torch.manual_seed(3)
    a = degrade(image)
    torch.manual_seed(3)
    assert torch.equal(a, degrade(image)) and not torch.equal(a, degrade(image))
    smooth = torch.linspace(-0.8, 0.8, 64).expand(4, 3, 64, 64)
    assert (degrade(smooth) - smooth).abs().mean() < 0.2
    assert degrade(image[:1]).shape == (1, 3, 64, 64)


def test_people_share_identity_and_nothing_else() -> None:
    people = People(64, seed=3, people=3, images_per_person=2)
    batch = people.__getitems__([2, 0])
    assert batch[0]["image"].shape == (2, 3, 64, 64) and batch[0]["identity"].tolist() == [2, 2]
    first, second = batch[0]["factors"]
    columns = {name: i for i, name in enumerate(VECTOR_NAMES)}
    assert first[columns["eye_size"]] == second[columns["eye_size"]]
    assert first[columns["yaw"]] != second[columns["yaw"]]
    torch.testing.assert_close(people[2]["image"], batch[0]["image"])
    plain = people.source[4]["image"]
    torch.testing.assert_close(people[2]["image"][0], plain, rtol=0, atol=1e-6)
    with pytest.raises(UserError, match="dataset.images_per_person=1"):
        PeopleDataModule(images_per_person=1)
    with pytest.raises(UserError, match="validation and test"):
        PeopleDataModule(people_seed=1)


def test_short_run_learns_and_exports(tmp_path) -> None:
    torch.manual_seed(0)
    data = PeopleDataModule(people=12, images_per_person=2, val_people=6, batch_size=6, val_batch_size=4)
    method = FaceNetworkTraining(
        FaceNetwork(8, VECTOR_NAMES, 16),
        functools.partial(torch.optim.AdamW, lr=3e-3),
        export=tmp_path / "face.safetensors",
    )
    losses: list[float] = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
            assert batch["image"].shape == (12, 3, 64, 64)
            losses.append(float(outputs["loss"]))

    trainer = pl.Trainer(
        max_steps=16, max_epochs=-1, val_check_interval=8, check_val_every_n_epoch=None, accelerator="cpu",
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, use_distributed_sampler=False, callbacks=[Watch()],
    )  # fmt: skip
    trainer.fit(method, datamodule=data)
    assert sum(losses[-4:]) < sum(losses[:4])
    metrics = trainer.callback_metrics
    assert 0 <= metrics["val/id_auc"] <= 1 and "val/yaw_r2" in metrics and "val/eyeglasses_accuracy" in metrics
    exported = load_face_network(tmp_path / "face.safetensors")
    image = data.get("val")[0]["image"]
    torch.testing.assert_close(exported.embed(image), method.network.eval().embed(image), rtol=1e-4, atol=1e-5)
