"""DataModules of the papers' datasets: their splits, their geometry, and invalid input."""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from torch.utils.data import DataLoader

from stylegan_inv.config import CONF_DIR, instantiate
from stylegan_inv.data.datamodules.afhq import AFHQDataModule
from stylegan_inv.data.datamodules.cars import CarsDataModule
from stylegan_inv.data.datamodules.celeba_hq import CelebAHQDataModule, FFHQCelebAHQDataModule
from stylegan_inv.data.datamodules.folder_datamodule import FolderDataModule
from stylegan_inv.data.datamodules.image_dataset import ImageDataset
from stylegan_inv.data.datamodules.lsun import LSUNDataModule
from stylegan_inv.data.datamodules.sampler import EvaluationSampler
from stylegan_inv.data.images.decoding import EXACT, FAST
from stylegan_inv.data.images.image_files import read_image
from stylegan_inv.data.images.resizing import Geometry
from stylegan_inv.data.sources.opening import open_source
from stylegan_inv.errors import UserError
from tests.data.test_datamodule import as_rank
from tests.data.test_sources import encoded_image


def fill(folder: Path, names: Any, size: tuple[int, int] = (8, 8)) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (number % 256, 7, 9)).save(path)
    return folder


def numbered(count: int) -> list[str]:
    return [f"{number:05d}.png" for number in range(count)]


def sizes(data: FolderDataModule) -> list[int]:
    return [len(data.get(split)) for split in ("train", "val", "test")]  # type: ignore[arg-type]


# -- datasets ----------------------------------------------------------------------------------------------------------


def test_train_on_ffhq_and_test_on_celeba_hq(tmp_path: Path) -> None:
    fill(tmp_path / "ffhq", numbered(7))
    for split, count in (("train", 4), ("val", 3), ("test", 2)):
        fill(tmp_path / "celeba" / split, [f"{split}{n}.jpg" for n in range(count)])
    arguments = {"root": tmp_path / "ffhq", "celeba_hq_root": tmp_path / "celeba", "resolution": 8}
    data = FFHQCelebAHQDataModule(**arguments, check_sizes=False)
    assert sizes(data) == [7, 2, 2] and data.get("val").names == ["test0.jpg", "test1.jpg"]
    assert data.where("train").endswith("ffhq") and data.where("test").endswith("celeba/test")
    assert sizes(FFHQCelebAHQDataModule(**arguments, check_sizes=False, validation_split="val", val_size=1)) == [
        7,
        1,
        2,
    ]
    with pytest.raises(UserError, match="got 2 test images, expected the 2824"):
        FFHQCelebAHQDataModule(**arguments).get("val")
    with pytest.raises(UserError, match="got 7 images, expected 70000"):
        FFHQCelebAHQDataModule(**arguments, expected_images=70000).get("train")
    with pytest.raises(UserError, match="validation_split=all"):
        FFHQCelebAHQDataModule(**arguments, validation_split="all")


def test_celeba_hq_in_archives(tmp_path: Path) -> None:
    import zipfile

    for split, count in (("train", 4), ("val", 3), ("test", 2)):
        with zipfile.ZipFile(tmp_path / f"{split}.zip", "w") as archive:
            for number in range(count):
                archive.writestr(f"{number}.png", encoded_image(number))
    assert sizes(CelebAHQDataModule(root=tmp_path, resolution=8, check_sizes=False)) == [4, 3, 2]


def test_afhq_by_domain(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("val", 2)):
        fill(tmp_path / split, [f"{domain}/{n}.jpg" for domain in ("cat", "dog", "wild") for n in range(count)])
    data = AFHQDataModule(root=tmp_path, animals=["wild", "cat"], resolution=8, check_sizes=False)
    assert sizes(data) == [6, 4, 4] and {name.split("/")[0] for name in data.get("test").names} == {"cat", "wild"}
    for version, size in ((1, 4738), (2, 4593)):
        with pytest.raises(UserError, match=f"got 3 train images, expected the {size}"):
            AFHQDataModule(root=tmp_path, animals="wild", version=version).get("train")
    with pytest.raises(UserError, match=r"animals=\['bird'\]: expected some of cat, dog, wild"):
        AFHQDataModule(root=tmp_path, animals=["bird"])


def test_cars_fill_rows_32_to_223_of_256(tmp_path: Path) -> None:
    fill(tmp_path / "cars_train", numbered(3), (400, 300))
    fill(tmp_path / "cars_test", numbered(2), (500, 300))
    arguments = {"root": tmp_path, "check_sizes": False}
    data = CarsDataModule(**arguments)
    item = data.get("train")[1]
    assert item["image"].shape == (3, 256, 256) and item["mask"].shape == (1, 256, 256)
    inside = torch.zeros(256, 256, dtype=torch.bool)
    inside[32:224] = True
    assert torch.equal(item["mask"][0] > 0, inside) and (item["image"][:, ~inside] == -1).all()
    assert torch.allclose(item["image"][:, 40:200, 9].mean(1), torch.tensor([1, 7, 9]) / 127.5 - 1, atol=1e-6)
    assert sizes(data) == [3, 2, 2]
    bare = CarsDataModule(**arguments, bars=False).get("test")[0]
    assert bare["image"].shape == (3, 192, 256) and "mask" not in bare
    with pytest.raises(UserError, match="got 3 train images, expected the 8144"):
        CarsDataModule(root=tmp_path).get("train")
    with pytest.raises(UserError, match="a resolution that 4 divides"):
        CarsDataModule(**arguments, resolution=66)


def test_lsun_as_it_is_distributed(tmp_path: Path) -> None:
    for name, count in (("church_outdoor_train_lmdb", 5), ("church_outdoor_val_lmdb", 2), ("cat", 10)):
        with lmdb.open(str(tmp_path / name), map_size=1 << 22) as environment, environment.begin(write=True) as write:
            for number in range(count):
                write.put(f"{number:040x}".encode(), encoded_image(number, kind="WEBP"))
    assert sizes(LSUNDataModule(root=tmp_path, category="church_outdoor", resolution=8)) == [5, 2, 2]
    assert sizes(LSUNDataModule(root=tmp_path, category="cat", val_size=3, resolution=8)) == [7, 3, 3]
    with pytest.raises(UserError, match="neither horse_train_lmdb nor horse_lmdb"):
        LSUNDataModule(root=tmp_path, category="horse")


@pytest.mark.parametrize("name", ["afhq", "cars", "ffhq_celeba_hq", "lsun", "celeba_hq", "ffhq", "folder"])
def test_config_files_build(name: str, tmp_path: Path) -> None:
    fill(tmp_path / "church_outdoor_train", numbered(1))
    given = {"root": str(tmp_path), "celeba_hq_root": str(tmp_path)}
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        bare = compose("train", overrides=[f"dataset={name}"])
        missing = sorted(key for key in bare.dataset if OmegaConf.is_missing(bare.dataset, key))
        cfg = compose("train", overrides=[f"dataset={name}", *(f"dataset.{key}={given[key]}" for key in missing)])
    assert "root" in missing
    assert instantiate(cfg.dataset).resolution == 256


# -- splits ------------------------------------------------------------------------------------------------------------


def test_lists_of_names_define_splits_and_order(tmp_path: Path) -> None:
    fill(tmp_path / "images", numbered(6))
    lists = {"train": ["00005.png", "00000.png", "00002"], "val": ["00001.png"]}
    (tmp_path / "splits.json").write_text(json.dumps(lists))
    data = FolderDataModule(root=tmp_path / "images", splits=tmp_path / "splits.json", resolution=8)
    assert data.get("train").names == ["00005.png", "00000.png", "00002.png"] and data.get("val").names == ["00001.png"]
    with pytest.raises(UserError, match="has no split test; got train, val"):
        data.get("test")
    (tmp_path / "lists").mkdir()
    for split, names in lists.items():
        (tmp_path / "lists" / f"{split}.txt").write_text("\n".join(names))
    assert (
        FolderDataModule(root=tmp_path / "images", splits=tmp_path / "lists").get("train").names
        == data.get("train").names
    )


@pytest.mark.parametrize(
    "lists, message",
    [
        ({"train": ["00000.png", "none.png", "gone.png"]}, "no image for 2 of 3 train images named in .*: none, gone;"),
        ({"train": ["00000.png", "00000.png"]}, "1 of 2 train images occur twice: 00000.png"),
        ({"train": ["00000.png"], "val": ["00000.png"]}, "1 images are in both val and train: 00000.png"),
        ({"train": ["../00000.png"]}, "leads out of a folder"),
        ({"train": "00000.png"}, "expected .*names"),
        ([], "expected .*names"),
    ],
)
def test_invalid_lists(tmp_path: Path, lists: Any, message: str) -> None:
    fill(tmp_path / "images", numbered(2))
    (tmp_path / "splits.json").write_text(json.dumps(lists))
    with pytest.raises(UserError, match=message) as error:
        FolderDataModule(root=tmp_path / "images", splits=tmp_path / "splits.json").setup("fit")
    assert "\n" not in str(error.value)


def test_no_person_is_in_two_splits(tmp_path: Path) -> None:
    people = [number * 7 % 5 for number in range(30)]
    fill(tmp_path / "images", numbered(30))
    (tmp_path / "identity.txt").write_text("".join(f"{n:05d}.jpg {person}\n" for n, person in enumerate(people)))
    data = FolderDataModule(root=tmp_path / "images", identities=tmp_path / "identity.txt", val_size=8, resolution=8)
    who = [{people[int(name[:5])] for name in data.get(split).names} for split in ("train", "val")]
    assert who == [{0, 1, 2}, {3, 4}] and sizes(data) == [18, 12, 12]
    fill(tmp_path / "folders", [f"p{person}/{n}.png" for person in (1, 2, 10) for n in range(3)])
    data = FolderDataModule(root=tmp_path / "folders", identities="folder", val_size=2, resolution=8)
    assert {name.split("/")[0] for name in data.get("val").names} == {"p10"}
    with pytest.raises(UserError, match="leaves none to train on"):
        FolderDataModule(root=tmp_path / "images", identities="folder").get("train")
    (tmp_path / "identity.txt").write_text("00000.jpg 1\n")
    with pytest.raises(UserError, match="names no person for 29 of 30 images: 00001.png"):
        FolderDataModule(root=tmp_path / "images", identities=tmp_path / "identity.txt").get("train")
    with pytest.raises(UserError, match="no classes"):
        FolderDataModule(root=tmp_path / "images", identities="classes").get("train")
    with pytest.raises(UserError, match="more than one of splits, identities and val_root"):
        FolderDataModule(root=tmp_path, identities="folder", val_root=tmp_path)


# -- geometry ----------------------------------------------------------------------------------------------------------


def test_geometry_matches_pillow(tmp_path: Path) -> None:
    """Results differ by at most one level, and not at all on processors with AVX2, also for odd margins."""
    rng = np.random.default_rng(0)
    for width, height in ((61, 40), (40, 61), (50, 50), (300, 31)):
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        side = min(width, height)
        box = ((width - side) // 2, (height - side) // 2)
        cut = image.crop((*box, box[0] + side, box[1] + side)).resize((24, 24), Image.Resampling.BILINEAR)
        stretched = image.resize((24, 24), Image.Resampling.BILINEAR)
        for mode, want in (("crop", cut), ("stretch", stretched)):
            got = Geometry(24, mode).apply(pixels).permute(1, 2, 0).numpy()  # type: ignore[arg-type]
            assert np.abs(got.astype(int) - np.asarray(want, dtype=int)).max() <= 1


def test_box_is_in_pixels_of_the_file(tmp_path: Path) -> None:
    levels = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    Image.fromarray(levels).save(tmp_path / "a.png")
    source = open_source(tmp_path)
    item = ImageDataset(source, Geometry(8, box=(3, 5, 11, 13)))[0]
    assert torch.equal(item["image"], read_image(tmp_path / "a.png")[:, 5:13, 3:11])
    with pytest.raises(UserError, match=r"a.png: box=\[3, 5, 40, 13\] exceeds an image of 30 x 20 px"):
        ImageDataset(source, Geometry(8, box=(3, 5, 40, 13)))[0]
    for bad in ((3, 5, 3, 9), (-1, 0, 5, 5), (1, 2, 3)):
        with pytest.raises(UserError, match="expected left, top, right and bottom"):
            Geometry(8, box=bad)  # type: ignore[arg-type]


def test_fast_decoding_is_close_to_exact_decoding(tmp_path: Path) -> None:
    y, x = np.mgrid[:512, :512]
    level = (127 + 60 * np.sin(x / 9.0) + 60 * np.cos(y / 7.0)).astype(np.uint8)
    Image.fromarray(np.stack([level] * 3, -1)).save(tmp_path / "a.jpg", quality=95)
    exact, fast = (
        ImageDataset(open_source(tmp_path), Geometry(128), margin=margin)[0]["image"] for margin in (EXACT, FAST)
    )
    assert torch.equal(exact, read_image(tmp_path / "a.jpg", 128)) and not torch.equal(exact, fast)
    assert (exact - fast).abs().mean() * 127.5 < 1
    data = FolderDataModule(root=tmp_path, val_root=tmp_path, resolution=128, horizontal_flip=0)
    assert torch.equal(data.get("train")[0]["image"], fast) and torch.equal(data.get("val")[0]["image"], exact)


# -- invalid input -----------------------------------------------------------------------------------------------------


def test_small_images_are_logged_once_counted_or_refused(tmp_path: Path, caplog) -> None:
    fill(tmp_path, numbered(3), (12, 9))
    data = FolderDataModule(root=tmp_path, val_size=1, resolution=18)
    with caplog.at_level(logging.WARNING):
        assert len(data.get("train").__getitems__([0, 1])) == 2
    (message,) = [record.getMessage() for record in caplog.records]
    assert "00000.png: 12 x 9 px, fewer than the requested 18 x 18: enlarged 2 times" in message and "\n" not in message
    assert data.get("train").small_images == ["00000.png", "00001.png"]
    refusing = FolderDataModule(root=tmp_path, val_size=1, resolution=18, on_small_image="refuse")
    with pytest.raises(UserError, match="fewer than the requested 18 x 18; give a smaller dataset.resolution"):
        refusing.get("train")[0]
    with pytest.raises(UserError, match="on_small_image=x: expected one of enlarge, refuse"):
        FolderDataModule(root=tmp_path, val_size=1, resolution=8, on_small_image="x").get("train")  # type: ignore[arg-type]


def test_no_workers_and_more_ranks_than_images(tmp_path: Path) -> None:
    fill(tmp_path, numbered(5))
    data = FolderDataModule(root=tmp_path, val_size=2, resolution=8, batch_size=1, num_workers=0)
    assert len(next(iter(data.train_dataloader()))["image"]) == 1
    with pytest.raises(UserError, match="got 3 training images, expected at least one batch: 1 x 4 ranks = 4"):
        as_rank(FolderDataModule(root=tmp_path, val_size=2, resolution=8, batch_size=1), 0, 4).setup("fit")
    with pytest.raises(UserError, match="got 2 val images for 3 ranks, expected at least one a rank"):
        as_rank(FolderDataModule(root=tmp_path, val_size=2, resolution=8, batch_size=1), 0, 3).setup("fit")
    with pytest.raises(UserError, match="num_workers=-1: expected a whole number of at least 0"):
        FolderDataModule(root=tmp_path, num_workers=-1)


BROKEN: dict[str, Callable[[Path], object]] = {
    "empty.png": lambda path: path.write_bytes(b""),
    "text.jpg": lambda path: path.write_text("not an image"),
    "cut.png": lambda path: path.write_bytes(encoded_image(1, 32)[:200]),
    "huge.png": lambda path: Image.new("1", (20000, 20000)).save(path),
}
ODD: dict[str, Callable[[Path], object]] = {
    "cmyk.jpg": lambda path: Image.new("CMYK", (16, 16), (0, 255, 0, 0)).save(path),
    "deep.png": lambda path: Image.fromarray(np.full((16, 16), 30000, np.uint16)).save(path),
    "alpha.png": lambda path: Image.new("RGBA", (16, 16), (9, 9, 9, 0)).save(path),
    "grey.png": lambda path: Image.new("L", (16, 16), 9).save(path),
}


@pytest.mark.parametrize("policy", ["error", "skip", "replace"])
def test_bad_and_unusual_files_in_one_folder(tmp_path: Path, policy: Any) -> None:
    fill(tmp_path, numbered(6))
    for name, write in {**BROKEN, **ODD}.items():
        write(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image by its name")
    data = ImageDataset(open_source(tmp_path), Geometry(8), on_bad_image=policy, seed=3)
    bad = [index for index, name in enumerate(data.names) if name in BROKEN]
    if policy == "error":
        for index in bad:
            with pytest.raises(UserError, match=data.names[index]):
                data[index]
        return
    items = data.__getitems__(range(len(data)))
    assert len(data) == 14 and sorted(data.bad_images) == sorted(BROKEN)
    assert len(items) == (10 if policy == "skip" else 14)
    if policy == "skip":
        assert [item["index"] for item in items] == [index for index in range(14) if index not in bad]
    else:
        assert all((item["index"] == position) == (position not in bad) for position, item in enumerate(items))


# -- memory ------------------------------------------------------------------------------------------------------------


def test_memory_and_open_files_stay_constant_over_epochs(tmp_path: Path) -> None:
    """Measured from the second epoch on; keeping the pixels of each image, 48 kB, would take 35 MB."""
    fill(tmp_path / "images", numbered(60), (128, 128))
    data = ImageDataset(open_source(tmp_path / "images"), Geometry(64))
    seen = []
    for _ in range(6):
        loader = DataLoader(data, 10, sampler=EvaluationSampler(60), num_workers=0)
        for _ in itertools.repeat(None, 3):
            assert sum(len(batch["image"]) for batch in loader) == 60
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # releases the heap memory of earlier tests
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        seen.append((pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))))
    assert seen[-1][0] - seen[1][0] < 10 << 20 and seen[-1][1] == seen[1][1]
