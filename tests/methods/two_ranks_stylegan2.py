"""Run by test_stylegan2.py in a process of its own: two CPU ranks train, each writes its weights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytorch_lightning as pl
import torch

from stylegan_inv.data.augment.ada import ADA
from tests.methods.test_stylegan2 import loader, paired

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    method = paired(8, augment=ADA(initial_p=0.3, interval=1))
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_steps=3, max_epochs=-1, logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(method, loader())
    torch.save(method.state_dict(), folder / f"rank{trainer.global_rank}.pt")
