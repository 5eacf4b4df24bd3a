"""Every key that an error message names exists: it is in a config, or an argument of an object there."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pkgutil import resolve_name
from typing import Any

import pytest
import yaml

from stylegan_inv.config import CONF_DIR
from tests.cli import REPOSITORY

PACKAGE = REPOSITORY / "stylegan_inv"
#: Functions whose texts are error messages, and checks whose first argument is the name of a key.
ERRORS = {"UserError", "RefusedPickle", "RefusedCode"}
CHECKS = {"whole_number", "real_number", "real_numbers", "one_of", "true_or_false"}
#: ``name=value`` in a message, and dotted names without a value.
_ASSIGNED = re.compile(r"(?<![\w.\0/$-])(?:\+\+?|~)?([A-Za-z_]\w*(?:\.\w+)*)=(\w*)")
_DOTTED = re.compile(r"(?<![\w.\0/~-])([a-z]\w*(?:\.[a-z_]\w*)+)(?![\w.\0(/])")
#: Words that are no keys, with the file whose messages have them.
OTHERS = {
    ("augment.p", "methods/generator/stylegan2.py"),  # a state of checkpoints
    # Arguments of functions that Python code calls.
    ("act", "generators/ops/bias_act.py"),
    ("up", "generators/ops/modulated_conv.py"),
    ("down", "generators/ops/modulated_conv.py"),
    ("f", "generators/ops/modulated_conv.py"),
    ("padding", "generators/ops/upfirdn2d.py"),
    ("alpha", "generators/discriminator.py"),
    ("c_dim", "generators/discriminator.py"),
    ("c_dim", "generators/mapping.py"),
    ("z_dim", "generators/mapping.py"),
    ("w_dim", "generators/mapping.py"),
    ("mapping_layers", "generators/mapping.py"),
    ("stage", "generators/progressive.py"),
    ("resolutions", "generators/variants/feature_copy.py"),
    ("synthesis.features", "generators/feature_maps.py"),
    ("synthesis.upto", "generators/feature_maps.py"),
    ("synthesis.styles", "generators/synthesis_inputs.py"),
    ("synthesis.weights", "generators/weight_changes.py"),
    ("generator.synthesis", "generators/frozen/cuda_graphs.py"),
    ("UNet.depth", "encoders/unet.py"),
    ("UNet.width", "encoders/unet.py"),
    ("k", "metrics/precision_recall.py"),
    ("dist_reduce_fx", "evaluate/set_states.py"),
    # Of an object that does not know its name: loss.NAME.region; dataset.aspect, and --aspect of `prepare pack`.
    ("normalise", "losses/compose.py"),
    ("region", "losses/compose.py"),
    ("aspect", "data/images/resizing.py"),
    ("box", "data/images/resizing.py"),
    ("key", "sweeps/wandb_sweep.py"),  # any key
    ("logger.wandb.mode", "runtime/loggers.py"),  # an argument of wandb.init
}


def texts(node: ast.AST) -> str:
    """Returns the text of an expression, with NUL for what is only known when it runs."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(map(texts, node.values))
    if isinstance(node, ast.BinOp):
        return texts(node.left) + texts(node.right)
    if isinstance(node, ast.IfExp):
        return f"{texts(node.body)} {texts(node.orelse)}"
    return "\0"


def messages() -> Iterator[tuple[str, str, bool]]:
    """Yields the file of each message, its text, and whether it is a mere name of a key."""
    for path in sorted(PACKAGE.rglob("*.py")):
        file = str(path.relative_to(PACKAGE))
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            name = call.func.id if isinstance(call.func, ast.Name) else ""
            if name in ERRORS:
                yield from ((file, texts(argument), False) for argument in call.args)
            elif name in CHECKS and call.args:
                yield file, texts(call.args[0]), True
            yield from ((file, texts(k.value), False) for k in call.keywords if k.arg == "hint")


def words() -> Iterator[tuple[str, str, str]]:
    """Yields each word of a message that may be a key, its file, and the literal value that it is given."""
    for file, text, is_name in messages():
        for key, value in _ASSIGNED.findall(text):
            yield key, file, value
        if not is_name:
            dotted = [key for key in _DOTTED.findall(text) if (CONF_DIR / key.partition(".")[0]).is_dir()]
        else:
            dotted = [text] if "." in text and not set(text) & {"\0", " "} else []
        for key in dotted:
            if not key.endswith((".json", ".yaml", ".csv")):
                yield key, file, ""


def keys() -> list[tuple[str, str, str]]:
    """Returns the words that have to be keys."""
    return [(key, file, value) for key, file, value in words() if (key, file) not in OTHERS]


@cache
def keys_of_configs() -> tuple[set[str], dict[str, set[str]]]:
    """Returns the keys of all config files, and the classes that are built from a key."""
    found: set[str] = set()
    targets: dict[str, set[str]] = {}

    def add(node: Any, prefix: str) -> None:
        if not isinstance(node, dict):
            return
        for key, value in node.items():
            name = f"{prefix}.{key}" if prefix else str(key)
            found.add(name)
            if key == "_target_":
                targets.setdefault(prefix, set()).add(value)
            add(value, name)

    for path in CONF_DIR.rglob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        header = re.search(r"^# @package (\S+)", text, re.MULTILINE)
        package = ".".join(path.relative_to(CONF_DIR).parent.parts) if header is None else header[1]
        add(yaml.safe_load(text), "" if package == "_global_" else package)
    return found, targets


def exists(key: str) -> bool:
    """Returns whether a user can give a key: a group, a key of a config file, or an argument of what is built there."""
    found, targets = keys_of_configs()
    if key in found or (CONF_DIR / key.replace(".", "/")).is_dir():
        return True
    parent, _, last = key.rpartition(".")
    return any(last in arguments(target) for target in targets.get(parent, ()))


@cache
def arguments(target: str) -> frozenset[str]:
    """Returns the names of the arguments of a class and of the classes that it passes others on to."""
    kind = resolve_name(target)
    kinds = inspect.getmro(kind) if inspect.isclass(kind) else (kind,)
    return frozenset(name for k in kinds if k is not object for name in inspect.signature(k).parameters)


def test_keys_exist() -> None:
    assert len(keys()) > 200
    wrong = {(key, file) for key, file, _ in keys() if not key.startswith("hydra.") and not exists(key)}
    assert not wrong, wrong


def test_options_of_groups_exist() -> None:
    """``optimizer=adam`` and the like name files."""
    for key, file, value in keys():
        if value and (CONF_DIR / key).is_dir():
            assert value == "null" or (CONF_DIR / key / f"{value}.yaml").is_file(), (key, value, file)


def test_exceptions_are_needed() -> None:
    assert {(key, file) for key, file, _ in words()} >= OTHERS


@pytest.mark.parametrize("key", ["progressive", "any_generator", "encoder.nothing", "dataset.sources.x"])
def test_keys_that_do_not_exist(key: str) -> None:
    assert not exists(key)
