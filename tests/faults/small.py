"""Trainings that take a second: the whole path of `stylegan_inv.train` with the smallest networks, in this process."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from stylegan_inv import train
from stylegan_inv.config import CONF_DIR
from stylegan_inv.encoders.face_network import load_face_network
from tests.cli import REPOSITORY

METHODS = sorted(path.stem for path in (REPOSITORY / "conf" / "method").glob("*.yaml"))
#: A generator of 32 px, images of 32 px, two of them a step.
SMALL = (
    "generator=new",
    "generator.z_dim=8",
    "generator.w_dim=8",
    "generator.mapping_layers=1",
    "generator.channel_base=128",
    "generator.channel_max=8",
    "dataset.resolution=32",
    "dataset.batch_size=2",
    "dataset.val_size=3",
    "dataset.val_batch_size=2",
    "trainer.accelerator=cpu",
    "trainer.max_steps=6",
    "trainer.val_check_interval=3",
    "trainer.log_every_n_steps=1",
    "callbacks.panels=null",
    "callbacks.codes=null",
    "callbacks.worst=null",
    "callbacks.progress=null",
    "+trainer.enable_progress_bar=false",
    "callbacks.checkpoint.every_n_train_steps=1000",
    "logger=csv",
    "tune_allocator=false",
    "any_domain=true",  # of the generator
)
ENCODER = ("encoder.width=4", "encoder.pretrained=null")
#: A method for the codes that needs neither training nor a file.
START = (
    "method.start={_target_: stylegan_inv.methods.Projector, steps: 1, w_avg_samples: 4, generator: '${generator}', "
    "features: '${features}'}",
)
OF_METHOD = {
    "face_network": (
        "dataset.people=4", "dataset.val_people=4", "dataset.batch_size=4", "method.network.width=4",
        "callbacks.panels=null",
    ),
    "stylegan2": (
        "dataset=synthfaces", "dataset.val_size=4", "method.discriminator.channel_base=128",
        "method.discriminator.channel_max=8", "method.path_length_every=2", "method.r1_every=2", "method.samples=1",
        "augment=ada", "+augment.initial_p=0.2",
    ),
    # Its start and its directions are made for the embedded generator.
    "sfe": (*ENCODER, "method.start=null", "method.directions=[]"),
    "hfgi": (
        "method.start=average", "method.layer=b16.conv0", "method.consultation.widths=[4,4,4]",
        "method.aligner.widths=[4,4,4,4]",
    ),
    "hyperstyle": (*START, "hypernetwork.width=4", "hypernetwork.pretrained=null"),
    "hyperinverter": (*ENCODER, *START),
    # They optimise each image, which takes as long as one lets them.
    "image2stylegan": (*ENCODER, "method.steps=2"),
    "image2stylegan_pp": (*ENCODER, "method.stages.w.steps=2", "method.stages.noise.steps=2"),
    "projector": (*ENCODER, "method.steps=2"),
    "pti": (*ENCODER, "method.steps=2", "method.start.steps=2"),
    "dhr": (
        *ENCODER, "method.start=average", "method.steps=2", "method.weight_steps=1", "method.coarse.steps=2",
        "method.layer=b8",
    ),
    "sam": (*ENCODER, "method.start=average", "method.steps=2", "method.measure_steps=1", "method.layers=[b8,b16]"),
}  # fmt: skip


def overrides(method: str, folder: Path, *more: str) -> list[str]:
    """The command line of a small training."""
    own = OF_METHOD.get(method, () if any(o.startswith("encoder=") for o in more) else ENCODER)
    small = [o for o in SMALL if method != "face_network" or not o.startswith(("generator", "dataset.val_size"))]
    return [
        f"method={method}",
        *small,
        *own,
        f"paths.run_dir='{folder}'",
        f"paths.output_root='{folder.parent}'",
        *more,
    ]


def build(method: str, folder: Path, *more: str) -> tuple[DictConfig, train.Job]:
    """The config of a small training, and what is checked and built before it."""
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        cfg = compose("train", overrides=overrides(method, folder, *more))
    return cfg, train.prepare(cfg)


def run(method: str, folder: Path, *more: str) -> float | None:
    """Train in this process, all of `stylegan_inv.train` but Hydra's own command line."""
    return train.train(*build(method, folder, *more))


def warm_up() -> None:
    """A process draws random numbers for the embedded networks when it first builds them, and not again."""
    for name in ("face_train", "face_eval"):
        load_face_network(name)


class Signal(pl.Callback):
    """Sends this process a signal while step ``step`` is computed."""

    def __init__(self, step: int, signum: int = signal.SIGTERM) -> None:
        self.step, self.signum = step, signum

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.fit_loop.epoch_loop.batch_progress.total.processed == self.step - 1:
            os.kill(os.getpid(), self.signum)


def stop_after(step: int) -> str:
    """An override that stops the run by SIGTERM after a number of batches."""
    return f"+callbacks.signal={{_target_: tests.faults.small.Signal, step: {step}}}"


def state(folder: Path) -> dict[str, Any]:
    """What is in a run's last checkpoint."""
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def rows(folder: Path) -> list[dict[str, str]]:
    """The logged metrics without the measured times."""
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in csv.DictReader(file)]


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Where two nested structures of tensors and values differ in any bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [where]
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return [f"{where}: {sorted(map(str, a.keys() ^ b.keys()))}"]
        return [d for key in a for d in differences(a[key], b[key], f"{where}/{key}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{where}/{i}")]
    return [] if a == b else [where]


def assert_same_training(a: Path, b: Path) -> None:
    """Weights, optimisers, schedules, data order and logged metrics of two runs are equal bit for bit."""
    first, second = state(a), state(b)
    keys = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "by_rank")
    keys += tuple(k for k in first if k.endswith("DataModule"))
    for key in keys:
        assert not differences(first.get(key), second.get(key), key), differences(first.get(key), second.get(key), key)
    assert rows(a) == rows(b), [(x, y) for x, y in zip(rows(a), rows(b), strict=False) if x != y]


def wait_for(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    """Poll until a condition holds; its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return value


def slowdown() -> float:
    """How many times longer than it needs to something takes here and now, at least 1: others use the cores too."""
    clock, cpu = time.perf_counter(), time.process_time()
    while time.process_time() - cpu < 0.2:
        pass
    return max(1.0, (time.perf_counter() - clock) / 0.2)


def steps_logged(folder: Path) -> int:
    """Training steps in ``metrics.csv`` so far."""
    path = folder / "metrics.csv"
    return path.read_text().count("\n") - 1 if path.exists() else 0


def metrics(folder: Path) -> dict[str, float]:
    """The validation in ``metrics.json``."""
    found = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in found.items() if name.startswith("val/")}
