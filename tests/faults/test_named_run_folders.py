"""A training in a folder that the user names: nothing of the user's, or of another run, is replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image

from stylegan_inv import train
from stylegan_inv.config import CONF_DIR
from stylegan_inv.data.datamodules.folder_datamodule import FolderDataModule
from stylegan_inv.errors import UserError
from stylegan_inv.report import __main__ as report
from stylegan_inv.runtime.run_folder import RunFolder
from stylegan_inv.runtime.run_location import select_location
from stylegan_inv.runtime.same_command import command_hash
from tests.cli import error_of
from tests.fake_run import make_run
from tests.reported_run import make_run as make_reported_run


def config(*overrides: str) -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        return compose("train", ["method=restyle", "paths.run_dir=new", *overrides])


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def last(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("first") / "run") / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("name", ["metrics.csv", "config.yaml", "checkpoints/mine.pt", "panels/a.png", ".hydra/a.yaml"])
@pytest.mark.parametrize("continued", [False, True])
def test_files_of_the_user(tmp_path: Path, last: Path, name: str, continued: bool) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    cfg = config(*([f"ckpt_path='{last}'"] if continued else []))
    with pytest.raises(UserError, match=f"holds {name.partition('/')[0]}, which no training has written"):
        select_location(cfg, tmp_path, named=True)
    assert (tmp_path / name).read_text() == "mine"


def test_files_of_hydra_that_a_training_has_made(tmp_path: Path) -> None:
    """A training that ended before its first file, on a full disk, say, is repeated in its folder."""
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "hydra.yaml").write_text("hydra:\n  job:\n    name: another\n")
    with pytest.raises(UserError, match=r"holds \.hydra"):
        select_location(config(), tmp_path, named=True)
    (tmp_path / ".hydra" / "hydra.yaml").write_text("_target_: stylegan_inv.config.PrepareFirst\n")
    assert select_location(config(), tmp_path, named=True).ckpt_path is None


def test_a_checkpoint_is_not_continued_in_the_folder_of_another_run(tmp_path: Path, last: Path) -> None:
    other = make_run(tmp_path / "other")
    before = contents(other)
    cfg = config(f"ckpt_path='{last}'")
    with pytest.raises(UserError, match="holds another run than ckpt_path="):
        select_location(cfg, other, named=True)
    assert contents(other) == before
    # Its own folder, that of an interrupted repetition of this command, and a new one.
    assert select_location(cfg, last.parents[1], named=True).ckpt_path == last
    RunFolder(other).update_record(command=command_hash(cfg))
    assert select_location(cfg, other, named=True).ckpt_path == last
    assert select_location(cfg, tmp_path / "new", named=True).ckpt_path == last


def test_jobs_of_a_sweep_with_one_folder(tmp_path: Path) -> None:
    """The second job finds the run of the first one."""
    shared = make_run(tmp_path / "shared")
    RunFolder(shared).update_record(command=command_hash(config("seed=0")))
    with pytest.raises(UserError, match="holds another run"):
        select_location(config("seed=1"), shared, named=True)


@pytest.mark.parametrize("left", ["metrics.csv", "metrics.json", "panels/0.png", "worst/last.csv", "codes/0.png"])
def test_results_of_a_run_without_checkpoint_are_not_replaced(tmp_path: Path, last: Path, left: str) -> None:
    """The first job was killed before its first checkpoint; the second one has its folder."""
    first, second = config("seed=0"), config("seed=1")
    run = RunFolder(tmp_path)
    run.update_record(command=command_hash(first))
    for cfg in (first, second, config("seed=1", f"ckpt_path='{last}'")):  # nothing to lose yet
        select_location(cfg, tmp_path, named=True)
    (tmp_path / left).parent.mkdir(exist_ok=True)
    (tmp_path / left).write_text("step,val/mse\n0,0.5\n")
    for more in ([], ["resume=auto"], [f"ckpt_path='{last}'"]):
        with pytest.raises(UserError, match=f"holds {left.partition('/')[0]} of another run, which left no checkpoint"):
            select_location(config("seed=1", *more), tmp_path, named=True)
    assert select_location(first, tmp_path, named=True).ckpt_path is None  # repeated


def test_the_run_folder_is_set_by_hydra_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    (tmp_path / "config.yaml").write_text("mine")
    line = error_of(monkeypatch, capsys, train, "logger=none", f"paths.run_dir={tmp_path}")
    assert "paths.run_dir=" in line and "give hydra.run.dir=" in line
    assert "overwrite" in error_of(monkeypatch, capsys, train, "logger=none", "overwrite=true")
    assert contents(tmp_path) == {tmp_path / "config.yaml": b"mine"}


def test_names_of_metrics_and_images_are_escaped(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>\"'&"
    run = make_reported_run(tmp_path / hostile.replace("/", "_"))
    quoted = '"' + hostile.replace('"', '""') + '"'
    (run / "metrics.csv").write_text(f"step,train/loss/{quoted},{quoted}\n0,0.5,1\n1,0.25,1\n".replace('/"', "/"))
    (run / "worst" / "last.csv").write_text(f"step,image,{quoted}\n3,{quoted},0.9\n")
    (run / "evaluation" / hostile.replace("/", "_")).mkdir()
    (run / "evaluation" / hostile.replace("/", "_") / "metrics.json").write_text('{"metrics": {"<script>": {}}}')
    cfg = DictConfig({"run": str(run), "output": None, "overwrite": False, "title": hostile})
    report.report(cfg, report.prepare(cfg))
    page = (run / "report.html").read_text()
    assert "<script" not in page and page.count("&lt;script") >= 4


@pytest.mark.parametrize("changed", ["nothing", "train", "val", "count", "pixels of train", "pixels of val", "mask"])
def test_images_that_change_before_a_run_is_continued(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changed: str
) -> None:
    for split in ("train", "val", "masks"):
        (tmp_path / split).mkdir()
        for number in range(3):
            Image.new("L" if split == "masks" else "RGB", (8, 8)).save(tmp_path / split / f"{number}.png")

    def data() -> FolderDataModule:
        roots = {name: str(tmp_path / folder) for name, folder in
                 {"train_root": "train", "val_root": "val", "mask_root": "masks"}.items()}  # fmt: skip
        return FolderDataModule(**roots, resolution=8, batch_size=1)  # type: ignore[arg-type]

    before = data()
    before.setup("fit")
    state = before.state_dict()
    if changed == "count":
        (tmp_path / "train" / "0.png").unlink()
        (tmp_path / "masks" / "0.png").unlink()
    elif changed.startswith("pixels"):  # under the same name, and of the same size as BMP, without compression
        Image.new("RGB", (8, 8), "red").save(tmp_path / changed.split()[-1] / "1.png", "BMP")
    elif changed == "mask":
        Image.new("L", (8, 8), 255).save(tmp_path / "masks" / "1.png")
    elif changed != "nothing":
        (tmp_path / changed / "0.png").rename(tmp_path / changed / "9.png")
        if changed == "train":
            (tmp_path / "masks" / "0.png").rename(tmp_path / "masks" / "9.png")
    after = data()
    after.load_state_dict(state)
    after.train_dataloader()
    assert len(caplog.records) == (changed != "nothing")
    assert changed == "nothing" or "changed since the checkpoint" in caplog.text
    caplog.clear()
    after.load_state_dict({name: number for name, number in state.items() if name not in ("names", "files")})
    after.train_dataloader()  # from a checkpoint of an earlier version
    assert len(caplog.records) == (changed == "count")


def test_images_that_change_before_the_first_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(4):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.bmp")
    before, after = (FolderDataModule(root=str(tmp_path), val_size=1, resolution=8, batch_size=1) for _ in range(2))
    before.train_dataloader()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "0.bmp")  # as many bytes
    after.load_state_dict(before.state_dict())
    after.train_dataloader()
    assert "changed since the checkpoint" in caplog.text
