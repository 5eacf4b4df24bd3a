"""The splits of CelebA-HQ, by folders and by the official list."""

from __future__ import annotations

from pathlib import Path

from stylegan_inv.data.datamodules.celeba_hq import CelebAHQDataModule
from tests.data.test_datamodule import fill, setup_error


def celeba(root: Path, **kwargs) -> CelebAHQDataModule:
    return CelebAHQDataModule(root=root, resolution=8, batch_size=1, check_sizes=False, **kwargs)


def test_celeba_hq_by_folders(tmp_path):
    for i, split in enumerate(("train", "val", "test")):
        fill(tmp_path / split, 2 + i)
    assert [len(celeba(tmp_path).get(split)) for split in ("train", "val", "test")] == [2, 3, 4]
    assert len(celeba(tmp_path, val_size=1).get("val")) == 1
    strict = CelebAHQDataModule(root=tmp_path)
    assert "got 2 train images, expected the 24183" in setup_error(strict)
    assert "expected the 2824" in setup_error(strict, "test")


def test_celeba_hq_by_mapping_file(tmp_path):
    fill(tmp_path / "CelebA-HQ-img", 6, name="{}.jpg")
    fill(tmp_path / "CelebAMask-HQ-mask-anno" / "0", 2, name="{:05d}_hair.png")
    originals = [119613, 162770, 162771, 182637, 182638, 202598]
    lines = ["idx         orig_idx  orig_file"] + [f"{i}  {o}  {o + 1:06d}.jpg" for i, o in enumerate(originals)]
    (tmp_path / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(lines) + "\n")
    data = celeba(tmp_path)
    got = {split: [Path(name).stem for name in data.get(split).names] for split in ("train", "val", "test")}
    assert got == {"train": ["0", "1"], "val": ["2", "3"], "test": ["4", "5"]}
    elsewhere = tmp_path / "map.txt"
    (tmp_path / "CelebA-HQ-to-CelebA-mapping.txt").rename(elsewhere)
    assert len(celeba(tmp_path, mapping=elsewhere).get("test")) == 2
    assert "neither the folder train/ nor CelebA-HQ-to-CelebA-mapping.txt" in setup_error(celeba(tmp_path))
    elsewhere.write_text("\n".join(lines[:3]) + "\nnonsense here\n")
    assert "line 4: got 'nonsense here'" in setup_error(celeba(tmp_path, mapping=elsewhere))
