"""Cached SynthFaces: equal to images rendered on the fly, rendered once, and written atomically."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stylegan_inv.data.datamodules import cached_synthfaces as cache
from stylegan_inv.data.datamodules.cached_synthfaces import CachedSynthFaces, CachedSynthFacesDataModule
from stylegan_inv.data.synthfaces.dataset import SynthFaces
from stylegan_inv.errors import UserError


def test_equal_to_rendering_on_the_fly_and_rendered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = CachedSynthFaces(32, seed=0, size=5, start=3, root=tmp_path, chunk=2)
    rendered = SynthFaces(32, seed=0, size=5, start=3)
    for i, (a, b) in enumerate(zip(cached.__getitems__(range(5)), rendered.__getitems__(range(5)), strict=True)):
        assert torch.equal(a["image"], b["image"]) and torch.equal(a["normals"], b["normals"])
        assert a["index"] == b["index"] == i
    assert torch.equal(cached[-1]["image"], cached[4]["image"]) and len(cached) == 5
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 2 and not any("partial" in name for name in names)

    monkeypatch.setattr(cache.synthfaces_render, "render", lambda *_: pytest.fail("rendered again"))
    CachedSynthFaces(32, seed=0, size=5, start=3, root=tmp_path).render()
    monkeypatch.setattr(cache, "renderer_hash", lambda: "another renderer")
    other = CachedSynthFaces(32, seed=0, size=5, start=3, root=tmp_path / "new")
    assert not (tmp_path / "new").exists()  # nothing is rendered or written before an image is read
    with pytest.raises(pytest.fail.Exception):
        other[0]


def test_failed_rendering_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stylegan_inv.data.synthfaces import render as synthfaces_render

    def fail(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(synthfaces_render, "render", fail)
    with pytest.raises(KeyboardInterrupt):
        CachedSynthFaces(32, size=3, root=tmp_path)[0]
    assert list(tmp_path.iterdir()) == []


def test_data_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEGAN_INV_CACHE", str(tmp_path / "faces"))
    data = CachedSynthFacesDataModule(resolution=32, train_size=6, val_size=2, batch_size=2)
    data.setup("fit")
    assert isinstance(data.get("train"), CachedSynthFaces) and isinstance(data.get("val"), SynthFaces)
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (2, 3, 32, 32) and batch["normals"].shape == (2, 53)
    assert len(list((tmp_path / "faces").iterdir())) == 2
    with pytest.raises(UserError, match="dataset=synthfaces"):
        CachedSynthFacesDataModule(obstacles=0.5)
    with pytest.raises(UserError, match="size=0"):
        CachedSynthFaces(size=0, root=tmp_path)
