"""Every number of every config is finite and in its range, which is judged before anything is built."""

from __future__ import annotations

from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from stylegan_inv.config import CONF_DIR
from stylegan_inv.config.number_ranges import Range, range_of
from stylegan_inv.config.value_checks import check_plain_values, check_values
from stylegan_inv.errors import UserError

CONFIGS = {
    "invert, a projector": ("invert", "method=projector", "input=x"),
    "invert, stages": ("invert", "method=image2stylegan_pp", "input=x"),
    "invert, PTI": ("invert", "method=pti", "input=x"),
    "train": ("train", "method=e4e", "optimizer=adam", "scheduler=cosine"),
    "train a generator": ("train", "method=stylegan2", "augment=ada"),
    "edit": ("edit", "edit=noise"),
    "evaluate": ("evaluate", "dataset=synthfaces"),
}
NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module", params=CONFIGS)
def config(request: pytest.FixtureRequest) -> Any:
    name, *overrides = CONFIGS[request.param]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        return OmegaConf.to_container(compose(name, overrides))


def numbers(node: Any, key: str = "") -> list[tuple[str, Any, Any, Any]]:
    """Dotted key, container, name and value of each number."""
    pairs = list(node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ())
    found = []
    for name, value in pairs:
        path = f"{key}.{name}" if key else str(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            found.append((path, node, name, value))
        found += numbers(value, path)
    return found


def refused(config: Any, key: str, value: Any) -> None:
    with pytest.raises(UserError) as error:
        check_plain_values(config)
    assert str(error.value).startswith(f"{key}={value}: expected a") and "\n" not in str(error.value)


def wrong_for(known: Range | None) -> list[Any]:
    if known is None:
        return []
    negative = [] if known.least is None and known.above is None else [-1]
    return [True, "x", *negative, *([0.5] if known.whole else [])]


def test_every_number(config: Any) -> None:
    check_plain_values(config)
    found = numbers(config)
    assert len(found) >= 8
    for number, (key, node, name, before) in enumerate(found):
        for value in (*((NAN, 1e38) if number else (NAN, INF, -INF, 1e38, -1e38, 10**400)), *wrong_for(range_of(key))):
            node[name] = value
            refused(config, key, value)
        node[name] = before


@pytest.mark.parametrize(
    ("command", "override"),
    [
        ("invert", "method.w_avg_samples=0"),
        ("invert", "method.regularize_noise_weight=-1"),
        ("invert", "method.early_stop.loss_threshold=-0.1"),
        ("edit", "samples=0"),
        ("evaluate", "bootstrap.resamples=0"),
        ("train", "dataset.obstacles=1.5"),
        ("train", "dataset.train_size=0"),
        ("train", "optimizer.betas=[0.9,1.1]"),
    ],
)
def test_ranges(command: str, override: str) -> None:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        more = ["method=projector", "input=x"] if command == "invert" else []
        config = compose(command, [*more, override])
    key = override.partition("=")[0]
    with pytest.raises(UserError, match=key.replace(".", r"\.")):
        check_values(config)


@pytest.mark.parametrize("name", ["a.b", "a/../../b", "", " a", "a\nb", "\x1b[31m", "x" * 101, 3, None, "\u202ea"])
def test_names_of_metrics_and_losses(name: Any) -> None:
    for key in ("metrics", "method.metrics", "loss", "callbacks"):
        node: Any = {name: {"_target_": "stylegan_inv.metrics.MSE"}}
        for part in reversed(key.split(".")):
            node = {part: node}
        with pytest.raises(UserError, match=f"^{key}: has an entry called .*; expected a printable name") as error:
            check_plain_values(node)
        assert str(error.value).isprintable() and len(str(error.value)) < 250


def test_names_that_metrics_may_have() -> None:
    check_plain_values({"metrics": {"[/bold]": None, "id_step 2 (ArcFace)": None, "<b>": None}, "a.b": {"": 1}})
