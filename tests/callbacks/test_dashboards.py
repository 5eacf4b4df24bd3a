"""Panels, latent codes, worst reconstructions, gradients and artifacts of a training, in files and in wandb."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import wandb
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image

import stylegan_inv
from stylegan_inv import train
from stylegan_inv.callbacks.artifacts import Artifacts
from stylegan_inv.callbacks.gradient_norm import GradientNorm
from stylegan_inv.callbacks.latent_codes import LatentCodes
from stylegan_inv.callbacks.worst_reconstructions import WorstReconstructions
from stylegan_inv.config import CONF_DIR
from stylegan_inv.data.images.image_files import to_pil
from stylegan_inv.generators import Generator, save_generator
from stylegan_inv.methods.common.base import Inversion, InversionMethod
from stylegan_inv.runtime.run_folder import RunFolder
from tests.callbacks import wandb_file
from tests.faults import small
from tests.forks import join, launch, launch_ranks

SIZE = 5
CALLBACKS = [
    f"callbacks.{name}={{_target_: stylegan_inv.callbacks.{target}, run_dir: '${{paths.run_dir}}', {more}}}"
    for name, target, more in (
        ("panels", "Panels", "images: 2"),
        ("codes", "LatentCodes", "images: 100"),
        ("worst", "WorstReconstructions", "images: 3"),
    )
]


def overrides(folder: Path) -> list[str]:
    """The small training with a generator that can be loaded again, and with dashboards."""
    own = [o for o in small.overrides("restyle", folder) if not o.startswith("generator")]
    own += ["generator=file", f"generator.source='{folder.parent / 'generator.safetensors'}'", "method.iterations=2"]
    return [*own, f"dataset.val_size={SIZE}", "logger=wandb", "logger.wandb.group=a sweep", *CALLBACKS]


def build(folder: Path) -> tuple[DictConfig, train.Job]:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        cfg = compose("train", overrides(folder))
    return cfg, train.prepare(cfg)


def fit(folder: Path) -> None:
    train.train(*build(folder))
    wandb.finish()  # at the exit of a process, which forks do not have


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 6 steps with every dashboard, in a process of its own: wandb leaves a service behind."""
    folder = tmp_path_factory.mktemp("dashboards")
    generator = Generator(32, z_dim=8, w_dim=8, mapping_layers=1, channel_base=128, channel_max=8)
    save_generator(generator, folder / "generator.safetensors")
    process = launch(fit, folder / "run", log=folder / "log", WANDB_MODE="offline", WANDB_API_KEY="")
    assert join([process], 240) == [0], (folder / "log").read_text()[-3000:]
    return folder / "run"


@pytest.fixture(scope="module")
def found(run: Path) -> tuple[torch.Tensor, Any]:
    """The held-out images, and their inversion by the trained method, all at once."""
    _, job = build(run.parent / "other")
    images = torch.cat([batch["image"] for batch in job.data.val_dataloader()])
    with torch.no_grad():
        return images, stylegan_inv.load_inverter(run).invert(images)


@pytest.mark.slow
def test_worst_images_are_the_worst(run: Path, found: tuple[torch.Tensor, Any]) -> None:
    images, inversion = found
    errors = (inversion.image - images).square().flatten(1).mean(1)
    assert len(errors) == SIZE
    with (run / "worst" / "last.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["image"]) for row in rows] == errors.argsort(descending=True)[:3].tolist()
    for row in rows:
        error = float(errors[int(row["image"])])
        assert float(row["mse"]) == pytest.approx(error, rel=1e-3)
        assert float(row["psnr"]) == pytest.approx(10 * np.log10(4 / error), abs=0.1), "a metric's own value"
    assert {path.name for path in (run / "worst").glob("*.png")} == {"last.png", "step_0000003.png", "step_0000006.png"}
    assert Image.open(run / "worst" / "last.png").size[1] > 3 * 160, "three rows"


@pytest.mark.slow
def test_codes_are_those_of_the_method(run: Path, found: tuple[torch.Tensor, Any]) -> None:
    _, inversion = found
    statistics = json.loads((run / "codes" / "last.json").read_text())
    w = inversion.w.double()
    counts, _ = np.histogram(w.numpy(), statistics["w"]["edges"])
    assert statistics["images"] == SIZE and statistics["step"] == 6
    assert np.abs(counts - np.array(statistics["w"]["counts"])).sum() <= 0.02 * w.numel(), "rounding moves few"
    assert sum(statistics["w"]["counts"]) == w.numel(), "none is outside"
    delta = (w - w[:, :1]).square().mean(-1).sqrt()
    assert statistics["delta"]["mean"] == pytest.approx(delta.mean(0).tolist(), rel=1e-3, abs=1e-6)
    first, second = (step.w.double() for step in inversion.steps)
    moved = (second - first).square().mean(-1).sqrt().mean(0)
    assert statistics["moved"][1] == pytest.approx(moved.tolist(), rel=1e-3, abs=1e-6)


@pytest.mark.slow
def test_wandb_holds_the_same(run: Path, found: tuple[torch.Tensor, Any]) -> None:
    history = wandb_file.history(run)
    statistics = json.loads((run / "codes" / "last.json").read_text())
    assert history["codes/w/values"][-1] == statistics["w"]["counts"]
    assert history["codes/delta/values"][-1] == pytest.approx(statistics["delta"]["mean"])
    assert history["codes/moved_step2/values"][-1] == pytest.approx(statistics["moved"][1])
    assert history["worst/nrows"] == [3, 3] and history["panel/count"] == [1]
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("lr/encoder", "grad_norm/encoder", "perf/images_per_second", "train/loss/total", "val/mse"):
        logged = [float(row[name]) for row in rows if row[name]]
        assert history[name] == pytest.approx(logged) and len(logged) == (2 if name == "val/mse" else 6)
    table = max(run.glob("wandb/*/files/media/table/worst_*"), key=lambda path: path.stat().st_mtime)
    content = json.loads(table.read_text())
    with (run / "worst" / "last.csv").open() as file:
        expected = [row["image"] for row in csv.DictReader(file)]
    assert [row[0] for row in content["data"]] == expected
    assert content["columns"][:4] == ["image", "target", "reconstruction", "mse"]
    # The images are in the artifact of the table: targets and reconstructions of three images.
    shown = [a for a in wandb_file.artifacts(run) if a.type == "run_table"][-1]
    images = [Image.open(e.local_path) for e in shown.manifest.contents if e.path.startswith("media/images/")]
    assert len(images) == 6 and {image.size for image in images} == {(32, 32)}
    worst = to_pil(found[0][int(expected[0])])
    assert any(image.convert("RGB").tobytes() == worst.tobytes() for image in images)


@pytest.mark.slow
def test_lineage_from_generator_to_checkpoint(run: Path) -> None:
    logged = {artifact.type: artifact for artifact in wandb_file.artifacts(run)}
    model = logged["model"]
    assert model.name == f"checkpoint-{RunFolder(run).record()['wandb_id']}" and not model.use_after_commit
    facts = json.loads(model.metadata)
    assert facts["step"] == 6 and facts["method"] == "ReStyle"
    assert facts["val/mse"] == json.loads((run / "metrics.json").read_text())["val/mse"]
    (entry,) = model.manifest.contents
    checkpoint = run / "checkpoints" / "last.ckpt"
    assert entry.ref == checkpoint.absolute().as_uri() and entry.size == checkpoint.stat().st_size
    (record,) = [r.run for r in wandb_file.records(run) if r.WhichOneof("record_type") == "run"]
    assert record.run_group == "a sweep"
    used = logged["generator"]
    sha256 = hashlib.sha256((run.parent / "generator.safetensors").read_bytes()).hexdigest()
    assert used.use_after_commit and used.name == f"generator-{sha256[:12]}"
    assert json.loads(used.metadata)["sha256"] == facts["generator_sha256"] == sha256


class Noted:
    """Stands for a wandb run and records the artifacts."""

    def __init__(self, offline: bool, broken: bool = False) -> None:
        self.offline, self.id, self.broken = offline, "id", broken
        self.used: list[Any] = []

    def use_artifact(self, artifact: Any) -> None:
        if self.broken:
            raise ConnectionError("no server\nsecond line")
        self.used.append(artifact)

    def _log_artifact(self, artifact: Any, *, is_user_created: bool, use_after_commit: bool) -> None:
        assert is_user_created and use_after_commit
        self.used.append(artifact)


@pytest.mark.parametrize("offline", [True, False])
def test_the_generator_is_used_by_its_hash(offline: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    generator = stylegan_inv.load_generator("synthfaces64")
    module = InversionMethod(generator)
    digests = []
    for _ in range(2):  # two runs, one version of one artifact
        noted = Noted(offline)
        monkeypatch.setattr("stylegan_inv.callbacks.artifacts._runs", lambda trainer, noted=noted: [noted])
        Artifacts(str(tmp_path)).setup(pl.Trainer(logger=False, enable_progress_bar=False), module, "fit")
        (artifact,) = noted.used
        digests.append(artifact.digest)
    assert artifact.type == "generator" and digests[0] == digests[1]
    file = Path(stylegan_inv.__file__).parent / "assets" / "synthfaces64.safetensors"
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert artifact.metadata["sha256"] == sha256 and artifact.name.startswith(f"generator-{sha256[:12]}")


def test_a_server_that_fails_does_not_end_the_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = InversionMethod(stylegan_inv.load_generator("synthfaces64"))
    monkeypatch.setattr("stylegan_inv.callbacks.artifacts._runs", lambda trainer: [Noted(False, broken=True)])
    Artifacts(str(tmp_path)).setup(pl.Trainer(logger=False, enable_progress_bar=False), module, "fit")
    assert "not recorded an artifact: no server" in caplog.text and "second line" not in caplog.text


def test_gradient_norm_of_each_group() -> None:
    a, b = torch.nn.Parameter(torch.zeros(2, 2)), torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([{"params": [a], "name": "first"}, {"params": [b]}, {"params": []}], lr=0.1)
    a.grad, b.grad = torch.full((2, 2), 3.0), torch.tensor([2.0, 3.0, 6.0])
    logged: dict[str, float] = {}

    class Module:
        def log_dict(self, values: dict[str, torch.Tensor]) -> None:
            logged.update({name: float(value) for name, value in values.items()})

    callback = GradientNorm()
    callback.on_before_optimizer_step(None, Module(), optimizer)  # type: ignore[arg-type]
    assert logged == {}, "otherwise Lightning forgets the metrics of the first step"
    callback.on_train_batch_end(None, Module())  # type: ignore[arg-type]
    assert logged == {"grad_norm/first": pytest.approx(6.0), "grad_norm/group1": pytest.approx(7.0)}
    a.grad = b.grad = None  # a step that is skipped
    logged.clear()
    callback.on_before_optimizer_step(None, Module(), optimizer)  # type: ignore[arg-type]
    callback.on_train_batch_end(None, Module())  # type: ignore[arg-type]
    assert logged == {}


def show_shards(folder: Path, images: torch.Tensor, found: torch.Tensor, shards: list[list[list[int]]]) -> None:
    """A validation by the callbacks alone: each rank sees its shard, batch by batch."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    if world > 1:
        torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    trainer: Any = SimpleNamespace(
        world_size=world,
        is_global_zero=rank == 0,
        sanity_checking=False,
        fast_dev_run=False,
        global_step=7,
        loggers=[],
        datamodule=None,
    )
    generator = Generator(16, z_dim=8, w_dim=4, mapping_layers=1, channel_base=64, channel_max=8)
    module = SimpleNamespace(source=lambda batch: batch["image"], metrics={}, generator=generator)
    callbacks = [WorstReconstructions(str(folder), images=3), LatentCodes(str(folder))]
    for callback in callbacks:
        callback.on_validation_start(trainer, module)
        for number, rows in enumerate(shards[rank]):
            inversion = Inversion(found[rows].flatten(1)[:, None, :4].repeat(1, 6, 1), found[rows])
            batch = {"image": images[rows], "index": torch.tensor(rows)}
            callback.on_validation_batch_end(trainer, module, {"inversion": inversion}, batch, number)
        callback.on_validation_end(trainer, module)
    if world > 1:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_find_the_worst_of_all_images(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(7, 3, 16, 16, generator=generator)
    found = images + torch.tensor([0.1, 0.6, 0.2, 0.5, 0.05, 0.4, 0.3])[:, None, None, None]
    show_shards(tmp_path / "one", images, found, [[[0, 1, 2, 3], [4, 5, 6]]])
    # A sampler gives both ranks four: image 1, the worst one, is seen twice.
    shards = [[[0, 2], [4, 6]], [[1, 3], [5, 1]]]
    processes = launch_ranks(show_shards, tmp_path / "two", images, found, shards, log=tmp_path / "log")
    assert join(processes, 100) == [0, 0], (tmp_path / "log.0").read_text() + (tmp_path / "log.1").read_text()
    one, two = ((tmp_path / name / "worst" / "last.csv").read_text() for name in ("one", "two"))
    assert one == two and [row.split(",")[1] for row in one.splitlines()[1:]] == ["1", "3", "5"]
    assert json.loads((tmp_path / "two" / "codes" / "last.json").read_text())["images"] == 8
    assert "delta" not in json.loads((tmp_path / "one" / "codes" / "last.json").read_text()), "all layers are equal"
