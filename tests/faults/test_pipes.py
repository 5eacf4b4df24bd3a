"""Pipes, devices, sockets and folders in the place of files: nothing waits, and what needs the file is one line."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from stylegan_inv import train
from stylegan_inv.benchmark import __main__ as benchmark
from stylegan_inv.benchmark.quality.comparison_report import render_again
from stylegan_inv.config.search_storage import check_storage
from stylegan_inv.data.alignment.landmarks import read_landmarks
from stylegan_inv.data.datamodules.splits import _read_lists, _read_people
from stylegan_inv.data.images.decoding import read_file, stored_size
from stylegan_inv.data.sources.archive_files import ArchiveSource
from stylegan_inv.data.sources.class_labels import read_classes
from stylegan_inv.data.sources.lmdb import open_lmdb, read_text_value
from stylegan_inv.data.sources.name_lists import read_names, read_paths
from stylegan_inv.data.sources.opening import open_source
from stylegan_inv.data.sources.packing import read_manifest
from stylegan_inv.data.sources.shards import open_shards
from stylegan_inv.data.sources.zip import ZipSource
from stylegan_inv.directions import __main__ as directions
from stylegan_inv.edit import __main__ as edit
from stylegan_inv.encoders.face_network import load_face_network
from stylegan_inv.encoders.shipped_files import read_shipped, shipped_file
from stylegan_inv.errors import UserError
from stylegan_inv.generators import load_discriminator, load_generator
from stylegan_inv.generators.io.formats import read_metadata
from stylegan_inv.generators.io.torch_pickle import load_checked, read_zip
from stylegan_inv.generators.io.weight_files import read_weights, safetensors_metadata
from stylegan_inv.invert.output_folder import stored_command
from stylegan_inv.invert.parts import PartResult
from stylegan_inv.latents.directions import load_direction
from stylegan_inv.latents.discovery.scores import csv_scores
from stylegan_inv.latents.numpy_files import read_npy, read_npz
from stylegan_inv.latents.saved_codes import read_latents, read_noise
from stylegan_inv.prepare import __main__ as prepare
from stylegan_inv.prepare.pack_images import _Journal
from stylegan_inv.report.folder_reader import FolderReader
from stylegan_inv.runtime.checkpoint_io import is_training_checkpoint, newest_readable, read_checkpoint
from stylegan_inv.runtime.metrics_csv import MetricsCSV
from stylegan_inv.runtime.run_folder import RunFolder
from stylegan_inv.sweeps.jobs import _recorded, read_jobs
from stylegan_inv.utils.files import check_links, check_output
from stylegan_inv.utils.plain_data import read_json_object, read_yaml
from stylegan_inv.utils.regular_files import check_regular, open_regular, read_bytes
from stylegan_inv.utils.safetensors_files import load_dataclass, read_safetensors
from stylegan_inv.visualization.html_page import figure, is_page
from stylegan_inv.weights.download import file_hash
from tests.cli import error_of

Reader = Callable[[Path], Any]


@pytest.fixture(autouse=True)
def nothing_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ends a test that waits for a pipe."""

    def end(number: int, frame: FrameType | None) -> None:
        raise AssertionError("waits")

    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("other"))
    path.symlink_to("other")


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def terminal(path: Path) -> None:
    path.symlink_to("/dev/ptmx")


def socket_file(path: Path) -> None:
    here = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as one:  # names of sockets have at most 108 bytes
        one.bind(f"/proc/self/fd/{here}/{path.name}")
    os.close(here)


def folder(path: Path) -> None:
    path.mkdir()


KINDS: dict[str, Callable[[Path], None]] = {
    "a pipe": pipe, "a link to a pipe": link_to_pipe, "a device": endless, "a terminal": terminal,
    "a socket": socket_file, "a folder": folder,
}  # fmt: skip

#: File name -> what reads it and needs it.
NEEDED: dict[str, tuple[Reader, ...]] = {
    "a.png": (read_file, stored_size, open_source, lambda p: open_source(p).read(0), figure),
    "names.txt": (read_names, read_paths, open_source),
    "splits.json": (read_landmarks, _read_lists, _read_people),
    "points.csv": (read_landmarks, lambda path: csv_scores(path, "age")),
    "a.zip": (ZipSource, open_source, lambda path: prepare.main(["verify", str(path), "--workers", "0"])),
    "a.lmdb": (lambda path: open_lmdb(path, 64), lambda path: read_text_value(path, 0, 9)),
    "data.mdb": (lambda path: open_lmdb(path, 64), open_source),
    "000.tar": (lambda path: open_shards(path.parent, [path]), open_source, lambda path: open_source(path.parent)),
    "001.tar": (lambda path: ArchiveSource(path.parent, ["a.png"], [path], [(0, 0, 9)]).read(0),),
    "direction.npy": (load_direction, read_npy),
    "direction.pt": (load_direction, load_checked),
    "direction.safetensors": (load_direction, lambda path: read_safetensors(path, "a direction")),
    "projected_w.npz": (read_latents, lambda path: read_npz(path, "w")),
    "latents.safetensors": (read_latents, lambda path: read_latents(path.parent)),
    "latents-00001-of-00001.safetensors": (read_latents,),
    "weights.pt": (read_weights, read_zip, read_metadata, load_generator, load_discriminator, file_hash),
    "face.safetensors": (load_face_network, safetensors_metadata, lambda path: read_shipped(path)),
    "last.ckpt": (read_checkpoint, load_checked),
    "config.yaml": (lambda path: RunFolder(path.parent).stored_config(), read_yaml),
    "sweep.json": (_recorded,),
    "benchmark.json": (lambda path: render_again(path.parent),),
    "settings.json": (lambda path: _Journal(path.parent, {}),),
    "study.db": (lambda path: check_storage(OmegaConf.create({"hydra": {"sweeper": {"storage": f"sqlite:///{path}"}}})),),
    "anything": (check_regular, open_regular, lambda path: read_bytes(path, 9), is_page),
}  # fmt: skip
#: File name -> what reads it where it is, and result without it.
OPTIONAL: dict[str, tuple[Reader, Any]] = {
    "dataset.json": (lambda path: read_classes(path.parent, ["a.png"]), None),
    "metrics.json": (lambda path: RunFolder(path.parent).metrics(), {}),
    "run.json": (lambda path: RunFolder(path.parent).record(), {}),
    "any.json": (read_json_object, {}),
    "noise/a.safetensors": (lambda path: read_noise(path.parents[1], "reconstructions/a.png"), None),
    "latents.safetensors": (lambda path: stored_command(path.parent), None),
    "a.safetensors": (shipped_file, None),
    "part_00000.safetensors": (lambda path: load_dataclass(PartResult, path, "key", torch.device("cpu")), None),
    "a.ckpt": (is_training_checkpoint, False),
    "sweep.json": (lambda path: read_jobs(path.parent, "val/mse"), []),
    "metrics.csv": (lambda path: MetricsCSV(path.parent).rows(), []),
    "manifest.json": (lambda path: read_manifest(path.parent), None),
    "panels/last.png": (lambda path: FolderReader(path.parents[1]).picture("panels/last.png"), None),
    "table.csv": (lambda path: FolderReader(path.parent).table("table.csv"), []),
}


def test_a_pipe_does_make_a_plain_reader_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    with pytest.raises(AssertionError, match="waits"):
        (tmp_path / "pipe").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NEEDED)
def test_what_is_needed_is_one_line(name: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    KINDS[kind](tmp_path / name)
    for reader in NEEDED[name]:
        with pytest.raises((UserError, SystemExit)) as error:
            reader(tmp_path / name)
        line = str(error.value) if isinstance(error.value, UserError) else capsys.readouterr().err.strip()
        assert "\n" not in line and str(tmp_path) in line and len(line) < 500, line


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPTIONAL)
def test_what_is_not_needed_is_absent(name: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    KINDS[kind](tmp_path / name)
    reader, without = OPTIONAL[name]
    assert reader(tmp_path / name) == without


def test_checkpoints_fall_back(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=r"last\.ckpt: no such checkpoint"):
        newest_readable(tmp_path)
    torch.save({"state_dict": {}}, tmp_path / "previous.ckpt")
    assert newest_readable(tmp_path) == tmp_path / "previous.ckpt"


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a socket"])
def test_nothing_is_written_to_a_pipe(kind: str, tmp_path: Path) -> None:
    """A log, a lock or a table that a stranger's folder has as a pipe would wait for a reader."""
    (tmp_path / "out" / "deep").mkdir(parents=True)
    KINDS[kind](tmp_path / "out" / "deep" / "train.log")
    for check in (check_links, lambda path: check_output(path, overwrite=True)):
        with pytest.raises(UserError, match=r"train\.log: is a (pipe or a device|link that leads out)"):
            check(tmp_path / "out")
    (tmp_path / "out" / "deep" / "train.log").unlink()
    os.mkfifo(tmp_path / "out" / "unwritten")
    check_links(tmp_path / "out", ["*.log"])


COMMANDS: dict[str, tuple[Any, list[str]]] = {
    "edit": (edit, ["input=pipe.npz", "edit=truncate"]),
    "generator": (edit, ["edit=truncate", "generator=file", "generator.source=pipe"]),
    "directions": (directions, ["show", "pipe.npy"]),
    "align": (prepare, ["align", "photos", "faces", "--landmarks", "pipe", "--workers", "0"]),
    "measurements": (benchmark, ["world", "--json", "pipe"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"")
    for pipe_name in ("pipe", "pipe.npz", "pipe.npy"):
        os.mkfifo(pipe_name)
    module, arguments = COMMANDS[name]
    assert "pipe" in error_of(monkeypatch, capsys, module, *arguments)
    assert not (tmp_path / "outputs").exists() and not (tmp_path / "faces").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_configs(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hydra does not see them, and would say that there is no such method."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "method").mkdir(parents=True)
    KINDS[kind](tmp_path / "mine" / "method" / "own.yaml")
    for arguments in (["method=own"], ["-m", "method=own,psp"]):
        assert not (tmp_path / "outputs").exists()
        line = error_of(monkeypatch, capsys, train, "--config-dir", "mine", *arguments)
        assert "mine/method/own.yaml: is a" in line and "expected a config" in line


@pytest.mark.parametrize("kind", KINDS)
def test_search_paths(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hydra only warns about a folder that is none, and does not see configs that are no files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "method").mkdir(parents=True)
    KINDS[kind](tmp_path / "mine" / "method" / "own.yaml")
    KINDS[kind](tmp_path / "none")
    for folder in ("mine", f"file://{tmp_path}/mine"):
        line = error_of(monkeypatch, capsys, train, f"hydra.searchpath=[{folder}]", "method=own")
        assert "mine/method/own.yaml: is a" in line and "expected a config" in line
    if kind != "a folder":
        line = error_of(monkeypatch, capsys, train, "hydra.searchpath=[pkg://tests,none]")
        assert line == "error: hydra.searchpath: none: is no folder, expected one of configs"
    for entry, expected in {
        f"file://{tmp_path}/absent": "no such folder, expected one of configs",
        "pkg://nowhere.at.all": "no such package; install it, or give a folder",
        "pkg://": "no such package; install it, or give a folder",
        "http://a/b": "expected a folder, file://<folder> or pkg://<package>",
    }.items():
        line = error_of(monkeypatch, capsys, train, f"hydra.searchpath=['{entry}']")
        assert line == f"error: hydra.searchpath: {entry}: {expected}"


def test_content_is_as_long_as_it_was(tmp_path: Path) -> None:
    """A file that says it is empty, as those of the kernel do, is no way to an endless one."""
    assert read_bytes("/proc/self/status", 1 << 20) == b""
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bytes(tmp_path / "a", 5) == b"12345"
    with pytest.raises(UserError, match="5 bytes, expected a list of at most 4"):
        read_bytes(tmp_path / "a", 4, "a list")
