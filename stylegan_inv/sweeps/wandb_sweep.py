"""Translates a Hydra sweep into a sweep of Weights & Biases, whose jobs are started by agents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, QuotedString
from omegaconf import OmegaConf

from stylegan_inv.config import CONF_DIR
from stylegan_inv.errors import UserError

_PROGRAM = "stylegan_inv.train"


def wandb_sweep(overrides: Sequence[str]) -> dict[str, Any]:
    """Returns the definition of a sweep.

    Args:
        overrides: Overrides as for ``python -m stylegan_inv.train -m``, such as ``sweep=loss_weights`` or
            ``method.iterations=1,3``.

    Returns:
        The input of ``wandb sweep``: program, command, method (``grid``; ``bayes`` if an interval is searched), metric
        and parameters. A job is ``python -m stylegan_inv.train`` with the fixed overrides and the values of the job.

    Raises:
        UserError: Nothing is swept, or Weights & Biases does not accept a name.
    """
    given = _parse(overrides)
    fixed = [override.input_line or "" for override in given if not override.is_sweep_override()]
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        cfg = hydra.compose("train", fixed, return_hydra_config=True)
    sweeper: Any = OmegaConf.to_container(cfg.hydra.sweeper)
    listed = _parse([f"{name}={values}" for name, values in (sweeper.get("params") or {}).items()])
    # The command line overrides the file of the sweep, whether it sweeps a name or fixes it.
    named = {override.get_key_element() for override in given}
    params = [override for override in listed if override.get_key_element() not in named]
    swept = [override for override in (*params, *given) if override.is_sweep_override()]
    fixed += [override.input_line or "" for override in params if not override.is_sweep_override()]
    if not swept:
        raise UserError(f"{' '.join(overrides) or 'no override'}: nothing is swept; give sweep=loss_weights or key=1,2")
    first = [f"{o.key_or_group}={_first_value(o)}" for o in swept if o.get_key_element()[0] not in "+~"]
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        hydra.compose("train", [*fixed, *first])  # raises for a key or an option that does not exist
    searched = any(override.is_interval_sweep() for override in swept)
    name = OmegaConf.select(cfg, "hydra.runtime.choices.sweep")
    return {
        "name": f"{cfg.method_name} {name or 'sweep'}",
        "program": _PROGRAM,
        "method": "bayes" if searched else "grid",
        "metric": {"name": cfg.optimized_metric, "goal": cfg.optimized_goal},
        "parameters": {_name(override): _parameter(override) for override in swept},
        "command": ["${env}", "${interpreter}", "-m", "${program}", *fixed, "hydra.mode=RUN", "${args_no_hyphens}"],
    }


def _parse(overrides: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(overrides))


def _name(override: Override) -> str:
    name = override.get_key_element()
    if not all(letter.isalnum() or letter in "_.-" for letter in name) or not (name[0].isalpha() or name[0] == "_"):
        raise UserError(
            f"{name}: Weights & Biases accepts letters, digits and _.- in the names it sweeps; do not sweep this one"
        )
    return name


def _parameter(override: Override) -> dict[str, Any]:
    value = override.value()
    if isinstance(value, IntervalSweep):
        ends = {"min": value.start, "max": value.end}
        if isinstance(value.start, int) and isinstance(value.end, int):
            return {"distribution": "int_uniform", **ends}
        return {"distribution": "log_uniform_values" if "log" in value.tags else "uniform", **ends}
    return {"values": [_plain(element) for element in override.sweep_iterator()]}


def _first_value(override: Override) -> Any:
    value = override.value()
    return value.start if isinstance(value, IntervalSweep) else next(iter(override.sweep_string_iterator()))


def _plain(element: Any) -> Any:
    if isinstance(element, QuotedString):
        return element.text
    return "null" if element is None else element  # agents write None, which Hydra reads as a string
