"""Run by test_encoder_methods.py in two forks: CPU ranks that train, each writes its weights."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, DistributedSampler

from tests.methods.test_encoder_methods import KINDS, loader, precision


class Halves(pl.LightningDataModule):
    """The batches of `loader`, each rank one half of every batch."""

    def train_dataloader(self) -> DataLoader[dict[str, torch.Tensor]]:  # noqa: D102
        data = loader().dataset
        # Rank r gets images r, r + 2, ...: two of each four.
        return DataLoader(data, batch_size=2, sampler=DistributedSampler(data, shuffle=False))  # type: ignore[arg-type]


def train_rank(kind: str, folder: Path) -> None:
    method = KINDS[kind]()
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_steps=3, max_epochs=-1, logger=False,
        use_distributed_sampler=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=folder, precision=precision(kind),
    )  # fmt: skip
    trainer.fit(method, Halves())
    torch.save(method.state_dict(), folder / f"rank{trainer.global_rank}.pt")
