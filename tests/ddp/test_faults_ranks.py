"""Two ranks: signals to one or both of them, and a rank without validation images."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.ddp.test_two_ranks import DDP
from tests.faults.small import metrics, rows, run, slowdown, state, steps_logged, wait_for, warm_up
from tests.faults.test_stops import ENDLESS
from tests.forks import join, launch_ranks


@pytest.mark.parametrize("who", ["main", "child", "all"])
def test_sigterm_ends_both_ranks_with_one_checkpoint(who: str, tmp_path: Path) -> None:
    """Stock Lightning hangs unless only the first rank receives it."""
    folder = tmp_path / "run"
    processes = launch_ranks(run, "psp", folder, *DDP, *ENDLESS, log=tmp_path / "log")
    wait_for(lambda: steps_logged(folder) >= 2)
    for process in {"main": processes[:1], "child": processes[1:], "all": processes}[who]:
        os.kill(process.pid, signal.SIGTERM)
    asked = time.monotonic()
    # The other ranks end with 0: Lightning's first rank would kill itself otherwise.
    assert join(processes, 90) == [143, 0], (tmp_path / "log.0").read_text()
    assert time.monotonic() - asked < 10 * slowdown()
    assert state(folder)["global_step"] == len(rows(folder)) >= 2


def validate(images: Path, folder: Path, *more: str) -> None:
    warm_up()
    data = (
        "dataset=folder", "domain=synthfaces", f"dataset.root='{images}'", "dataset.val_size=3",
        "dataset.num_workers=0", "dataset.on_bad_image=skip", "trainer.max_steps=1",
    )  # fmt: skip
    run("psp", folder, *data, *more)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def test_a_rank_with_nothing_to_validate(tmp_path: Path) -> None:
    """Of three held-out images the second rank has one, which is damaged."""
    images = tmp_path / "images"
    images.mkdir()
    for number in range(9):
        levels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(levels).save(images / f"{number}.png")
    (images / "7.png").write_bytes(b"damaged")
    processes = launch_ranks(validate, images, tmp_path / "two", *DDP, "dataset.batch_size=1", log=tmp_path / "log")
    assert join(processes, 240) == [0, 0], (tmp_path / "log.0").read_text() + (tmp_path / "log.1").read_text()
    validate(images, tmp_path / "one", "dataset.batch_size=2")
    together, alone = metrics(tmp_path / "two"), metrics(tmp_path / "one")
    assert together.keys() == alone.keys() and json.dumps(together)
    for name, value in alone.items():
        assert together[name] == pytest.approx(value, rel=1e-3), name
