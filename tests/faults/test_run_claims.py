"""What the config of a stranger's run claims: sizes, numbers of objects, keys and texts of any kind."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from stylegan_inv import load_inverter
from stylegan_inv.errors import UserError
from stylegan_inv.runtime.resumable_job import settings_hash
from stylegan_inv.runtime.run_folder import RunFolder
from stylegan_inv.sweeps.jobs import read_jobs
from stylegan_inv.trust.bounded_memory import bounded_memory
from stylegan_inv.utils.checks import real_numbers
from stylegan_inv.utils.command_line import report_error

STORED = Path(__file__).parents[1] / "stored_runs" / "restyle"


def test_keys_of_numbers_and_texts_can_be_compared() -> None:
    """A config may have both in one mapping, of which the key of unfinished work is made."""
    assert settings_hash({"a": {5: 1, "b": [{None: 2, "c": 3}]}}) == settings_hash(
        {"a": {"5": 1, "b": [{"null": 2, "c": 3}]}}
    )
    ordered = {"a": {4: 1, 16: 2}, "b": [1.5, "x"]}
    assert settings_hash(ordered) == hashlib.sha256(json.dumps(ordered, sort_keys=True).encode()).hexdigest()


def test_sizes_multiply(tmp_path: Path) -> None:
    """Each size is allowed; together they are terabytes, or hours."""
    shutil.copytree(STORED, tmp_path / "run")
    config = RunFolder(STORED).stored_config()
    method: dict[str, Any] = config["method"]
    wide = {"_target_": "stylegan_inv.encoders.ir_se", "channels": [8192] * 4, "units": [256] * 4, "_partial_": True}
    metric = {"_target_": "stylegan_inv.metrics.IdentitySimilarity", "network": "face_eval"}
    started = time.perf_counter()
    for changes in (
        {"encoder": {**method["encoder"], "backbone": wide}},
        {"generator": {"_target_": "stylegan_inv.encoders.FPNEncoder", "num_ws": 300_000, "w_dim": 512}},
        {"generator": {**method["generator"], "device": "meta"}},
        {"metrics": {f"x{number}": metric for number in range(300)}},
        {"metrics": {"x": {"_target_": "stylegan_inv.metrics.MSSSIM", "weights": [1] * 2000}}},
    ):
        (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump({**config, "method": {**method, **changes}}))
        with pytest.raises(UserError) as info:
            load_inverter(tmp_path / "run")
        message = str(info.value)
        assert "config.yaml" in message and "\n" not in message and len(message) < 1000
    assert time.perf_counter() - started < 30


def test_memory_is_counted_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stylegan_inv.trust.bounded_memory.LEAST_BYTES", 1 << 22)
    with bounded_memory(), torch.device("meta"):
        torch.empty(1 << 40)  # takes none
    with bounded_memory(1 << 20):
        torch.nn.Linear(1000, 1000)
        with pytest.raises(UserError, match="more than 0.0 GB"):
            torch.zeros(1 << 40)
    with bounded_memory(), pytest.raises(UserError):
        [torch.nn.Linear(1, 1) for _ in range(1000)]


def test_errors_are_short_and_printable(capsys) -> None:
    report_error(UserError("a\x1b[2J\x07b\x9b" + "x" * 100_000 + "give another one"))
    line = capsys.readouterr().err
    assert line.startswith(r"error: a\x1b[2J\x07b\x9bxx") and line.endswith("give another one\n") and len(line) < 5000
    with pytest.raises(UserError) as info:
        real_numbers("radii", ["x"] * 10_000)
    assert len(str(info.value)) < 300


def test_folders_of_a_sweep_have_any_names(tmp_path: Path) -> None:
    for name in ("0", "\u00b2", "9" * 200):  # a superscript is a digit, too
        folder = tmp_path / name / ".hydra"
        folder.mkdir(parents=True)
        (folder / "overrides.yaml").write_text("- seed=1\n")
    assert sorted(job.job for job in read_jobs(tmp_path, None)) == [0, 0, int("9" * 200)]
