"""Datasets of pairs: folders matched by name, label maps, and SynthFaces."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from stylegan_inv.config import CONF_DIR, instantiate
from stylegan_inv.data.datamodules.folder_datamodule import FolderDataModule
from stylegan_inv.data.datamodules.image_dataset import Companion, ImageDataset
from stylegan_inv.data.datamodules.paired import PairedFolderDataModule, PairedSynthFacesDataModule
from stylegan_inv.data.images.image_files import read_image
from stylegan_inv.data.images.resizing import Geometry
from stylegan_inv.data.sources.opening import open_source
from stylegan_inv.data.synthfaces.dataset import SynthFaces
from stylegan_inv.data.tasks.frontalization import Frontalization
from stylegan_inv.data.tasks.label_maps import SegmentationToFace
from stylegan_inv.errors import UserError


def write(file: Path, levels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(levels.astype(np.uint8)).save(file)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Creates 12 targets of different colours in two folders, inverted sources, and label maps of 4 classes."""
    random = np.random.default_rng(0)
    for number in range(12):
        name, pixels = f"{number % 2}/{number}", random.integers(0, 256, (16, 16, 3))
        write(tmp_path / "targets" / f"{name}.png", pixels)
        write(tmp_path / "sources" / f"{name}.bmp", 255 - pixels)
        write(tmp_path / "labels" / f"{name}.png", (pixels[..., 0] // 64))
    return tmp_path


def module(folders: Path, sources: str = "images", folder: str = "sources", **kwargs: Any) -> PairedFolderDataModule:
    arguments = {"root": folders / "targets", "resolution": 16, "batch_size": 5, "val_size": 2, "horizontal_flip": 0.5}
    return PairedFolderDataModule(source_root=folders / folder, sources=sources, **{**arguments, **kwargs})


# -- folders -----------------------------------------------------------------------------------------------------------


def test_pairs_are_matched_by_name_and_flipped_together(folders: Path) -> None:
    data, flipped = module(folders), []
    for batch in itertools.islice(data.train_dataloader(), 4):
        torch.testing.assert_close(batch["source"], -batch["image"])
        for name, image in zip(batch["name"], batch["image"], strict=True):
            file = read_image(folders / "targets" / name)
            flipped.append(torch.equal(image, file.flip(-1)))
            assert flipped[-1] or torch.equal(image, file)
    assert 3 < sum(flipped) < 17
    held_out = next(iter(data.val_dataloader()))
    assert len(held_out["image"]) == 2 and torch.equal(data.panel_batch(2)["source"], held_out["source"])


def test_label_maps_are_read_as_classes(folders: Path) -> None:
    data = module(folders, "labels", "labels", task=SegmentationToFace(4))
    for batch in itertools.islice(data.train_dataloader(), 3):
        red = ((batch["image"][:, 0] + 1) * 127.5).round().long()
        assert batch["label"].dtype == torch.int64 and torch.equal(batch["label"], red // 64)
        assert torch.equal(batch["source"].argmax(1), batch["label"])


def test_label_maps_of_another_size_keep_whole_classes(tmp_path: Path) -> None:
    levels = np.zeros((24, 32))
    levels[:, 16:] = 7
    write(tmp_path / "a.png", levels)
    source = open_source(tmp_path)
    item = ImageDataset(source, Geometry(8), companions={"label": Companion(source, "label")})[0]
    assert torch.equal(item["label"], torch.tensor([[0] * 4 + [7] * 4] * 8))


def test_pair_with_a_bad_file_is_skipped_or_replaced_as_a_whole(folders: Path) -> None:
    (folders / "sources/0/4.bmp").write_bytes(b"")
    with pytest.raises(UserError, match=r"sources/0/4\.bmp: empty file"):
        module(folders, val_size=1).get("train").__getitems__(range(11))
    skipped = module(folders, on_bad_image="skip", val_size=1).get("train").__getitems__(range(11))
    assert len(skipped) == 10 and all(torch.allclose(item["source"], -item["image"], atol=1e-6) for item in skipped)
    replaced = module(folders, on_bad_image="replace", val_size=1).get("train").__getitems__(range(11))
    assert len(replaced) == 11 and all(torch.allclose(item["source"], -item["image"], atol=1e-6) for item in replaced)


def test_masks_follow_their_images_and_validation_has_its_own_or_none(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(6):
        row, column = np.mgrid[:32, :48]
        shape = (row * random.normal() + column * random.normal() > 10 * random.normal()) * 255
        write(tmp_path / f"images/a/{number}.png", np.stack([shape // 2, shape, shape * 0], -1))
        write(tmp_path / f"masks/a/{number}.bmp", shape)
    common = {"root": tmp_path / "images", "resolution": 16, "batch_size": 4, "horizontal_flip": 0.5}
    data = FolderDataModule(**common, mask_root=tmp_path / "masks", val_size=2)
    for loader in (data.train_dataloader(), data.val_dataloader()):
        batch = next(iter(loader))
        assert batch["mask"].shape == (len(batch["image"]), 1, 16, 16) and batch["mask"].max() <= 1
        torch.testing.assert_close(batch["mask"][:, 0] * 2 - 1, batch["image"][:, 1], rtol=0, atol=0.02)
    apart = {"val_root": tmp_path / "images/a", "mask_root": str(tmp_path / "masks")}
    data = FolderDataModule(**common, **apart)
    assert "mask" not in data.get("val")[0] and "mask" in data.get("train")[0] and len(data.get("train")) == 6
    data = FolderDataModule(**common, **apart, val_mask_root=tmp_path / "masks/a")
    assert "mask" in data.get("val")[3]


def test_invalid_masks(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / f"images/{number}.png", np.full((16, 16, 3), 9))
        write(tmp_path / f"masks/{number}.png", np.full((16, 16), 255))
    data = {"root": tmp_path / "images", "mask_root": tmp_path / "masks", "resolution": 16, "val_size": 1}
    write(tmp_path / "masks/1.png", np.full((16, 8), 255))
    with pytest.raises(UserError, match=r"masks/1\.png: 8 x 16 px belong to an image of 16 x 16 px"):
        FolderDataModule(**data).get("train")[1]
    write(tmp_path / "masks/2.png", np.eye(16))
    with pytest.raises(UserError, match=r"masks/2\.png: a mask with the levels 0 and 1 of 255"):
        FolderDataModule(**data).get("train")[2]
    (tmp_path / "masks/2.png").unlink()
    with pytest.raises(UserError, match=r"masks: no mask for 1 of 3 train images of .*images: 2; expected files"):
        FolderDataModule(**data).setup("fit")
    with pytest.raises(UserError, match="absent: no such folder"):
        FolderDataModule(**{**data, "mask_root": tmp_path / "absent"}).setup("fit")


def test_split_in_mask_root_is_replaced(tmp_path: Path) -> None:
    for split, level in (("train", 0), ("val", 255)):
        write(tmp_path / split / "0.png", np.full((8, 8, 3), 9))
        write(tmp_path / "labels" / split / "0.png", np.full((8, 8), level))
    data = FolderDataModule(
        root=tmp_path / "train", val_root=tmp_path / "val", label_root=f"{tmp_path}/labels/{{split}}", resolution=8
    )
    assert data.get("train")[0]["label"].max() == 0 and data.get("val")[0]["label"].min() == 255


# -- SynthFaces --------------------------------------------------------------------------------------------------------


def test_target_is_the_frontal_view_of_the_same_face() -> None:
    data = PairedSynthFacesDataModule(
        resolution=32, val_size=4, train_size=8, batch_size=4, target_overrides={"yaw": 0, "pitch": 0}
    )
    for split, seed in (("train", 0), ("val", 1)):
        items = data.get(split).__getitems__([0, 3])  # type: ignore[attr-defined]
        for item, index in zip(items, (0, 3), strict=True):
            assert torch.equal(item["source"], SynthFaces(32, seed)[index]["image"])
            front = SynthFaces(32, seed, overrides={"yaw": 0, "pitch": 0})[index]
            assert torch.equal(item["image"], front["image"]) and torch.equal(item["mask"], front["mask"])
            assert item["index"] == index and not torch.equal(item["source"], item["image"])


def test_frontalization_trains_without_pairs_and_validates_with_pairs() -> None:
    data = PairedSynthFacesDataModule(
        resolution=32, val_size=4, train_size=8, batch_size=8, paired_training=False, task=Frontalization(),
        target_overrides={"yaw": 0, "pitch": 0},
    )  # fmt: skip
    batch = next(iter(data.train_dataloader()))
    for index, image, source in zip(batch["index"].tolist(), batch["image"], batch["source"], strict=True):
        face = SynthFaces(32, 0)[index]["image"]
        for seen in (image, source):
            assert torch.equal(seen, face) or torch.equal(seen, face.flip(-1))
    held_out = next(iter(data.val_dataloader()))
    assert torch.equal(held_out["source"][2], SynthFaces(32, 1)[2]["image"])
    assert torch.equal(held_out["image"][2], SynthFaces(32, 1, overrides={"yaw": 0, "pitch": 0})[2]["image"])


def test_obstacles_cover_the_source_only() -> None:
    data = PairedSynthFacesDataModule(resolution=32, obstacles=1.0, target_obstacles=0.0, batch_size=4, val_size=4)
    batch = next(iter(data.val_dataloader()))
    covered = SynthFaces(32, 1, obstacles=1.0)
    assert batch["obstacle"].sum() == 0
    for row in range(4):
        free = 1 - covered[row]["obstacle"].ceil()
        assert torch.equal(batch["source"][row] * free, batch["image"][row] * free)
        assert not torch.equal(batch["source"][row], batch["image"][row])
    with pytest.raises(UserError, match="yow"):
        PairedSynthFacesDataModule(target_overrides={"yow": 0})


@pytest.mark.parametrize("name", ["synthfaces_paired", "paired"])
def test_config_files_build(name: str, folders: Path) -> None:
    pairs = [f"dataset.root={folders}/targets", f"dataset.source_root={folders}/sources"]
    roots = [] if name == "synthfaces_paired" else pairs
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        cfg = compose("train", overrides=[f"dataset={name}", "dataset.val_size=2", "dataset.num_workers=0", *roots])
    batch = next(iter(instantiate(cfg.dataset).val_dataloader()))
    assert batch["source"].shape == batch["image"].shape and not torch.equal(batch["source"], batch["image"])
