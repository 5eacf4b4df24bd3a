"""Run by test_datamodule.py in two forks: CPU ranks that fit and validate, and write the indices they saw."""

from __future__ import annotations

import json
from pathlib import Path

import pytorch_lightning as pl

from tests.data.test_datamodule import IndexRecorder, faces


def fit_rank(folder: Path) -> None:
    model = IndexRecorder(stop_after=7)
    # use_distributed_sampler keeps Lightning's default, which must not wrap the samplers.
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_steps=-1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, num_sanity_val_steps=0, val_check_interval=7,
        check_val_every_n_epoch=None, default_root_dir=folder,
    )  # fmt: skip
    data = faces()
    trainer.fit(model, datamodule=data)
    seen = {"seen": model.seen, "validated": model.validated, "next": data.next_draw()}
    (folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(seen))
