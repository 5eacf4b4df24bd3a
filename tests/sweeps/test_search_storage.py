"""Databases of searches by Optuna: those of other programs and damaged ones are one line before the sweep begins."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from stylegan_inv import train
from stylegan_inv.config.search_storage import check_storage, storage_error
from stylegan_inv.errors import UserError
from tests.cli import error_of


def sweep(url: object) -> DictConfig:
    return OmegaConf.create({"hydra": {"sweeper": {"storage": url}}})


def database(path: Path, *tables: str) -> Path:
    connection = sqlite3.connect(path)
    for table in tables:
        connection.execute(f"CREATE TABLE {table} (study_id INTEGER, value TEXT)")
        connection.executemany(f"INSERT INTO {table} VALUES (?, ?)", [(k, "x" * 500) for k in range(20)])
    connection.commit()
    connection.close()
    return path


@pytest.mark.parametrize(
    "content, message",
    [
        (b"my notes", "is no SQLite database"),
        (b"SQLite format 3\0", "is damaged"),
        (b"SQLite format 3\0" + bytes(4096), "is damaged"),
        (b"SQLite format 3\0" + b"\xff" * 4096, "is damaged"),
        ("photos", "holds 'photos' of another program"),
    ],
)
def test_other_files_are_one_line(tmp_path: Path, content: bytes | str, message: str) -> None:
    file = tmp_path / "a.db"
    if isinstance(content, str):
        database(file, content)
    else:
        file.write_bytes(content)
    before = file.read_bytes()
    with pytest.raises(UserError, match=message) as error:
        check_storage(sweep(f"sqlite:///{file}"))
    assert "hydra.sweeper.storage=sqlite:///" in str(error.value) and "\n" not in str(error.value)
    assert file.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["a.db"]


def test_a_damaged_schema(tmp_path: Path) -> None:
    file = database(tmp_path / "a.db", "studies", "trials")
    content = bytearray(file.read_bytes())
    content[100:4096] = os.urandom(3996)  # the first page holds the schema
    file.write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        check_storage(sweep(f"sqlite:///{file}"))


def test_what_optuna_can_use_passes(tmp_path: Path) -> None:
    file = database(tmp_path / "it's 100% #1.db", "alembic_version", *(f"t{k}" for k in range(20)), "studies")
    (tmp_path / "empty.db").touch()
    usable = [file, tmp_path / "empty.db", tmp_path / "new.db", f"{file}?timeout=10"]
    for url in (*(f"sqlite:///{path}" for path in usable), "sqlite://", "sqlite:///:memory:", "mysql://host/db", None):
        check_storage(sweep(url))
    check_storage(OmegaConf.create({"hydra": {"sweeper": {"_target_": "x"}}}))
    locked = sqlite3.connect(file)
    locked.execute("BEGIN EXCLUSIVE")
    check_storage(sweep(f"sqlite:///{file}"))
    locked.close()
    with pytest.raises(UserError, match="there is no folder"):
        check_storage(sweep(f"sqlite:///{tmp_path}/missing/a.db"))


def test_a_sweep_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the basic sweeper, as Optuna is an extra; the key is the same."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    (tmp_path / "a.db").write_text("my notes")
    line = error_of(
        monkeypatch, capsys, train, "-m", "seed=0,1", "+hydra.sweeper.storage=sqlite:///a.db", "hydra.sweep.dir=sweep"
    )
    assert "is no SQLite database" in line and not (tmp_path / "sweep").exists()


def test_errors_of_the_database_are_one_line() -> None:
    kind = type("OperationalError", (Exception,), {"__module__": "sqlalchemy.exc"})
    line = storage_error(kind("(sqlite3.OperationalError) disk I/O error\n[SQL: SELECT 1]"), sweep("sqlite:///a.db"))
    assert str(line) == (
        "hydra.sweeper.storage=sqlite:///a.db: Optuna cannot use it ((sqlite3.OperationalError) disk I/O error); give "
        "another database or other settings"
    )
    assert storage_error(ValueError("x"), None) is None and storage_error(kind(), None) is not None


@pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="optuna: pip install 'stylegan_inv[sweep]'")
def test_databases_of_optuna_itself(tmp_path: Path) -> None:
    import optuna

    url = f"sqlite:///{tmp_path}/a.db"
    optuna.create_study(storage=url, study_name="a")
    check_storage(sweep(url))
