"""DataModules in Lightning's loops: the order of the images, resuming, and the checks before training."""

from __future__ import annotations

import itertools
import json
import logging
import multiprocessing
import os
import signal
import time
import types
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch.utils.data import DataLoader

from stylegan_inv.config import CONF_DIR, instantiate
from stylegan_inv.data.datamodules.folder_datamodule import FolderDataModule
from stylegan_inv.data.datamodules.loaders import is_worker_death
from stylegan_inv.data.datamodules.sampler import ResumableSampler
from stylegan_inv.data.datamodules.synthfaces_datamodule import SynthFacesDataModule
from stylegan_inv.data.images.image_files import BadImage
from stylegan_inv.data.synthfaces.dataset import SynthFaces
from stylegan_inv.errors import UserError
from stylegan_inv.utils.old_names import replace_old_names
from tests.forks import join, launch_ranks


def fill(folder: Path, count: int, start: int = 0, name: str = "{:05d}.png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(start, start + count):
        Image.new("RGB", (8, 8), (i % 256, i // 256, 0)).save(folder / name.format(i))
    return folder


class IndexRecorder(pl.LightningModule):
    """Records the index of every training image; has two optimisers, as a GAN.

    Args:
        stop_after: Number of batches after which training stops.
        die_in: Number of batches after which training is interrupted in the middle of the next one.
        accumulate: Number of batches per optimiser step.
    """

    def __init__(self, stop_after: int | None = None, die_in: int | None = None, accumulate: int = 1) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[int] = []
        self.validated: list[int] = []
        self.stop_after, self.die_in, self.accumulate = stop_after, die_in, accumulate

    def training_step(self, batch, batch_idx):
        done = len(self.seen) // len(batch["index"])
        if self.die_in == done:
            raise KeyboardInterrupt
        self.trainer.should_stop = self.stop_after == done + 1
        self.seen += batch["index"].tolist()
        if (batch_idx + 1) % self.accumulate == 0:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
                self.manual_backward(self.layer(batch["image"].mean().reshape(1, 1)).sum())
                optimizer.step()

    def validation_step(self, batch, batch_idx):
        self.validated += batch["index"].tolist()

    def configure_optimizers(self):
        return [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(2)]


def trainer(folder: Path, **kwargs) -> pl.Trainer:
    kwargs = {"max_steps": -1, "max_epochs": -1, "num_sanity_val_steps": 0, "limit_val_batches": 0, **kwargs}
    return pl.Trainer(
        accelerator="cpu", default_root_dir=folder, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=bool(kwargs.get("callbacks")), **kwargs,
    )  # fmt: skip


def faces(**kwargs) -> SynthFacesDataModule:
    return SynthFacesDataModule(
        **{"resolution": 32, "train_size": 11, "val_size": 5, "batch_size": 2, "seed": 3, **kwargs}
    )


def expected(batches: int, batch: int = 2, size: int = 11, seed: int = 3, start: int = 0) -> list[int]:
    return list(map(int, itertools.islice(ResumableSampler(size, seed, start=start), batches * batch)))


# -- order and resume --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_training_sees_the_stream_over_several_epochs(tmp_path, workers):
    """max_steps counts both optimisers; the run covers more than two epochs of 11 images."""
    model = IndexRecorder()
    trainer(tmp_path, max_steps=28).fit(model, datamodule=faces(num_workers=workers))
    assert model.seen == expected(14)


def test_lightning_epochs_continue_the_stream(tmp_path):
    """With limit_train_batches Lightning iterates over the loader anew in each of its epochs."""
    model = IndexRecorder()
    trainer(tmp_path, max_epochs=3, limit_train_batches=3).fit(model, datamodule=faces())
    assert model.seen == expected(9)


@pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization", "ignore:Be aware that when using")
@pytest.mark.parametrize("batches", [2, 5, 9])
@pytest.mark.parametrize("saved_by", ["callback", "crash"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_resume_continues_the_stream(tmp_path, batches, saved_by, accumulate):
    if saved_by == "callback":
        callback = pl.callbacks.ModelCheckpoint(tmp_path, "c", every_n_train_steps=1)
        first = IndexRecorder(stop_after=batches, accumulate=accumulate)
        trainer(tmp_path, callbacks=[callback]).fit(first, datamodule=faces())
        path = callback.best_model_path
        done = batches - batches % accumulate  # the callback only saves after optimiser steps
    else:
        first = IndexRecorder(die_in=batches, accumulate=accumulate)
        stopped = trainer(tmp_path)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            stopped.fit(first, datamodule=faces())
        stopped.save_checkpoint(path := tmp_path / "crash.ckpt")
        done = batches
    assert first.seen == expected(batches)
    again = IndexRecorder(stop_after=8, accumulate=accumulate)
    trainer(tmp_path).fit(again, datamodule=faces(), ckpt_path=path, weights_only=True)
    assert again.seen == expected(8, start=2 * done)


def test_resume_with_another_batch_size_continues_at_the_same_image(tmp_path):
    stopped = trainer(tmp_path)
    stopped.fit(IndexRecorder(stop_after=5), datamodule=faces())
    stopped.save_checkpoint(tmp_path / "a.ckpt")
    second, data = IndexRecorder(stop_after=3), faces(batch_size=5)
    again = trainer(tmp_path)
    again.fit(second, datamodule=data, ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert second.seen == expected(3, batch=5, start=10)
    again.save_checkpoint(tmp_path / "b.ckpt")
    third = IndexRecorder(stop_after=4)
    trainer(tmp_path).fit(third, datamodule=faces(), ckpt_path=tmp_path / "b.ckpt", weights_only=True)
    assert third.seen == expected(4, start=25)


def test_resume_with_other_images_warns(tmp_path, caplog):
    data = faces(train_size=12)
    data.load_state_dict({"draw": 8, "batches": 4, "seed": 3, "size": 11})
    with caplog.at_level(logging.WARNING):
        data.train_dataloader()
    assert "11 images and seed 3, now 12 and 3" in caplog.text


def test_state_is_plain_and_empty_before_training():
    assert faces().state_dict() == {}
    data = faces()
    data.setup("fit")
    assert data.state_dict() == {"draw": 0, "batches": 0, "seed": 3, "size": 11}


def as_rank(data: pl.LightningDataModule, rank: int, world: int) -> pl.LightningDataModule:
    progress = types.SimpleNamespace(total=types.SimpleNamespace(processed=0))
    data.trainer = types.SimpleNamespace(  # the attributes of a trainer that the DataModule uses
        global_rank=rank,
        world_size=world,
        fit_loop=types.SimpleNamespace(epoch_loop=types.SimpleNamespace(batch_progress=progress)),
        strategy=types.SimpleNamespace(root_device=torch.device("cpu")),
    )
    return data


def test_ranks_shard_training_and_validation():
    world, per_rank, validated = 2, [], []
    for rank in range(world):
        data = as_rank(faces(), rank, world)
        batches = itertools.islice(data.train_dataloader(), 3)
        per_rank.append([i for batch in batches for i in batch["index"].tolist()])
        validated += [i for batch in data.val_dataloader() for i in batch["index"].tolist()]
    assert [i for pair in zip(*per_rank, strict=True) for i in pair] == expected(6)
    assert sorted(validated) == list(range(5)), "5 images on 2 ranks: none padded, none dropped"


def test_validation_counts_each_image_once(tmp_path):
    model = IndexRecorder()
    data = faces(val_batch_size=3)
    trainer(tmp_path, limit_val_batches=1.0).validate(model, datamodule=data, verbose=False)
    assert model.validated == list(range(5))


@pytest.mark.filterwarnings("ignore:You requested to overfit")
def test_overfit_batches_works(tmp_path):
    model = IndexRecorder()
    trainer(tmp_path, overfit_batches=2, max_epochs=3).fit(model, datamodule=faces())
    assert model.seen == [0, 1, 2, 3] * 3


# -- SynthFaces --------------------------------------------------------------------------------------------------------


def test_synthfaces_splits_have_seeds_0_1_2():
    data = faces(obstacles=0.5, overrides={"yaw": 0.0})
    for split, seed in (("train", 0), ("val", 1), ("test", 2)):
        want = SynthFaces(32, seed, 5, obstacles=0.5, overrides={"yaw": 0.0})[4]
        got = data.get(split)[4]
        assert torch.equal(got["image"], want["image"]) and torch.equal(got["normals"], want["normals"])
    batch = next(iter(data.val_dataloader()))
    assert batch["image"].shape == (2, 3, 32, 32) and batch["image"].abs().max() <= 1
    assert {"mask", "label", "factors", "index"} <= set(batch)


def test_identity_groups_apply_to_training_only():
    data = faces(identity_groups=2)
    train, held_out = data.get("train"), data.get("val")
    assert train[0]["identity"] == train[1]["identity"] != train[2]["identity"]
    assert held_out[0]["identity"] != held_out[1]["identity"]


def test_panel_images_are_the_first_validation_images():
    data = faces()
    images = data.panel_images(8)
    assert images.shape == (5, 3, 32, 32)
    assert torch.equal(images[0], data.get("val")[0]["image"])


# -- folders -----------------------------------------------------------------------------------------------------------


def names(data: FolderDataModule, split: str) -> list[str]:
    return data.get(split).names


def test_last_images_of_a_folder_are_held_out(tmp_path):
    fill(tmp_path, 40)
    data = FolderDataModule(root=tmp_path, resolution=8)
    assert names(data, "val") == ["00038.png", "00039.png"] == names(data, "test")
    assert len(names(data, "train")) == 38
    data = FolderDataModule(root=str(tmp_path), val_size=10, resolution=8)
    assert names(data, "val")[0] == "00030.png" and len(names(data, "train")) == 30


def test_one_folder_per_split(tmp_path):
    roots = {f"{split}_root": fill(tmp_path / split, 4, 10 * i) for i, split in enumerate(("train", "val", "test"))}
    data = FolderDataModule(**roots, resolution=8, batch_size=2)
    assert names(data, "train")[0] == "00000.png" and len(names(data, "train")) == 4
    assert names(data, "val")[0] == "00010.png" and names(data, "test")[0] == "00020.png"
    del roots["test_root"]
    assert names(FolderDataModule(**roots, val_size=3), "test") == ["00010.png", "00011.png", "00012.png"]


def test_only_training_images_are_flipped(tmp_path):
    for i in range(4):
        Image.fromarray(np.tile(np.arange(8, dtype=np.uint8) * 30, (8, 1))).save(fill(tmp_path, 0) / f"{i}.png")
    data = FolderDataModule(root=tmp_path, val_size=1, resolution=8, horizontal_flip=1.0)
    assert data.get("train")[0]["image"][0, 0, 0] > 0 > data.get("val")[0]["image"][0, 0, 0]


def test_bad_files_are_summarised_after_training(tmp_path, caplog):
    fill(tmp_path / "data", 12)
    (tmp_path / "data" / "00002.png").touch(exist_ok=True)
    (tmp_path / "data" / "00002.png").write_bytes(b"")
    (tmp_path / "data" / "00011.png").write_bytes(b"<html>")
    data = FolderDataModule(root=tmp_path / "data", val_size=3, resolution=8, batch_size=3, on_bad_image="replace")
    model = IndexRecorder()
    with caplog.at_level(logging.WARNING):
        trainer(tmp_path, limit_train_batches=3, max_epochs=1, limit_val_batches=1.0, val_check_interval=3,
                check_val_every_n_epoch=None).fit(model, datamodule=data)  # fmt: skip
    assert len(model.seen) == 9 and 2 not in model.seen
    assert model.validated == [0, 1], "validation leaves bad files out: a replacement would count twice"
    assert "1 unreadable train images: 00002.png" in caplog.text
    assert "1 unreadable val images: 00011.png" in caplog.text


def test_evaluation_skips_a_batch_without_readable_images(tmp_path):
    fill(tmp_path / "data", 6)
    (tmp_path / "data" / "00003.png").write_bytes(b"")
    data = FolderDataModule(
        root=tmp_path / "data", val_size=4, batch_size=1, val_batch_size=1, resolution=8, on_bad_image="skip"
    )
    model = IndexRecorder()
    trainer(tmp_path, limit_val_batches=1.0).validate(model, datamodule=data, verbose=False)
    assert model.validated == [0, 2, 3]
    assert len(data.panel_images(4)) == 3


def test_training_stops_at_a_batch_without_readable_images(tmp_path):
    fill(tmp_path, 4)
    for i in range(3):
        (tmp_path / f"{i:05d}.png").write_bytes(b"")
    data = FolderDataModule(root=tmp_path, val_size=1, batch_size=2, resolution=8, on_bad_image="skip")
    with pytest.raises(BadImage, match="no image of this training batch.*replace"):
        next(iter(data.train_dataloader()))


# -- checks before training --------------------------------------------------------------------------------------------


def setup_error(data: pl.LightningDataModule, stage: str = "fit") -> str:
    with pytest.raises(UserError) as error:
        data.setup(stage)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_missing_empty_and_small_folders(tmp_path):
    assert "no such folder" in setup_error(FolderDataModule(root=tmp_path / "none"))
    assert "no image" in setup_error(FolderDataModule(root=tmp_path))
    fill(tmp_path / "three", 3)
    message = setup_error(FolderDataModule(root=tmp_path / "three", val_size=1, batch_size=4))
    assert str(tmp_path / "three") in message and "got 2 training images" in message and "4 x 1 ranks = 4" in message
    assert "leaves none to train on" in setup_error(FolderDataModule(root=tmp_path / "three", val_size=3))
    assert "no folder for the train images" in setup_error(FolderDataModule(val_root=tmp_path / "three"))
    assert "no folder for the val images" in setup_error(FolderDataModule(), "validate")
    assert "got 3 images, expected 70000" in setup_error(
        FolderDataModule(root=tmp_path / "three", expected_images=70000)
    )
    FolderDataModule(val_root=tmp_path / "three").setup("validate")


def test_fewer_images_than_batch_times_ranks():
    assert "4 x 3 ranks = 12" in setup_error(as_rank(faces(batch_size=4), 0, 3))
    assert "got 5 val images for 6 ranks" in setup_error(as_rank(faces(batch_size=1), 0, 6))
    with pytest.raises(UserError, match="got 11 training images"):
        as_rank(faces(batch_size=4), 0, 3).train_dataloader()


@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_size": 0},
        {"batch_size": 2.5},
        {"val_batch_size": 0},
        {"num_workers": -1},
        {"seed": True},
        {"val_size": 0},
    ],
)
def test_bad_numbers_name_the_key(arguments):
    (key,) = arguments
    with pytest.raises(UserError, match=f"dataset.{key}="):
        faces(**arguments)


def test_bad_folder_arguments(tmp_path):
    with pytest.raises(UserError, match="expected one of them"):
        FolderDataModule(root=tmp_path, train_root=tmp_path)
    with pytest.raises(UserError, match="val_fraction=1.5"):
        FolderDataModule(root=tmp_path, val_fraction=1.5)
    with pytest.raises(UserError, match="split=dev: expected one of train, val, test"):
        faces().get("dev")


# -- config ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"_target_": "stylegan_inv.data.faces.FacesDataModule", "train_shuffle": False}, {"train_shuffle": False}),
        ({"_target_": "stylegan_inv.data.folders.FolderDataModule", "val_share": 0.2}, {"val_fraction": 0.2}),
        ({"_target_": "stylegan_inv.data.identities.PeopleDataModule", "pictures": 3}, {"images_per_person": 3}),
        ({"_target_": "stylegan_inv.data.tasks.Denoising", "share": 0.1}, {"fraction": 0.1}),
        ({"_target_": "stylegan_inv.data.cartoon.Cartoon", "steps": 5}, {"levels": 5}),
    ],
    ids=lambda value: value.get("_target_", "expected"),
)
def test_configs_of_version_0_1_build(config: dict, expected: dict) -> None:
    built = instantiate(OmegaConf.create(replace_old_names(config)))
    assert {name: getattr(built, name) for name in expected} == expected


@pytest.mark.parametrize("name", ["synthfaces", "folder", "ffhq", "celeba_hq"])
def test_config_files_build(tmp_path, name):
    import hydra

    root = [] if name == "synthfaces" else [f"dataset.root={tmp_path}"]
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = hydra.compose("train", overrides=[f"dataset={name}", "seed=5", *root])
        bare = hydra.compose("train", overrides=[f"dataset={name}", "seed=5"])
    data = hydra.utils.instantiate(cfg.dataset, _convert_="all")
    assert data.seed == 5 and data.batch_size == 8
    assert OmegaConf.is_missing(bare.dataset, "root") == (name != "synthfaces")


@pytest.mark.slow
def test_two_real_ranks(tmp_path):
    from tests.data.two_ranks import fit_rank

    processes = launch_ranks(fit_rank, tmp_path, log=tmp_path / "log")
    assert join(processes, 240) == [0, 0], (tmp_path / "log.0").read_text()
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert [i for pair in zip(ranks[0]["seen"], ranks[1]["seen"], strict=True) for i in pair] == expected(14)
    assert sorted(ranks[0]["validated"] + ranks[1]["validated"]) == list(range(5))
    assert ranks[0]["next"] == ranks[1]["next"] == 28


def test_death_of_a_worker_is_distinguished_from_other_connection_errors() -> None:
    batches = iter(DataLoader(torch.zeros(64, 3, 64, 64), batch_size=2, num_workers=1))
    next(batches)
    time.sleep(1)  # the next batches are in the queue, their shared memory is not yet mapped
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid or 0, signal.SIGKILL)
    worker.join()
    worker.is_alive = lambda: True  # type: ignore[method-assign]  # as under load, when the death is not yet known
    with pytest.raises(OSError) as raised:
        list(batches)
    assert is_worker_death(raised.value)
    assert not is_worker_death(ConnectionResetError())
