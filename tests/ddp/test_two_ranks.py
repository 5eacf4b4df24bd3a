"""Two ranks with gloo, as torchrun starts them: they stop together, resume exactly, and end when one of them fails.

One pair of processes runs everything that does not kill a process, and writes the results.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from stylegan_inv import train
from stylegan_inv.errors import UserError
from stylegan_inv.loading import load_inverter
from tests.faults.small import (
    assert_same_training,
    build,
    differences,
    rows,
    run,
    slowdown,
    state,
    steps_logged,
    wait_for,
    warm_up,
)
from tests.forks import join, launch_ranks

DDP = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu")
NORM = ("encoder=single_level", "encoder/backbone=ir_se_tiny")
EXACT = {
    "psp": ("trainer.precision=bf16-mixed",),
    "e4e": NORM,  # batch norm, a discriminator, histories of codes that differ between ranks
    "stylegan2": (),
    "face_network": ("dataset.batch_size=2", "dataset.val_people=4"),
}


class OnRank1(pl.Callback):
    """Does something on the second rank alone, in step 3."""

    def __init__(self, what: str) -> None:
        self.what = what

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_rank != 1 or trainer.global_step != 3:
            return
        if self.what == "stop":
            os.kill(os.getpid(), signal.SIGTERM)
        if self.what == "spoil":
            batch["image"][0] = torch.nan
        if self.what == "raise":
            raise RuntimeError("out of luck")
        if self.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.what == "drift":
            next(module.encoder.parameters()).data.add_(1e-3)


def on_rank_1(what: str) -> str:
    return f"+callbacks.on_rank_1={{_target_: tests.ddp.test_two_ranks.OnRank1, what: {what}}}"


def everything(folder: Path) -> None:
    rank = int(os.environ["LOCAL_RANK"])
    warm_up()
    seen: dict[str, Any] = {}

    def trained(name: str, method: str, *more: str) -> nn.Module:
        cfg, job = build(method, folder / name, *DDP, *more)
        train.train(cfg, job)
        torch.save(job.method.state_dict(), folder / f"{name}.rank{rank}")
        return job.method

    for method, more in EXACT.items():
        trained(f"{method}_whole", method, *more)
        try:
            trained(f"{method}_parts", method, *more, on_rank_1("stop"))
        except SystemExit as stopped:
            seen[f"{method}_exit"] = stopped.code
        trained(f"{method}_parts", method, *more)
    trained("spoiled", "psp", on_rank_1("spoil"), "callbacks.consistency.every_n_steps=1")
    try:
        trained("drift", "psp", on_rank_1("drift"), "callbacks.consistency.every_n_steps=1")
    except UserError as error:
        seen["drift"] = str(error)
    (folder / f"seen{rank}.json").write_text(json.dumps(seen))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two ranks")
    processes = launch_ranks(everything, folder, log=folder / "log")
    codes = join(processes, 600)
    assert codes == [0, 0], (folder / "log.0").read_text()[-3000:] + (folder / "log.1").read_text()[-3000:]
    return folder


def seen(results: Path) -> list[dict[str, Any]]:
    return [json.loads((results / f"seen{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("method", EXACT)
def test_stopped_on_one_rank_and_continued_exactly_on_both(method: str, results: Path) -> None:
    # The other ranks end with 0: Lightning's first rank would kill itself otherwise.
    assert [s[f"{method}_exit"] for s in seen(results)] == [143, 0]
    assert_same_training(results / f"{method}_whole", results / f"{method}_parts")
    for rank in range(2):
        whole, parts = (torch.load(results / f"{method}_{kind}.rank{rank}") for kind in ("whole", "parts"))
        assert not differences(whole, parts)


def test_histories_of_codes_differ_between_ranks(results: Path) -> None:
    """Otherwise the test above could not see that each rank got its own back."""
    pools = [torch.load(results / f"e4e_whole.rank{rank}")["adversary.fakes._extra_state"] for rank in range(2)]
    assert differences(*pools)
    assert len(state(results / "e4e_whole")["by_rank"]) == 2


def test_a_step_that_breaks_on_one_rank_is_skipped_on_both(results: Path) -> None:
    first, second = (torch.load(results / f"spoiled.rank{rank}") for rank in range(2))
    assert not differences(first, second) and all(torch.isfinite(value).all() for value in first.values())
    # What arrives at the first rank is the average of the gradients.
    assert "rank 0: not finite: gradient" in (results / "log.0").read_text()
    assert "rank 1: not finite: loss" in (results / "log.1").read_text()


def test_uneven_validation_counts_each_image_once(results: Path, tmp_path: Path) -> None:
    """Three images on two ranks, in batches of two: the mean is that of one process with the same weights."""
    assert len(rows(results / "e4e_whole")) == 8
    folder = tmp_path / "one"
    cfg, job = build("psp", folder, "trainer.max_steps=6", "trainer.precision=bf16-mixed")
    job.method.load_state_dict(torch.load(results / "psp_whole.rank0"))
    trainer = pl.Trainer(
        accelerator="cpu", precision="bf16-mixed", logger=False, enable_progress_bar=False, default_root_dir=tmp_path,
        enable_checkpointing=False,
    )  # fmt: skip
    alone = trainer.validate(job.method, datamodule=job.data, verbose=False)[0]
    together = json.loads((results / "psp_whole" / "metrics.json").read_text())
    for name, value in alone.items():
        assert together[name] == pytest.approx(value, rel=2e-3), name
    stored = load_inverter(results / "psp_whole").reached
    assert stored is not None and (stored.images, stored.size) == (3, job.method.reached.size)
    assert stored.quantiles == pytest.approx(job.method.reached.quantiles, rel=2e-2)
    assert stored.relative == pytest.approx(job.method.reached.relative, rel=2e-2)


def test_weights_that_drift_apart_end_the_run(results: Path) -> None:
    for error in seen(results):
        assert "step 4: rank 1 differs from rank 0 in encoder." in error["drift"]
    assert "rank 1 of 2: UserError" in (results / "log.1").read_text()


@pytest.mark.parametrize("what", ["raise", "kill"])
def test_no_rank_outlives_another(what: str, tmp_path: Path) -> None:
    processes = launch_ranks(run, "psp", tmp_path / "run", *DDP, on_rank_1(what), log=tmp_path / "log")
    wait_for(lambda: steps_logged(tmp_path / "run") >= 3)
    started = time.monotonic()
    codes = join(processes, 90)
    assert all(code not in (0, None) for code in codes), codes
    assert time.monotonic() - started < 15 * slowdown()
    if what == "raise":
        assert "rank 1 of 2: RuntimeError: out of luck" in (tmp_path / "log.1").read_text()
