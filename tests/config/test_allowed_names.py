"""What the configs of the repository name is what the run of a stranger may name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import wandb  # noqa: F401  makes folders when it is imported
import yaml

from stylegan_inv.config import CONF_DIR
from stylegan_inv.trust.allowed_names import DATA_FILES, PLACES, buildable_names
from stylegan_inv.trust.config_check import check_names
from tests.faults.foreign_payloads import Config


def test_every_config_of_the_repository_can_be_shared() -> None:
    """Every public name in conf/ is allowed in a run, so that a run of it loads elsewhere."""
    names = [path.stem for path in sorted((CONF_DIR / "method").glob("*.yaml"))]
    experiments = [path.stem for path in sorted((CONF_DIR / "experiment").glob("*.yaml"))]
    targets: set[Any] = set()
    for file in CONF_DIR.rglob("*.yaml"):
        if {"edit", "sweep", "hydra"} & set(file.parts) or file.stem in ("invert", "edit", "evaluate", "report"):
            continue
        targets |= set(_targets(yaml.safe_load(file.read_text()) or {}, file.parent.name))
    assert len(targets) > 80 and names and experiments
    for section, target in targets:
        check_names({section: {"x": {"_target_": target, **_looked_up(target)}}})


def _targets(node: Any, section: str) -> Iterator[tuple[str, str]]:
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in entries:
        if key == "_target_":
            yield section, value
        yield from _targets(value, str(key) if section == "experiment" or section == "conf" else section)


def _looked_up(target: str) -> Config:
    names = {"hydra.utils.get_object": "VECTOR_NAMES", "hydra.utils.get_method": "factor_features"}
    return {"path": f"stylegan_inv.data.{names[target]}"} if target in names else {}


def test_every_argument_that_is_a_path_is_known() -> None:
    """A new argument of a public class must be in one of the two tables of paths."""
    import inspect
    from importlib import import_module

    found = set()
    for name in buildable_names():
        module, _, attribute = name.rpartition(".")
        value = getattr(import_module(module), attribute)
        if name.startswith("stylegan_inv.") and callable(value):
            for parameter in inspect.signature(value).parameters.values():
                if "Path" in str(parameter.annotation):
                    found.add(parameter.name)
    assert found <= {*DATA_FILES, *PLACES} and {"root", "source", "network"} <= found
