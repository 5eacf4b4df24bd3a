"""Run by test_stylegan2.py in two forks: CPU ranks that train, each writes its weights."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
import torch

from stylegan_inv.data.augment.ada import ADA
from tests.methods.test_stylegan2 import loader, paired


def train_rank(folder: Path) -> None:
    method = paired(8, augment=ADA(initial_p=0.3, interval=1))
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_steps=3, max_epochs=-1, logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(method, loader())
    torch.save(method.state_dict(), folder / f"rank{trainer.global_rank}.pt")
