"""The speed of data loaders: training steps alternate between the loader and a batch in memory."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from stylegan_inv.benchmark import __main__ as benchmark
from stylegan_inv.benchmark.speed.loader_speed import LOADER, MEMORY, AlternatingBatches
from tests.faults.small import ENCODER, SMALL


def test_sources_alternate() -> None:
    loader = DataLoader(torch.arange(100).reshape(-1, 1).tolist(), batch_size=2, collate_fn=lambda rows: {"x": rows})
    batches = AlternatingBatches(loader, steps=2, turns=2)
    seen = [batch["x"][0][0] for batch in batches]
    assert batches.untimed == 1, "without workers"
    assert seen == [0] + [0, 0, 0, 2, 4, 6] + [0, 0, 0, 8, 10, 12] + [0]
    assert {name: len(seconds) for name, seconds in batches.seconds.items()} == {MEMORY: 4, LOADER: 4}


def test_table_of_a_small_job(tmp_path: Path) -> None:
    small = [o for o in (*SMALL, *ENCODER) if not o.startswith("+")]
    job = ["method=psp", *small, "--steps", "2", "--repeats", "2", "--json", str(tmp_path / "loader.json")]
    benchmark.main(["loader", *job, "--threads", str(torch.get_num_threads())])
    memory, loader = json.loads((tmp_path / "loader.json").read_text())["rows"]
    assert memory["what"] == MEMORY and loader["what"] == LOADER
    assert memory["of_roofline"] == 1 and loader["images_per_second"] == 2 / loader["seconds"]
