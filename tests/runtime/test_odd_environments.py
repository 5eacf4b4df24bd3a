"""Variables of the environment, and files of the home, that hold anything: one line before any work, or no effect."""

from __future__ import annotations

from pathlib import Path

import pytest

from stylegan_inv.errors import UserError
from stylegan_inv.generators.ops.compilers import find_host_compiler
from stylegan_inv.runtime.loggers import check_logger_arguments, has_wandb_key
from stylegan_inv.runtime.metrics_csv import MetricsCSV
from stylegan_inv.runtime.ranks import Ranks
from stylegan_inv.utils.checks import environment_number
from tests.faults.small import build


@pytest.mark.parametrize("text", ["x", "nan", "inf", "-1", "1e300", "1,5", "²", " "])
def test_numbers(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", text)
    with pytest.raises(UserError, match="variable WANDB_INIT_TIMEOUT=.*: expected a number from 0.1 to 86400; correct"):
        check_logger_arguments(wandb={})
    monkeypatch.setenv("SLURM_RESTART_COUNT", text)
    with pytest.raises(UserError, match="variable SLURM_RESTART_COUNT=.*: expected a number from 0 to"):
        build("psp", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_numbers_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, expected in (("", 7.0), ("2.5", 2.5), ("0", 0.0)):
        monkeypatch.setenv("N", text)
        assert environment_number("N", 7.0, 0, 10) == expected
    monkeypatch.delenv("N")
    assert environment_number("N", 7.0, 0, 10) == 7.0


def test_digits_that_are_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "²")
    with pytest.raises(UserError, match="expected 0 <= RANK < WORLD_SIZE"):
        Ranks.from_environment()
    monkeypatch.delenv("RANK")
    assert Ranks.from_environment() == Ranks()


def test_a_compiler_that_is_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "'c++")
    assert find_host_compiler() is None


def test_a_netrc_that_is_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for content in (b"\xff\xfe\x00", b"machine", b""):
        (tmp_path / ".netrc").write_bytes(content)
        assert not has_wandb_key()


@pytest.mark.parametrize("step", ["²", "9" * 5000, "-1", "1.5", "", "x"])
def test_steps_of_a_table(step: str, tmp_path: Path) -> None:
    """Of the run of a stranger, which is continued."""
    (tmp_path / "metrics.csv").write_text(f"step,val/mse\n0,1\n{step},2\n3,4\n", encoding="utf-8")
    table = MetricsCSV(tmp_path)
    table.drop_rows_after(2)
    assert [row["step"] for row in table.rows()] == ["0"]
