"""`convert` is killed, or its disk is full: the target has the old content, the new one or no file, never a part."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from stylegan_inv import convert
from stylegan_inv.encoders.official.official_checkpoint import read_checkpoint
from stylegan_inv.generators import load_generator
from stylegan_inv.generators.io.formats import save_generator
from stylegan_inv.generators.io.nvidia_snapshot import load_snapshot
from stylegan_inv.utils.files import is_partial
from tests.encoders.official import psp_file, small_generator
from tests.faults.small import run
from tests.forks import join, launch

SHORT = ("trainer.max_steps=1", "trainer.val_check_interval=1")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Target -> source of its conversion."""
    folder = tmp_path_factory.mktemp("sources")
    save_generator(small_generator(), folder / "g.safetensors")
    torch.save(psp_file("Encoder4Editing"), folder / "e4e.pt")
    run("stylegan2", folder / "run", *SHORT)
    names = {"g.pt": "g.safetensors", "e4e.safetensors": "e4e.pt", "snapshot.pkl": "run"}
    return {target: folder / source for target, source in names.items()}


READERS = {"g.pt": load_generator, "e4e.safetensors": read_checkpoint, "snapshot.pkl": load_snapshot}


@pytest.fixture
def limited() -> Iterator[None]:
    """Files can have a bounded size until the test ends; more is an error and no signal, as Python has set it."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, former)


@pytest.mark.parametrize("target", READERS)
def test_a_full_disk(
    target: str, sources: dict[str, Path], tmp_path: Path, limited: None, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(sources[target]), str(tmp_path / target), "--codes", "1"]
    convert.main(command)
    capsys.readouterr()
    size = (tmp_path / target).stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for exists, limit in ((False, 1), (False, size // 2), (False, size - 1), (True, size - 1)):
        (tmp_path / target).unlink(missing_ok=True)
        if exists:
            (tmp_path / target).write_bytes(b"old")
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        with pytest.raises(SystemExit) as stop:
            convert.main([*command, "--overwrite"])
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        (line,) = capsys.readouterr().err.splitlines()
        assert stop.value.code == 2 and f"{tmp_path / target}: cannot be written (" in line, line
        assert [path.name for path in tmp_path.iterdir()] == [target] * exists
        assert not exists or (tmp_path / target).read_bytes() == b"old"
    convert.main([*command, "--overwrite"])
    READERS[target](tmp_path / target)


def _convert_slowly(command: list[str]) -> None:
    """Converts with a pause before each call of the system that the file needs."""
    for name in ("fsync", "replace"):
        before = getattr(os, name)
        setattr(os, name, lambda *a, call=before: (time.sleep(0.5), call(*a))[1])
    convert.main(command)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("seconds", [0.0, 0.15])
def test_killed(signum: int, seconds: float, sources: dict[str, Path], tmp_path: Path) -> None:
    """While it writes and compares, and before the file gets its name."""
    folder, target = tmp_path / "new", "g.pt"
    folder.mkdir()
    command = [str(sources[target]), str(folder / target), "--codes", "0"]
    process = launch(_convert_slowly, command, log=tmp_path / "log")
    while process.is_alive() and not any(folder.iterdir()):
        time.sleep(0.002)
    time.sleep(seconds)
    os.kill(process.pid, signum)
    assert join([process], 60) == [-signum]
    assert all(is_partial(path) for path in folder.iterdir())
    convert.main(command)
    READERS[target](folder / target)
