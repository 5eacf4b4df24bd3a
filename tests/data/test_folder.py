"""ImageDataset on a folder: a sample does not depend on the workers, and bad files are handled as configured."""

from __future__ import annotations

import itertools
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader

from stylegan_inv.data.datamodules.image_dataset import ImageDataset
from stylegan_inv.data.datamodules.sampler import DrawnIndex, ResumableSampler
from stylegan_inv.data.images.image_files import BadImage, read_image
from stylegan_inv.data.images.resizing import Geometry
from stylegan_inv.data.sources.folder_source import FolderSource
from stylegan_inv.errors import UserError

BAD = (3, 7)


def folder_dataset(root, resolution=256, *, mode="crop", files=None, **arguments):
    return ImageDataset(FolderSource(root, files), Geometry(resolution, mode), **arguments)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(10):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    return tmp_path


@pytest.fixture
def damaged(folder):
    (folder / "3.png").write_bytes(b"")
    (folder / "7.png").write_bytes((folder / "7.png").read_bytes()[:200])
    return folder


def test_sample(folder):
    item = folder_dataset(folder, 8)[4]
    assert set(item) == {"image", "index", "name"}
    assert (item["index"], item["name"]) == (4, "4.png")
    assert torch.equal(item["image"], read_image(folder / "4.png", 8))
    assert folder_dataset(folder, 8)[-1]["name"] == "9.png"
    with pytest.raises(IndexError):
        folder_dataset(folder, 8)[10]


def test_names_are_relative_and_files_can_be_listed(folder):
    (folder / "sub").mkdir()
    (folder / "4.png").rename(folder / "sub" / "4.png")
    assert "sub/4.png" in folder_dataset(folder, 8).names
    chosen = folder_dataset(folder, 8, files=[folder / "2.png", folder / "sub" / "4.png"])
    assert chosen.names == ["2.png", "sub/4.png"] and len(chosen) == 2
    with pytest.raises(UserError, match="empty list"):
        folder_dataset(folder, 8, files=[])


def test_flip_depends_on_seed_and_draw_only(folder):
    data = folder_dataset(folder, 16, horizontal_flip=0.5, seed=1)
    plain = folder_dataset(folder, 16)[2]["image"]
    flips = []
    for draw in range(400):
        image = data[DrawnIndex(2, draw)]["image"]
        flips.append(torch.equal(image, plain.flip(-1)))
        assert flips[-1] or torch.equal(image, plain)
    assert 150 < sum(flips) < 250  # 5 sigma around 200
    again = folder_dataset(folder, 16, horizontal_flip=0.5, seed=1)
    assert [torch.equal(again[DrawnIndex(2, d)]["image"], plain.flip(-1)) for d in reversed(range(400))] == flips[::-1]
    other = folder_dataset(folder, 16, horizontal_flip=0.5, seed=2)
    assert [torch.equal(other[DrawnIndex(2, d)]["image"], plain.flip(-1)) for d in range(400)] != flips
    assert all(torch.equal(folder_dataset(folder, 16, horizontal_flip=1.0)[d]["image"], plain.flip(-1)) for d in [2])


@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_workers_change_nothing_and_report_bad_images(damaged, policy):
    def run(workers):
        data = folder_dataset(damaged, 8, horizontal_flip=0.5, seed=4, on_bad_image=policy)
        loader = DataLoader(data, 5, sampler=ResumableSampler(10, 4), num_workers=workers)
        batches = list(itertools.islice(loader, 4))
        return batches, data.bad_images

    (alone, bad), (workers, bad_too) = run(0), run(2)
    assert bad == bad_too == ["3.png", "7.png"]
    for one, two in zip(alone, workers, strict=True):
        assert one["name"] == two["name"] and torch.equal(one["image"], two["image"])


def test_error_names_the_file_also_in_a_worker(damaged):
    with pytest.raises(BadImage, match=r"3\.png: empty file"):
        folder_dataset(damaged, 8)[3]
    try:
        folder_dataset(damaged, 8)[3]
    except BadImage:
        # The exception as a worker sends it. A real worker would take five seconds to shut down after an error.
        wrapper = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(BadImage) as error:
        wrapper.reraise()
    assert str(error.value).startswith(str(damaged / "3.png")) and "\n" not in str(error.value)


def test_skip_changes_no_other_sample(damaged, caplog):
    data = folder_dataset(damaged, 8, on_bad_image="skip")
    with caplog.at_level(logging.WARNING):
        items = data.__getitems__(list(range(10)))
        data.__getitems__(list(range(10)))
    assert [item["index"] for item in items] == [i for i in range(10) if i not in BAD]
    assert data.bad_images == ["3.png", "7.png"]
    assert len(caplog.records) == 2, "each file is named once, not in every epoch"
    assert data.__getitems__([3, 7]) == []
    with pytest.raises(BadImage, match="cannot be skipped"):
        data[3]


def test_replace_keeps_the_batch_size_and_reports_the_replacement(damaged):
    data = folder_dataset(damaged, 8, on_bad_image="replace", seed=9)
    items = data.__getitems__(list(range(10)))
    assert len(items) == 10
    for position, item in enumerate(items):
        assert item["index"] not in BAD and item["name"] == data.name(item["index"])
        assert torch.equal(item["image"], read_image(damaged / item["name"], 8))
        assert position in BAD or item["index"] == position
    again = folder_dataset(damaged, 8, on_bad_image="replace", seed=9)
    assert [again[i]["index"] for i in reversed(BAD)] == [items[i]["index"] for i in reversed(BAD)]
    assert len({folder_dataset(damaged, 8, on_bad_image="replace", seed=s)[3]["index"] for s in range(20)}) > 3


def test_replace_fails_if_all_images_are_bad(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").touch()
    with pytest.raises(BadImage, match=r"1\.png.*3 bad files so far: 0\.png, 1\.png, 2\.png"):
        folder_dataset(tmp_path, 8, on_bad_image="replace")[1]


def test_file_deleted_after_listing(folder):
    data = folder_dataset(folder, 8, on_bad_image="skip")
    (folder / "5.png").unlink()
    assert len(data.__getitems__([4, 5, 6])) == 2 and data.bad_images == ["5.png"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"resolution": 0}, "resolution=0"),
        ({"resolution": 64.0}, "resolution=64.0"),
        ({"horizontal_flip": 1.5}, "horizontal_flip=1.5"),
        ({"on_bad_image": "ignore"}, "on_bad_image=ignore: expected one of error, skip, replace"),
        ({"mode": "squash"}, "mode=squash"),
    ],
)
def test_bad_arguments(folder, arguments, message):
    with pytest.raises(UserError, match=message):
        folder_dataset(folder, **arguments)


def test_no_folder_and_no_images(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        folder_dataset(tmp_path / "none")
    with pytest.raises(UserError, match="no image"):
        folder_dataset(tmp_path)
