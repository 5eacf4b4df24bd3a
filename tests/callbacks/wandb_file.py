"""Reads back what wandb has recorded offline: LevelDB's log format around its own protocol buffers."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK, _HEADER = 1 << 15, 7


def records(folder: Path) -> Iterator[Any]:
    """All records of the only offline run in a run folder, in their order."""
    from wandb.proto import wandb_internal_pb2

    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    data = file.read_bytes()
    assert data[:4] == b":W&B"
    position, whole = _HEADER, b""
    while position + _HEADER <= len(data):
        left = _BLOCK - position % _BLOCK
        length, kind = struct.unpack("<4xHB", data[position : position + _HEADER]) if left >= _HEADER else (0, 0)
        if kind == 0:  # the rest of a block is zeros
            position += left
            continue
        whole += data[position + _HEADER : position + _HEADER + length]
        position += _HEADER + length
        if kind in (1, 4):  # full, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def wait_for_end(folder: Path) -> None:
    """Waits until the last record is in the file: wandb's process writes it after ``run.finish()`` returns."""
    deadline = time.monotonic() + 60
    while not any(record.WhichOneof("record_type") == "exit" for record in records(folder)):
        assert time.monotonic() < deadline, "the run has no end"
        time.sleep(0.1)


def history(folder: Path) -> dict[str, list[Any]]:
    """Every logged name, dotted by slashes, with its values."""
    found: dict[str, list[Any]] = {}
    for record in records(folder):
        if record.WhichOneof("record_type") == "history":
            for item in record.history.item:
                found.setdefault(item.key or "/".join(item.nested_key), []).append(json.loads(item.value_json))
    return found


def artifacts(folder: Path) -> list[Any]:
    """The artifacts that the run used and logged."""
    return [r.artifact for r in records(folder) if r.WhichOneof("record_type") == "artifact"]
