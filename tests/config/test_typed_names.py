"""Paths and names keep the text that was typed, also where Hydra and YAML read a number."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from stylegan_inv import config as configs
from stylegan_inv import train
from stylegan_inv.config import CONF_DIR
from stylegan_inv.config.number_ranges import RANGES, argument_of, range_of
from stylegan_inv.config.typed_names import as_typed, is_name
from stylegan_inv.errors import UserError
from stylegan_inv.report import __main__ as report
from stylegan_inv.sweeps import __main__ as sweeps
from tests.cli import call, error_of

#: Texts that are no texts to Hydra, or to YAML.
TEXTS = ("20240115_120000", "1e5", "007", "-3", "1_0", "0.5", ".5", "nan", "inf", "true", "False", "Null", "NULL", "on")
COMMANDS = ("train", "invert", "edit", "evaluate", "report")
#: Keys of the top level that hold a word of a list, a class, or layers: Hydra's types are right for them.
WORDS = {
    "invert": ("on_bad_image", "mode", "device", "devices", "layers", "class"),
    "edit": ("on_bad_image", "mode", "device", "class", "truncate_to", "animation", "cell", "psi"),
    "evaluate": ("on_missing", "split", "device", "devices", "class"),
    "train": ("loss_region", "class", "optimized_metric", "optimized_goal"),
    "report": (),
}  # fmt: skip


def value(override: str) -> Any:
    return OverridesParser.create().parse_override(override).value()


@pytest.mark.parametrize("key", ["output", "dataset.root", "+generator.source", "hydra.run.dir", "experiment"])
def test_text_is_kept(key: str) -> None:
    for text in TEXTS:
        (typed,) = as_typed([f"{key}={text}"])
        assert value(typed) == text, text
        assert as_typed([typed]) == [typed], "a rank gets the command line of the first one"


def test_text_is_kept_in_lists_mappings_and_sweeps() -> None:
    assert value(as_typed(["trust=[1e5, mine, true]"])[0]) == ["1e5", "mine", "true"]
    assert value(as_typed(["lec.directions=[007,[1e5]]"])[0]) == ["007", ["1e5"]]
    (typed,) = as_typed(["+dataset={root: 1e5, size: 3, more: {val_root: [true], scale: 1e5}}"])
    assert value(typed) == {"root": "1e5", "size": 3, "more": {"val_root": ["true"], "scale": 1e5}}
    swept = OverridesParser.create().parse_override(as_typed(["input=1e5,20240115_120000,c"])[0])
    again = [OverridesParser.create().parse_override(f"input={one}").value() for one in swept.sweep_string_iterator()]
    assert again == ["1e5", "20240115_120000", "c"]


@pytest.mark.parametrize(
    "line",
    [
        "seed=1e5", "output=null", "output=", "output='1e5'", 'output="1e5"', "~output", "--cfg", "job", "trust=[]",
        "input=choice(1e5,2)", "output=${oc.env:HOME}/1", "input=a=b", "input=[1,2", "mask=ellipse:1:2", "output=a\\,b",
        "dataset.image_size=1e5", "output=1e5x", "method.start=average", "method.stages.start=200",
        "+metrics.x.weights=[1e5,0.5]",
    ],
)  # fmt: skip
def test_everything_else_stays(line: str) -> None:
    assert as_typed([line]) == [line]


def keys(node: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(node, dict):
        return [pair for name, inner in node.items() for pair in keys(inner, f"{prefix}.{name}" if prefix else name)]
    return [(prefix, node)]


def composed(name: str, *overrides: str) -> Any:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        return OmegaConf.to_container(compose(name, list(overrides)))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_of_a_command_is_known(command: str) -> None:
    """A new key of the top level must be a name, have a range, be true or false, or be among the words above."""
    top = yaml.safe_load((CONF_DIR / f"{command}.yaml").read_text())
    plain = {key: text for key, text in top.items() if key not in ("defaults", "hydra") and not isinstance(text, dict)}
    unknown = {
        key for key, text in plain.items() if not (is_name(key) or range_of(key) or isinstance(text, bool))
    } - set(WORDS[command])  # fmt: skip
    assert unknown == set()
    names = [key for key in plain if is_name(key)]
    found = composed(command, *as_typed([f"{key}=20240115_120000" for key in names]))
    assert {found[key] for key in names} == {"20240115_120000"}


def test_every_number_and_path_of_the_configs_is_known() -> None:
    """A number has a range, and what is called a folder, a file or a path is a name."""
    free = {
        "aspect", "box", "colour", "fill", "p", "pitch", "psi", "save_top_k", "start", "strength", "style", "target",
        "threshold", "weight", "yaw", "max_failure_rate", "devices",
    }  # fmt: skip
    for file in sorted(CONF_DIR.rglob("*.yaml")):
        for key, found in keys(yaml.safe_load(file.read_text())):
            if isinstance(found, int | float) and not isinstance(found, bool) and "trainer" not in (key + str(file)):
                assert argument_of(key) in RANGES or argument_of(key) in free, (file, key)
            if key.rpartition(".")[2].endswith(("root", "dir", "path", "folder", "file", "mapping", "source")):
                assert is_name(key), (file, key)


def test_the_command_line_passes_text_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    def stop(cfg: DictConfig) -> None:
        raise UserError(f"got {cfg.ckpt_path!r}, {cfg.dataset.root!r}, {list(cfg.trust)}, {cfg.paths.output_root!r}")

    monkeypatch.setattr(train, "main", configs.entry_point("train", stop)(lambda cfg, job: None))
    arguments = ["ckpt_path=1e5", "dataset=folder", "domain=faces", "dataset.root=007", "trust=[true]"]
    line = error_of(monkeypatch, capsys, train, *arguments, "paths.output_root=20240115_120000")
    assert line == "error: got '1e5', '007', ['true'], '20240115_120000'"
    (tmp_path / "20240115_120000").mkdir()
    assert "20240115_120000: no config.yaml" in error_of(monkeypatch, capsys, report, "run=20240115_120000")


def test_a_sweep_for_wandb_keeps_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["sweeps", "wandb", "dataset=folder", "domain=faces", "dataset.root=1e5,007"])
    sweeps.main()
    assert yaml.safe_load(capsys.readouterr().out)["parameters"]["dataset.root"] == {"values": ["1e5", "007"]}


def test_a_config_file_must_quote(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What the user typed is lost when YAML has read a number, so it is refused."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    file = tmp_path / "mine" / "experiment" / "own.yaml"
    for text, shown in (("20240115_120000", "20240115120000"), ("true", "True"), ("[a, 007]", "7")):
        key = "trust" if text.startswith("[") else "ckpt_path"
        file.write_text(f"# @package _global_\n{key}: {text}\n")
        line = error_of(monkeypatch, capsys, train, "--config-dir", "mine", "experiment=own")
        assert f"={shown}: is a path or a name" in line and "quote" in line
    file.write_text("# @package _global_\nckpt_path: '007'\n")
    assert "007: no such checkpoint" in error_of(monkeypatch, capsys, train, "--config-dir", "mine", "experiment=own")


def test_quotes_of_a_resolved_config_are_read_back(tmp_path: Path) -> None:
    OmegaConf.save(OmegaConf.create({str(number): text for number, text in enumerate(TEXTS)}), tmp_path / "config.yaml")
    assert list(OmegaConf.load(tmp_path / "config.yaml").values()) == list(TEXTS)


def test_names_of_command_lines_reach_the_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The whole way once: the page of a run in a folder whose name is a number to YAML."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "1e5"
    run.mkdir()
    (run / "config.yaml").write_text("method_name: x\n")
    (run / "metrics.json").write_text('{"val/mse": 1.0}')
    call(monkeypatch, report, "run=1e5", "title=2024_01")
    assert "2024_01" in (run / "report.html").read_text()
