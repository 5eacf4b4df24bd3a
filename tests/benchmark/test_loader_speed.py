"""The benchmark of loaders: both sides train, by turns."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from stylegan_inv.benchmark import __main__ as benchmark
from stylegan_inv.benchmark.speed.loader_speed import HELD, LOADER, ByTurns
from tests.faults.small import ENCODER, SMALL


def test_batches_come_by_turns() -> None:
    loader = DataLoader(torch.arange(100).reshape(-1, 1).tolist(), batch_size=2, collate_fn=lambda rows: {"x": rows})
    turns = ByTurns(loader, steps=2, turns=2)
    seen = [batch["x"][0][0] for batch in turns]
    assert turns.untimed == 1, "without workers"
    assert seen == [0] + [0, 0, 0, 2, 4, 6] + [0, 0, 0, 8, 10, 12] + [0]
    assert {name: len(seconds) for name, seconds in turns.seconds.items()} == {HELD: 4, LOADER: 4}


def test_table_of_a_small_job(tmp_path: Path) -> None:
    small = [o for o in (*SMALL, *ENCODER) if not o.startswith("+")]
    job = ["method=psp", *small, "--steps", "2", "--repeats", "2", "--json", str(tmp_path / "loader.json")]
    benchmark.main(["loader", *job, "--threads", str(torch.get_num_threads())])
    held, loader = json.loads((tmp_path / "loader.json").read_text())["rows"]
    assert held["what"] == HELD and loader["what"] == LOADER
    assert held["of_roofline"] == 1 and loader["images_per_second"] == 2 / loader["seconds"]
