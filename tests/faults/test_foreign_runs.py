"""A run folder of a stranger is data: nothing that its config or its checkpoint names is executed."""

from __future__ import annotations

import contextlib
import copy
import html
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb  # noqa: F401  makes folders when it is imported
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict
from PIL import Image

import stylegan_inv
from stylegan_inv import train
from stylegan_inv.config import CONF_DIR
from stylegan_inv.edit import __main__ as edit
from stylegan_inv.errors import UserError
from stylegan_inv.evaluate import __main__ as evaluate
from stylegan_inv.invert import __main__ as invert
from stylegan_inv.report import __main__ as report
from stylegan_inv.runtime.run_folder import RunFolder
from stylegan_inv.trust.config_check import check_names, check_values, checked_trust
from tests.cli import error_of
from tests.faults.audit_watch import WATCH
from tests.faults.foreign_payloads import ALLOWED, CANARY, NODES, OTHER_REASONS, PLACES_OF_NODES, Config

STORED = Path(__file__).parents[1] / "stored_runs" / "restyle"


@pytest.fixture(autouse=True)
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A working directory with a module that writes the canary, as beside an unpacked run folder."""
    for folder in (tmp_path, tmp_path / "run"):
        folder.mkdir(exist_ok=True)
        (folder / "evil.py").write_text(f"open({CANARY!r}, 'w')\nEVIL = Evil = dict\n")
        (folder / "None.py").write_text(f"open({CANARY!r}, 'w')\n")  # the text of a name that is missing
    (tmp_path / "keep").mkdir()
    (tmp_path / "precious").write_text("x")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("uses the network"))
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    WATCH.seen.clear()
    yield
    WATCH.active = False
    assert WATCH.seen == [] and "evil" not in sys.modules
    lost = [path for path in before if not path.exists()]
    assert not list(tmp_path.rglob(f"{CANARY}*")) and not lost


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    folder = tmp_path_factory.mktemp("good") / "run"
    config = RunFolder(STORED).stored_config()
    write(folder, config)
    return config, folder


def write(folder: Path, config: Config | str) -> Path:
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    shutil.copy(STORED / "checkpoints" / "last.ckpt", folder / "checkpoints" / "last.ckpt")
    text = config if isinstance(config, str) else yaml.safe_dump(config, sort_keys=False)
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    return folder


def composed(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        cfg = compose(name, overrides=list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            del cfg["hydra"]
        return cfg


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DictConfig]:
    """The config of each command, which takes a second to compose."""
    photo = tmp_path_factory.mktemp("input") / "photo.png"
    Image.new("RGB", (64, 64), (200, 150, 120)).save(photo)
    common = ("device=cpu", "output=results")
    return {
        "train": composed("train", "method=restyle", "method.start=run", "dataset.val_size=4", "paths.run_dir=new"),
        "invert": composed("invert", f"input='{photo}'", "run=run", *common),
        "edit": composed("edit", f"input='{photo}'", "run=run", *common),
        "evaluate": composed("evaluate", "run=run", *common),  # last: it reads the choices of Hydra's config
    }


def from_python(configs: dict[str, DictConfig], good: Path) -> Any:
    return stylegan_inv.load_inverter("run")


def prepared(module: Any, name: str) -> Callable[[dict[str, DictConfig], Path], Any]:
    def run(configs: dict[str, DictConfig], good: Path) -> Any:
        if name == "evaluate":
            HydraConfig.instance().set_config(composed_hydra("evaluate"))
        return module.prepare(copy.deepcopy(configs[name]))

    return run


_HYDRA: dict[str, DictConfig] = {}


def composed_hydra(name: str) -> DictConfig:
    """The config of Hydra itself, which the evaluate command reads."""
    if name not in _HYDRA:
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
            _HYDRA[name] = compose(name, return_hydra_config=True)
    return _HYDRA[name]


def as_start(configs: dict[str, DictConfig], good: Path) -> Any:
    cfg = copy.deepcopy(configs["invert"])
    cfg.run, cfg.start = str(good), "run"
    return invert.prepare(cfg)


COMMANDS: dict[str, Callable[[dict[str, DictConfig], Path], Any]] = {
    "load_inverter": from_python,
    "invert run": prepared(invert, "invert"),
    "edit run": prepared(edit, "edit"),
    "evaluate run": prepared(evaluate, "evaluate"),
    "train method.start": prepared(train, "train"),
}


@contextlib.contextmanager
def label(*what: str) -> Iterator[None]:
    """Names the case in the failure of a loop, which is faster than a test for each."""
    try:
        yield
    except BaseException as error:
        raise AssertionError(f"{what}: {error}") from error


def refusal(command: Callable[..., Any], *arguments: Any) -> str:
    """The one line of a refusal, while everything else that happens is watched."""
    WATCH.active = True
    try:
        with pytest.raises(UserError) as info:
            command(*arguments)
    finally:
        WATCH.active = False
    message = str(info.value)
    assert "\n" not in message and len(message) < 1000
    return message


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_executes_what_a_config_names(command, good, configs, tmp_path) -> None:
    home = str(Path.home())
    for number, (name, node) in enumerate(NODES.items()):
        # Each command meets every node at one of the places, and each place in turn.
        place = list(PLACES_OF_NODES)[(number + list(COMMANDS).index(command)) % len(PLACES_OF_NODES)]
        if (name, place) in ALLOWED:
            place = "method"
        config = copy.deepcopy(good[0])
        PLACES_OF_NODES[place](config, copy.deepcopy(node))
        write(tmp_path / "run", config)
        with label(name, place):
            message = refusal(COMMANDS[command], configs, good[1])
        assert "config.yaml" in message, (name, place, message)
        assert home not in message.replace(str(tmp_path), "")
        target = node.get("_target_") if isinstance(node, dict) else None
        dotted = isinstance(target, str) and target.isascii() and all(p.isidentifier() for p in target.split("."))
        if dotted and not name.startswith(OTHER_REASONS):
            assert message.endswith(f"add trust={target.rpartition('.')[0]}")


def test_every_node_is_refused_at_every_place(good) -> None:
    for name, node in NODES.items():
        for place, change in PLACES_OF_NODES.items():
            if isinstance(node, dict) and (name, place) not in ALLOWED:
                config = copy.deepcopy(good[0])
                change(config, copy.deepcopy(node))
                with label(name, place):
                    refusal(check_names, config)


def test_a_run_to_start_from(good, configs, tmp_path) -> None:
    for name in ("module in the folder", "os.system", "package: process", "resolver"):
        config = copy.deepcopy(good[0])
        config["method"]["metrics"]["x"] = NODES[name]
        write(tmp_path / "run", config)
        assert "run/config.yaml" in refusal(as_start, configs, good[1])


def test_aliases_bombs_and_damaged_files(configs, good, tmp_path) -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
    texts = [
        "a: &a {_target_: os.system}\nmethod: *a",
        "method: !!python/object/apply:os.system ['touch canary']",
        "method: !!python/name:os.system",
        bomb,
        "[" * 5000,
        "- " * 5000,
        "a: " + "9" * 5000,
        "a: " + ":".join(["59"] * 20000),
        "a: [" + "1," * 50000 + "]",
        "{a: 1, a: 2}",
        "? [a]\n: b",
        "\x00",
        "- method",
        "method: !!binary aGk=",
        "x" * (1 << 20),
        "",
    ]
    started = time.perf_counter()
    for text in texts:
        write(tmp_path / "run", text)
        for name in ("load_inverter", "invert run", "edit run", "evaluate run"):
            refusal(COMMANDS[name], configs, good[1])
    assert time.perf_counter() - started < 20
    for text in texts[:8]:
        write(tmp_path / "run", text)
        (tmp_path / "run" / "metrics.json").write_text('{"val/mse": 1.0}')
        # A report shows the config as it is written, and reads none of it.
        job = report.prepare(DictConfig({"run": "run", "output": None, "title": None, "overwrite": False}))
        assert not job.notes and html.escape(text[:30]) in "".join(
            part for parts in job.sections.values() for part in parts
        ), text[:60]


def test_paths_lead_nowhere_else(good, configs, tmp_path) -> None:
    folder = {"_target_": "stylegan_inv.data.FolderDataModule", "resolution": 64}
    cached = {"_target_": "stylegan_inv.data.CachedSynthFacesDataModule", "resolution": 64}
    for dataset in (
        {**folder, "root": str(tmp_path / "keep")},
        {**folder, "root": "keep"},
        {**folder, "root": "run/../keep"},
        {**folder, "root": "~"},
        {**folder, "val_root": "/"},
        {**folder, "root": "run", "splits": "/etc/passwd"},
        {**cached, "cache_dir": CANARY},
        {**folder, "root": "a\x01b"},
        {**good[0]["dataset"], "num_workers": 100_000},
        {**good[0]["dataset"], "test_size": 10**15},
        {**good[0]["dataset"], "resolution": 1 << 30},
    ):
        write(tmp_path / "run", {**good[0], "dataset": dataset})
        assert "config.yaml: dataset." in refusal(COMMANDS["evaluate run"], configs, good[1])
    for changes in (
        {"generator": {"_target_": "stylegan_inv.generators.load_generator", "source": "/dev/zero"}},
        {"generator": {"_target_": "stylegan_inv.generators.load_generator", "source": "https://example.org/x.pkl"}},
        {"generator": {"_target_": "stylegan_inv.generators.Generator", "resolution": 64, "mapping_layers": 3_000_000}},
        {"encoder": {"_target_": "stylegan_inv.encoders.UNet", "_partial_": True, "depth": 10**9}},
        {"start": "run"},
        {"start": "a" * 3000},
        {"start": "run/" + "a" * 300},
        {"metrics": {"x": {"_target_": "stylegan_inv.metrics.PSNR", "dist_sync_fn": "/etc/passwd"}}},
    ):
        write(tmp_path / "run", {**good[0], "method": {**good[0]["method"], **changes}})
        assert "method." in refusal(stylegan_inv.load_inverter, "run")


def test_public_classes_in_a_wrong_place_are_one_line(good, tmp_path) -> None:
    for key in ("generator", "encoder"):
        method = {**good[0]["method"], key: {"_target_": "stylegan_inv.losses.L2"}}
        write(tmp_path / "run", {**good[0], "method": method})
        assert "config.yaml" in refusal(stylegan_inv.load_inverter, "run")
    for method in ("text", None, 7, [], {}, {"x": 1}):
        write(tmp_path / "run", {**good[0], "method": method})
        refusal(stylegan_inv.load_inverter, "run")
    for dataset in ({"resolution": "x"}, {"resolution": -64}, {"resolution": 1 << 40}):
        write(tmp_path / "run", {**good[0], "dataset": dataset})
        assert "dataset.resolution" in refusal(stylegan_inv.load_inverter, "run")
    write(tmp_path / "run", {**good[0], "method": {"_target_": "stylegan_inv.losses.L2"}})
    assert "expected an inversion method" in refusal(stylegan_inv.load_inverter, "run")


def test_checkpoints_are_data(good, tmp_path) -> None:
    """What a checkpoint holds besides tensors is not built, and code in it is refused."""
    write(tmp_path / "run", good[0])
    file = tmp_path / "run" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    node = {"_target_": "evil.Evil"}
    torch.save({**checkpoint, "hyper_parameters": {"loss": node, "_instantiator": "evil.Evil"}}, file)
    WATCH.active = True
    stylegan_inv.load_inverter("run")
    WATCH.active = False

    class Code:
        def __reduce__(self) -> Any:
            return exec, (f"open({CANARY!r}, 'w')",)

    torch.save({**checkpoint, "hyper_parameters": Code()}, file)
    refusal(stylegan_inv.load_inverter, "run")
    state = checkpoint["state_dict"]
    first = next(iter(state))
    for changed in (
        {"state_dict": list(state)},
        {"state_dict": {**state, first: "x"}},
        {"state_dict": {**state, 7: torch.zeros(1)}},
        {"state_dict": {**state, first: torch.zeros(3)}},
        {"frozen": 7},
        {"generator_hash": {}},
        {"method": [1]},
    ):
        torch.save({**checkpoint, **changed}, file)
        assert "checkpoint" in refusal(stylegan_inv.load_inverter, "run")


def test_exit_code_and_line(good, monkeypatch, capsys, tmp_path) -> None:
    config = copy.deepcopy(good[0])
    config["method"]["metrics"]["x"] = {"_target_": "evil.Evil"}
    write(tmp_path / "run", config)
    Image.new("RGB", (64, 64)).save("photo.png")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # commands set it
    line = error_of(monkeypatch, capsys, invert, "run=run", "input=photo.png", "output=out", "device=cpu")
    assert "method.metrics.x._target_: names evil.Evil" in line and line.endswith("add trust=evil")
    line = error_of(monkeypatch, capsys, train, "--experimental-rerun", "config.pickle")
    assert "pickle" in line and not Path("out").exists()


def test_trust(good, tmp_path, monkeypatch) -> None:
    """With the user's word, and only then, a module is imported; no other one."""
    (tmp_path / "mine_7.py").write_text("from stylegan_inv.metrics import PSNR\nclass Mine(PSNR):\n    pass\n")
    config = copy.deepcopy(good[0])
    config["method"]["metrics"]["x"] = {"_target_": "mine_7.Mine"}
    write(tmp_path / "run", config)
    for trust in ((), ("mine",), ("mine_7.Mine.more",), ("evil",)):
        assert "add trust=mine_7" in refusal(lambda t: stylegan_inv.load_inverter("run", trust=t), trust)
    assert "mine_7" not in sys.modules
    method = stylegan_inv.load_inverter("run", trust=["mine_7"])
    assert type(method.val_metrics["x"]).__name__ == "Mine" if hasattr(method, "val_metrics") else method
    monkeypatch.delitem(sys.modules, "mine_7")
    for wrong in ("", "a b", "os;system", 7, {"a": 1}, [1], ["a", ""]):
        with pytest.raises(UserError, match="trust="):
            checked_trust(wrong)


def test_own_runs_are_remembered_and_copies_are_not(good, tmp_path, monkeypatch) -> None:
    (tmp_path / "mine_8.py").write_text("from stylegan_inv.metrics import PSNR\nclass Mine(PSNR):\n    pass\n")
    config = copy.deepcopy(good[0])
    config["method"]["metrics"]["x"] = {"_target_": "mine_8.Mine"}
    config["dataset"] = {"_target_": "stylegan_inv.data.FolderDataModule", "root": "/photos"}
    run = RunFolder(write(tmp_path / "own", config))
    run.write_origin(config, "hash")
    assert run.config().method.metrics.x._target_ == "mine_8.Mine"
    run.check_part(config["dataset"], "dataset")

    shutil.copytree("own", "copy")
    refusal(RunFolder(Path("copy")).config)
    with pytest.raises(UserError, match="is not inside the run folder"):
        RunFolder(Path("copy")).check_part(config["dataset"], "dataset")

    changed = copy.deepcopy(config)
    changed["method"]["metrics"]["y"] = {"_target_": "mine_8.Other"}
    text = run.config_file.read_text()
    run.config_file.write_text(yaml.safe_dump(changed))
    refusal(run.config)
    run.config_file.write_text(text)
    run.config()

    # Another file of the same name is another module.
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine_8.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "other"))
    refusal(run.config)
    monkeypatch.undo()
    for wrong in ("../../etc/passwd", "0" * 32, 7, None, ["x"]):
        (tmp_path / "own" / "run.json").write_text(f'{{"id": {yaml.dump(wrong).strip()!r}}}')
        monkeypatch.syspath_prepend(str(tmp_path))
        refusal(RunFolder(tmp_path / "own").config)


def test_ordinary_runs_leave_no_notes(good, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    run = RunFolder(tmp_path / "ordinary")
    run.write_origin(good[0], "hash")
    assert "id" not in run.record() and not (tmp_path / "state").exists()


def test_stored_runs_of_earlier_versions_are_allowed() -> None:
    for folder in (STORED, STORED.parent / "interestyle", STORED.parent / "restyle_unfinished"):
        config = RunFolder(folder).stored_config()
        check_names(config)
        check_values(config["method"], "method", folder)
        check_values(config["dataset"], "dataset", folder)


def test_other_objects_as_data_and_task_are_one_line(good, configs, tmp_path) -> None:
    data, loss = good[0]["dataset"], {"_target_": "stylegan_inv.losses.L2"}
    for name in ("data.ImageDataModule", "data.Task", "methods.PerImageMethod"):  # they do nothing by themselves
        refusal(check_names, {"dataset": {"_target_": f"stylegan_inv.{name}"}})
    cases = [
        ({"_target_": "stylegan_inv.data.SynthFaces", "size": 4}, ["evaluate run"]),
        ({**data, 5: 1}, ["evaluate run"]),
        ({**data, "task": "text"}, ["evaluate run"]),
        ({**data, "task": loss}, ["evaluate run", "invert run", "edit run"]),
        ({**data, "task": {"_target_": "stylegan_inv.data.SegmentationToFace", "classes": 10**9}}, ["invert run"]),
    ]
    for dataset, names in cases:
        write(tmp_path / "run", {**good[0], "dataset": dataset})
        for name in names:
            assert "dataset" in refusal(COMMANDS[name], configs, good[1])
