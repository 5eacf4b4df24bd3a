"""Command lines that cannot work end with one line and exit code 2 in `prepare`, before any file or folder exists."""

from __future__ import annotations

import importlib
import resource
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image

from stylegan_inv import config, train
from stylegan_inv.callbacks.progress import end_of_training
from stylegan_inv.config import CONF_DIR
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.methods import PSP
from stylegan_inv.methods.common.fit_check import check_images
from stylegan_inv.runtime.run_location import RunLocation
from tests.cli import call, error_of
from tests.faults import small

#: Options of the Trainer and seeds that `config.check_fields` refuses -> what the line says.
FIELDS = {
    "trainer.precision=64-true": "32-true",
    "trainer.precision=bf16-true": "bf16-mixed",
    "trainer.precision=16-true": "16-mixed",
    "trainer.precision=half": "trainer.precision=half",
    "trainer.precision=16-mixed trainer.accelerator=cpu": "bf16-mixed",
    "trainer.accelerator=toaster": "auto, cpu",
    "trainer.devices=0": "trainer.devices=0",
    "trainer.devices=-3": "trainer.devices=-3",
    "trainer.devices=2": "trainer=ddp",
    "trainer.devices=[0,1]": "trainer=ddp",
    "+trainer.strategy=fsdp": "trainer=ddp",
    "trainer.val_check_interval=0.5": "training batches",
    "trainer.val_check_interval=0": "at least 1",
    "+trainer.limit_train_batches=0.5": "whole number",
    "+trainer.limit_train_batches=-1": "at least 1",
    "+trainer.overfit_batches=0.1": "whole number",
    "trainer.max_steps=null": "trainer.max_steps",
    "trainer.max_steps=1.5": "trainer.max_steps",
    "trainer.log_every_n_steps=x": "trainer.log_every_n_steps",
    "trainer.deterministic=maybe": "warn",
    "+trainer.barebones=true": "barebones",
    "+trainer.enable_checkpointing=false": "callbacks.checkpoint=null",
    "+trainer.logger=true": "logger=csv",
    "+trainer.callbacks=[]": "+callbacks.",
    "seed=-1": "4294967295",
    "seed=4294967296": "4294967295",
    "seed=abc": "seed=abc",
    "seed=null": "seed=None",
    "seed=0.5": "seed=0.5",
    "~callbacks": "callbacks",
}
#: The same for the whole of `prepare`, after the objects have been built.
PARTS = {
    "+trainer.gradient_clip_val=1.0": "+method.gradient_clip_norm=1.0",
    "+trainer.accumulate_grad_batches=2": "+method.accumulate_batches=2",
    "trainer.max_epochs=3 dataset.train_size=16": "trainer.max_steps=24",  # 3 * 16 / 2
    "+trainer.min_epochs=1 dataset.train_size=5": "trainer.min_steps=3",
    "trainer.check_val_every_n_epoch=2": "trainer.val_check_interval",
    "trainer.devices=many": "devices",
    "+trainer.limit_val_batches=1.5": "limit_val_batches",
    "+trainer.profiler=wrong": "profiler",
    "+trainer.foo=1": "foo",
    "+callbacks.mine=3": "callbacks.mine=3",
    "+callbacks.second={_target_:stylegan_inv.callbacks.Panels,run_dir:x,every_n_steps:0}": "every_n_steps=0",
    "+callbacks.throughput.foo=1": "Throughput has no option foo",
    "callbacks.non_finite.abort_after=0": "abort_after=0",
    "+optimizer.foo=1": "foo",
    "optimizer.lr=-1": "learning rate",
    "+scheduler.foo=1": "foo",
    "+logger.foo=1": "foo",
    "logger=none logger.csv=maybe": "logger.csv=maybe",
    "logger=wandb +logger.wandb.foo=1": "logger.wandb.foo",
    "+method.accumulate_batches=0": "method.accumulate_batches=0",
}
#: Whole command lines -> what the line says. `images` is a folder with an image.
LINES = {
    "train +lr=0.5": "optimizer.lr=0.5",
    "train ++lr=0.5": "optimizer.lr=0.5",
    "train lr=0.5": "optimizer.lr=0.5",
    "train +batch_size=4": "dataset.batch_size=4",
    "train +max_epochs=3": "trainer.max_epochs=3",
    "train +paths.foo=1": "paths.foo",
    "train +weights.onfline=true": "weights.offline=true",
    "train method.iteration=3": "method.iterations=3",
    "train hydra.job.chdir=true": "hydra.job.chdir",
    "train -m hydra.job.chdir=true seed=0,1": "hydra.job.chdir",
    "train logger=null": "none",
    "train callbacks=null": "default",
    "train optimizer=null": "adam",
    "train scheduler=null": "constant",
    "train metrics=null": "image",
    "train encoder=null": "small",
    "train generator=null": "synthfaces64",
    "train hydra.run.dir=images/0.png": "is a file",
    "train method=stylegan2 generator.resolution=32": "dataset.resolution=32 or generator.resolution=64",
    "train method=stylegan2 method.discriminator.resolution=32": "method.discriminator.resolution=64",
    "train method=stylegan2 generator.progressive=true method.grow_from=128": "method.grow_from=128",
    "train method=stylegan2 method.r1_every=0": "method.r1_gamma=0",
    "train method=stylegan2 dataset.train_size=8": "a smaller dataset.batch_size",
    "train method=stylegan2 dataset.batch_size=6": "expected a multiple of 4",
    "train method=stylegan2 method.r1_every=null": "method.r1_gamma=0",
    "train method=stylegan2 generator=finetuned dataset.resolution=32": "give dataset.resolution=64",
    "train method=stylegan2 generator=finetuned dataset.resolution=32 method.discriminator.resolution=64": (
        "the generator that is trained has 64 px; give dataset.resolution=64"
    ),
    "train method=stylegan2 generator=finetuned discriminator=pretrained": "no discriminator (D); give a file with D",
    "train method=stylegan2 generator.progressive=true method.grow_from=12": "method.grow_from=12",
    "train method=stylegan2 method.generator_ema={_target_:stylegan_inv.generators.load_generator,source:synthfaces64} "
    "generator.z_dim=64": "give both from one file",
    "train experiment=stylegan2_ffhq256 dataset.root=nowhere": "nowhere",
    "invert input=images method=projector +steps=5": "method.steps=5",
    "invert input=images method=projector steps=5": "method.steps=5",
    "invert input=images method=projector seed=4294967296": "seed",
    "invert input=images method=projector method.regularize_noise_weight=nan": "regularize_noise_weight=nan",
    "invert input=images method=pti method.lr=1e38": "method.lr=1e+38",
    "invert input=images method=projector method.w_avg_samples=0": "at least 1",
    "invert input=images method=projector device=mps": "device=mps",
    "invert input=images method=projector save_every_seconds=x": "save_every_seconds=x",
    "invert input=images method=projector overwrite=maybe": "overwrite=maybe",
    "invert input=images method=projector method.lr=x": "method.lr=x",
    "invert input=images method=projector hydra.job.chdir=true": "hydra.job.chdir",
    "invert input=images method=null": "projector",
    "edit +strength=3": "edit.strength=3",
    "edit strength=3": "edit.strength=3",
    "edit seed=99999999999999999999": "seed",
    "edit animation=gif seconds=0": "seconds=0",
    "edit samples=0": "samples=0",
    "edit edit.strength=[0,inf]": "edit.strength.1=inf",
    "edit num_workers=-1": "num_workers=-1",
    "edit edit=null": "smile",
    "evaluate images=images targets=images metrics=null": "evaluation",
    "evaluate images=images targets=images +resample=1": "bootstrap.resamples=1",
    "evaluate images=images targets=images +lec.foo=1": "lec.foo",
    "evaluate images=images targets=images speed.batch_sizes=[1,x]": "speed.batch_sizes",
    "evaluate images=images targets=images speed.batch_sizes=3": "speed.batch_sizes",
    "evaluate images=images targets=images per_image=null": "per_image",
    "evaluate images=images targets=images quantise=x": "quantise=x",
    "evaluate images=images targets=images lec.strength=x": "lec.strength=x",
    "report run=images +foo=1": "foo",
    "sweeps wandb optimizer=null seed=0,1": "adam",
    "sweeps wandb lr=1,2": "optimizer.lr",
    "sweeps nope": "wandb",
    "prepare masks lables images out": "labels",
    "prepare masks labels images out --classes 1 --dilate nan": "--dilate=nan",
    "directions means --attribute smile --scores factors --output o.safetensors --seed -1": "--seed=-1",
    "directions means --attribute smile --scores factors --output o.safetensors --fraction nan": "--fraction=nan",
    "directions means --attribute smile --scores factors --output images/0.png/o.safetensors": "images/0.png",
    "directions ganspace --output d --count 10 --samples 5": "--count=10",
    "directions sefa --output images/0.png": "images/0.png",
}  # fmt: skip


def compose_train(*overrides: str) -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        return compose("train", list(overrides))


@pytest.mark.parametrize("line", FIELDS)
def test_fields(line: str) -> None:
    with pytest.raises(UserError) as error:
        config.check_fields(compose_train(*line.split()))
    assert FIELDS[line] in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("line", PARTS)
def test_parts(line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        small.build("psp", tmp_path / "run", *line.split())
    assert PARTS[line] in str(error.value) and "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def command(name: str) -> ModuleType:
    package = f"stylegan_inv.{name}"
    return importlib.import_module(package if name in ("train", "convert") else f"{package}.__main__")


@pytest.mark.parametrize("line", LINES)
def test_command_lines(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "images" / "0.png")
    name, *arguments = line.split()
    assert LINES[line] in error_of(monkeypatch, capsys, command(name), *arguments)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["0.png", "images"]


@pytest.mark.parametrize(
    "line", ["+mine=3 loss.l2.weight=${mine}", "++seed=1", "+loss.l2.scale=1", "+mine.x=3 seed=${mine.x}"]
)
def test_added_keys_that_something_reads(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The command gets past the check of its keys, to its own `prepare`."""
    monkeypatch.chdir(tmp_path)

    def stop(cfg: DictConfig) -> None:
        raise UserError("reached")

    monkeypatch.setattr(train, "main", config.entry_point("train", stop)(lambda cfg, job: None))
    assert error_of(monkeypatch, capsys, train, *line.split()) == "error: reached"


def test_keys_of_a_config_of_ones_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "own.yaml").write_text("# @package _global_\nnote: 1\n")
    monkeypatch.chdir(tmp_path)

    def stop(cfg: DictConfig) -> None:
        raise UserError(f"note {cfg.note}")

    monkeypatch.setattr(train, "main", config.entry_point("train", stop)(lambda cfg, job: None))
    arguments = ["--config-dir", str(tmp_path / "mine"), "experiment=own", "++note=2"]
    assert error_of(monkeypatch, capsys, train, *arguments) == "error: note 2"


def test_an_error_of_prepare_that_is_no_bad_input_leaves_no_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    calls = []

    def fail(cfg: DictConfig) -> None:
        calls.append(cfg)
        raise KeyError("a mistake in the program")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "main", config.entry_point("train", fail)(lambda cfg, job: None))
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, train)
    assert stop.value.code == 1 and "a mistake in the program" in capsys.readouterr().err
    assert len(calls) == 1 and not list(tmp_path.iterdir())


def test_disk_that_is_full_at_the_start(tmp_path: Path) -> None:
    location = RunLocation(tmp_path / "outputs" / "run", None, "")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # empty files can still be made
    try:
        with pytest.raises(UserError, match="cannot be written to") as error:
            location.create()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())
    location.create()
    assert location.run_dir.is_dir()


class Encoder(torch.nn.Module):
    """Makes codes for another generator, or of images of another size."""

    def __init__(self, num_ws: int, w_dim: int, resolution: int, **kwargs: Any) -> None:
        super().__init__()
        self.num_ws, self.w_dim, self.resolution = num_ws, w_dim, resolution


@pytest.mark.parametrize(
    ("generator", "encoder", "size", "channels", "expected"),
    [
        ({"img_channels": 1}, {}, 32, 3, "1 channels"),
        ({"img_channels": 4}, {}, 32, 3, "4 channels"),
        ({}, {}, 64, 3, "resolution=32"),
        ({}, {}, 32, 1, "1 channels"),
        ({}, {"resolution": 16}, 32, 3, "16 px"),
        ({}, {"num_ws": 18}, 32, 3, "18 x 8 .* 8 x 8"),
        ({}, {"w_dim": 512}, 32, 3, "8 x 512 .* 8 x 8"),
    ],
)
def test_generator_encoder_and_images_that_do_not_fit(
    generator: dict[str, Any], encoder: dict[str, Any], size: int, channels: int, expected: str
) -> None:
    network = Generator(32, z_dim=8, w_dim=8, mapping_layers=1, channel_base=128, channel_max=8, **generator)
    method = PSP(generator=network.freeze(), encoder=lambda **own: Encoder(**{**own, "resolution": 32, **encoder}))
    with pytest.raises(UserError, match=expected):
        check_images(method, size, channels)


def test_what_ends_a_training() -> None:
    def ends(**options: Any) -> str:
        trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, **options)
        trainer.fit_loop.max_batches = options.get("limit_train_batches", float("inf"))
        return end_of_training(trainer)

    assert ends(max_steps=400, max_epochs=-1) == "step 400 (trainer.max_steps)"
    assert ends(max_steps=400, max_epochs=2, limit_train_batches=4) == "step 8 (trainer.max_epochs)"
    assert ends(max_steps=4, max_epochs=-1, max_time="00:00:10:00") == "step 4 (trainer.max_steps) or trainer.max_time"
