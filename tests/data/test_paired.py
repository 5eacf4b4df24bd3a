"""Pairs: of folders by name, of label maps, and of SynthFaces with itself."""

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
from stylegan_inv.data.images import read_image
from stylegan_inv.data.paired import LabelMaps, PairedFacesDataModule, PairedFolderDataModule
from stylegan_inv.data.synthfaces import SynthFaces
from stylegan_inv.data.tasks import Frontalization, SegmentationToFace
from stylegan_inv.errors import UserError


def write(file: Path, levels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(levels.astype(np.uint8)).save(file)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """12 targets in two folders, all of different colours, with inverted sources, and label maps of 4 classes."""
    random = np.random.default_rng(0)
    for number in range(12):
        name, picture = f"{number % 2}/{number}", random.integers(0, 256, (16, 16, 3))
        write(tmp_path / "targets" / f"{name}.png", picture)
        write(tmp_path / "sources" / f"{name}.bmp", 255 - picture)
        write(tmp_path / "labels" / f"{name}.png", (picture[..., 0] // 64))
    return tmp_path


def module(folders: Path, sources: str = "images", folder: str = "sources", **kwargs: Any) -> PairedFolderDataModule:
    arguments = {"root": folders / "targets", "resolution": 16, "batch_size": 5, "val_size": 2, "horizontal_flip": 0.5}
    return PairedFolderDataModule(source_root=folders / folder, sources=sources, **{**arguments, **kwargs})


# -- folders -----------------------------------------------------------------------------------------------------------


def test_pairs_are_matched_by_name_and_mirrored_together(folders: Path) -> None:
    data, mirrored = module(folders), []
    for batch in itertools.islice(data.train_dataloader(), 4):
        torch.testing.assert_close(batch["source"], -batch["image"])
        for name, image in zip(batch["name"], batch["image"], strict=True):
            file = read_image(folders / "targets" / name)
            mirrored.append(torch.equal(image, file.flip(-1)))
            assert mirrored[-1] or torch.equal(image, file)
    assert 3 < sum(mirrored) < 17
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
    (label,) = (item["image"] for item in LabelMaps(tmp_path, 8).__getitems__([0]))
    assert torch.equal(label, torch.tensor([[0] * 4 + [7] * 4] * 8))


def test_what_pairs_refuse(folders: Path) -> None:
    with pytest.raises(UserError, match="sources='maps': expected images or labels"):
        module(folders, sources="maps")
    with pytest.raises(UserError, match="half a pair can neither be replaced"):
        module(folders, on_bad_image="replace")
    with pytest.raises(UserError, match=r"a coloured picture, expected a grey one"):
        module(folders, "labels").get("val")[0]
    (folders / "sources/1/11.bmp").unlink()
    with pytest.raises(UserError, match=r"no source for 1 of 2 val images of .*targets: 1/11; expected"):
        module(folders).setup("fit")
    write(folders / "sources/1/9.png", np.zeros((4, 4)))
    with pytest.raises(UserError, match=r"two sources of one name, 9"):
        module(folders).setup("fit")


# -- SynthFaces --------------------------------------------------------------------------------------------------------


def test_the_target_is_the_same_face_from_the_front() -> None:
    data = PairedFacesDataModule(
        resolution=32, val_size=4, train_size=8, batch_size=4, target_overrides={"yaw": 0, "pitch": 0}
    )
    for split, seed in (("train", 0), ("val", 1)):
        items = data.get(split).__getitems__([0, 3])  # type: ignore[attr-defined]
        for item, index in zip(items, (0, 3), strict=True):
            assert torch.equal(item["source"], SynthFaces(32, seed)[index]["image"])
            front = SynthFaces(32, seed, overrides={"yaw": 0, "pitch": 0})[index]
            assert torch.equal(item["image"], front["image"]) and torch.equal(item["mask"], front["mask"])
            assert item["index"] == index and not torch.equal(item["source"], item["image"])


def test_frontalisation_learns_without_pairs_and_is_measured_with_them() -> None:
    data = PairedFacesDataModule(
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


def test_obstacles_cover_the_source_alone() -> None:
    data = PairedFacesDataModule(resolution=32, obstacles=1.0, target_obstacles=0.0, batch_size=4, val_size=4)
    batch = next(iter(data.val_dataloader()))
    covered = SynthFaces(32, 1, obstacles=1.0)
    assert batch["obstacle"].sum() == 0
    for row in range(4):
        free = 1 - covered[row]["obstacle"].ceil()
        assert torch.equal(batch["source"][row] * free, batch["image"][row] * free)
        assert not torch.equal(batch["source"][row], batch["image"][row])
    with pytest.raises(UserError, match="yow"):
        PairedFacesDataModule(target_overrides={"yow": 0})


@pytest.mark.parametrize("name", ["synthfaces_paired", "folder_paired"])
def test_config_files_build(name: str, folders: Path) -> None:
    pairs = [f"dataset.root={folders}/targets", f"dataset.source_root={folders}/sources"]
    roots = [] if name == "synthfaces_paired" else pairs
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        cfg = compose("train", overrides=[f"dataset={name}", "dataset.val_size=2", "dataset.num_workers=0", *roots])
    batch = next(iter(instantiate(cfg.dataset).val_dataloader()))
    assert batch["source"].shape == batch["image"].shape and not torch.equal(batch["source"], batch["image"])
