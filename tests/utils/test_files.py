"""Files are written completely or not at all."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stylegan_inv.utils.files import atomic_write, remove_partial


def test_writes_and_leaves_nothing_else(tmp_path):
    with atomic_write(tmp_path / "a.txt") as temporary:
        assert temporary.parent == tmp_path and temporary.suffix == ".txt" and temporary.name.startswith(".")
        temporary.write_text("new")
        assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "a.txt").read_text() == "new" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_keeps_the_old_file(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(error), atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("ne")
        raise error
    assert (tmp_path / "a.txt").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a.txt"):
        pass
    assert (tmp_path / "a.txt").read_text() == "old"


def test_with_the_libraries_it_is_for(tmp_path):
    with atomic_write(tmp_path / "a.ckpt") as temporary:
        torch.save({"x": 1}, temporary)
    assert torch.load(tmp_path / "a.ckpt", weights_only=True) == {"x": 1}
    with atomic_write(tmp_path / "a.safetensors") as temporary:
        save_file({"x": torch.ones(2)}, temporary)
    assert load_file(tmp_path / "a.safetensors")["x"].tolist() == [1, 1]
    with atomic_write(tmp_path / "a.npy") as temporary:
        np.save(temporary, np.ones(2))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.ckpt", "a.npy", "a.safetensors"]


def test_permissions_are_those_of_a_new_file(tmp_path):
    (tmp_path / "plain").touch()
    with atomic_write(tmp_path / "a") as temporary:
        temporary.touch()
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_long_and_odd_names(tmp_path):
    for name in ("n" * 250 + ".txt", "ü" * 100 + ".a", ".hidden", "no suffix", "two.dots.tar.gz"):
        with atomic_write(tmp_path / name) as temporary:
            temporary.write_text(name)
        assert (tmp_path / name).read_text() == name


def test_a_killed_writer_leaves_the_old_file_and_a_leftover_that_is_found(tmp_path):
    (tmp_path / "last.ckpt").write_text("old")
    (tmp_path / ".last.mine.partial.old.ckpt").write_text("not ours")
    program = (
        "import sys, time; from stylegan_inv.utils.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as t:\n    t.write_text('half'); print('writing', flush=True); time.sleep(60)"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "last.ckpt")], stdout=subprocess.PIPE)
    assert writer.stdout.readline() == b"writing\n"
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait(10)
    writer.stdout.close()
    time.sleep(0.01)
    assert (tmp_path / "last.ckpt").read_text() == "old"
    (removed,) = remove_partial(tmp_path)
    assert removed.name.startswith(".last.")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".last.mine.partial.old.ckpt", "last.ckpt"]
    assert remove_partial(tmp_path) == []
