"""Importing a module starts no process, opens no connection and writes no file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cli import REPOSITORY

WATCHED = """
import importlib, pkgutil, sys

# What other packages do when they are imported is theirs.
import hydra, matplotlib.pyplot, numpy, PIL.Image, pytorch_lightning, sklearn.svm, torch, torchmetrics, torchvision
import torch.utils.cpp_extension, torchmetrics.image, wandb, safetensors.torch, rich.table, filelock, scipy.stats
import stylegan_inv

FORBIDDEN = ("socket.connect", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.mkdir")

def watch(event, arguments):
    if not watching:
        return
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if event in FORBIDDEN or writes and not str(arguments[0]).endswith(".pyc"):
        seen.append((name, event, str(arguments)[:100]))

watching, seen, name = True, [], ""
sys.addaudithook(watch)
sys.dont_write_bytecode = True
for module in pkgutil.walk_packages(stylegan_inv.__path__, "stylegan_inv."):
    name = module.name
    if not name.endswith("__main__") and ".hydra_plugins" not in name:
        importlib.import_module(name)
watching = False
print(seen)
"""


def test_no_module_does_anything_when_it_is_imported(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "STYLEGAN_INV_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]" and not list(tmp_path.glob("*"))
