"""Checks that a training can continue from a checkpoint, before it begins.

Lightning restores a checkpoint after the run folder exists, and believes what the file holds: it stops with an
``AttributeError`` at a list instead of a dict, ignores the states of optimisers that are missing, and takes a text for
a learning rate. Here every state is compared with that of the new run, and loaded into objects that are thrown away.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from packaging.version import InvalidVersion, Version
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.optim import Optimizer

from stylegan_inv.data.datamodules.base import ImageDataModule
from stylegan_inv.errors import UserError
from stylegan_inv.methods.common.base import InversionMethod
from stylegan_inv.methods.common.trained import TrainedMethod
from stylegan_inv.runtime.checkpoint_io import LAST, PREVIOUS, check_state, read_checkpoint, restoring
from stylegan_inv.runtime.ranks import StatePerRank
from stylegan_inv.runtime.run_location import RunLocation
from stylegan_inv.utils.checks import whole_number
from stylegan_inv.utils.compat import finished_batches, finished_steps, optimizers_and_schedulers

_log = logging.getLogger(__name__)
#: States of a parameter that have its shape, in PyTorch's optimisers and in `optim.ranger`.
_OF_PARAMETER_SHAPE = frozenset(("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "slow"))
#: Those that are averages of squares.
_SQUARES = frozenset(("exp_avg_sq", "max_exp_avg_sq"))
#: Options of PyTorch's optimisers that choose an implementation; None leaves the choice to the optimiser.
_IMPLEMENTATIONS = ("foreach", "fused")
#: More steps than any training takes; a float holds them exactly.
_LARGEST_COUNT = 1 << 53
#: The smallest factor of the loss by which float32 can divide.
_LEAST_LOSS_SCALE = 1e-30
_ADVICE = "expected a checkpoint of this command; give another one, or none to start anew"


@dataclass(frozen=True)
class NewRun:
    """What a checkpoint is going to be loaded into.

    Attributes:
        method: The module to fit, whose weights are checked and not changed.
        data: Its data, likewise.
        trainer: A trainer with callbacks that is thrown away.
        configured: Result of ``method.configure_optimizers()``, which is thrown away.
    """

    method: pl.LightningModule
    data: pl.LightningDataModule
    trainer: pl.Trainer
    configured: Any


def checked_checkpoint(location: RunLocation, run: NewRun) -> Path:
    """Returns the checkpoint to continue from: that of the location or, if the user did not name it, the one before it.

    Args:
        location: Where the run writes and what it continues; it has a checkpoint.
        run: What the checkpoint is going to be loaded into.

    Raises:
        UserError: The checkpoint does not fit the run.
    """
    path = location.ckpt_path
    assert path is not None
    problem: UserError | None = None
    for candidate in (path, path.with_name(PREVIOUS)):
        if candidate != path and (path.name != LAST or location.named_checkpoint or not candidate.exists()):
            break
        try:
            check_checkpoint(candidate, run)
        except UserError as error:
            problem = problem or error
        else:
            if problem is not None:
                _log.warning("%s; continuing from %s", problem, candidate)
            return candidate
    assert problem is not None
    raise problem


def check_checkpoint(path: Path, run: NewRun) -> None:
    """Checks that a training can continue from a checkpoint; see `checked_checkpoint`."""
    trains = not isinstance(run.method, InversionMethod) or isinstance(run.method, TrainedMethod)
    checkpoint = read_checkpoint(path)
    if trains:
        check_steps(checkpoint, path)
    with restoring(path, run.method):
        run.method.on_load_checkpoint(checkpoint)
    check_state(run.method, checkpoint["state_dict"], path)
    if trains:
        check_training_state(checkpoint, path, run)


def check_steps(checkpoint: dict[str, Any], path: Path) -> None:
    """Checks the entries that say how far a training was.

    Raises:
        UserError: Entries that are missing or of another type.
    """
    with _named(path, "its steps"):
        for name in ("epoch", "global_step"):
            whole_number(name, checkpoint.get(name), least=0)
        Version(checkpoint["pytorch-lightning_version"])


def check_training_state(checkpoint: dict[str, Any], path: Path, run: NewRun) -> None:
    """Checks what Lightning restores besides the weights; see also `check_steps`.

    Args:
        checkpoint: Content of the file.
        path: The file, for errors.
        run: What it is going to be loaded into.

    Raises:
        UserError: Entries that are missing, of another type, or of another run.
    """
    optimizers, schedulers = optimizers_and_schedulers(run.configured)
    with _named(path, "its optimisers"):
        _check_count("optimizer_states", checkpoint.get("optimizer_states"), optimizers)
        for optimizer, state in zip(optimizers, checkpoint["optimizer_states"], strict=True):
            _check_optimizer(optimizer, state)
    with _named(path, "its schedules"):
        _check_count("lr_schedulers", checkpoint.get("lr_schedulers"), schedulers)
        for scheduler, state in zip(schedulers, checkpoint["lr_schedulers"], strict=True):
            check_like(scheduler.state_dict(), state, "lr_schedulers")
            for name in ("last_epoch", "_step_count"):
                whole_number(f"lr_schedulers.{name}", state[name], 0, _LARGEST_COUNT)
            before = scheduler.state_dict()
            scheduler.load_state_dict(copy.deepcopy(state))
            scheduler.load_state_dict(before)
    with _named(path, "its loops"):
        loops = checkpoint["loops"]["fit_loop"]
        check_like(run.trainer.fit_loop.state_dict(), loops, "loops.fit_loop", least=0)
        run.trainer.fit_loop.load_state_dict(copy.deepcopy(loops))
        if checkpoint["global_step"] != (done := finished_steps(run.trainer, run.method)):
            raise UserError(f"global_step is {checkpoint['global_step']}, expected {done}, the steps of the loops")
    with _named(path, "its callbacks"):
        for callback in run.trainer.callbacks:  # type: ignore[attr-defined]
            if callback.state_key in _mapping("callbacks", checkpoint["callbacks"]):
                _check_callback(callback, checkpoint["callbacks"][callback.state_key], checkpoint["global_step"])
        _check_averaged_weights(checkpoint, path, run.method)
    with _named(path, "its precision"):
        precision = run.trainer.precision_plugin
        if (name := type(precision).__qualname__) in checkpoint:
            _check_loss_scale(name, checkpoint[name])
            precision.load_state_dict(copy.deepcopy(checkpoint[name]))
    with _named(path, "its data"):
        if (name := type(run.data).__qualname__) in checkpoint and isinstance(run.data, ImageDataModule):
            _check_batches(run.data.checked_state(checkpoint[name]), run.trainer)
    with _named(path, "the states of its ranks"):
        _check_ranks(run.method, checkpoint)


def check_like(own: Any, stored: Any, where: str, least: float = -math.inf) -> None:
    """Checks that a stored state has the types of one's own, in the entries that both have.

    Args:
        own: State of a new object. None says nothing about the type.
        stored: The state of a file.
        where: Name of the state, for errors.
        least: Smallest number that is allowed.

    Raises:
        UserError: A value of another type.
    """
    if own is None:
        return
    if isinstance(own, dict):
        stored = _mapping(where, stored)
        for key in own.keys() & stored.keys():
            check_like(own[key], stored[key], f"{where}.{key}", least)
        return
    if isinstance(own, bool | str):
        right, expected = isinstance(stored, type(own)), type(own).__name__
    elif isinstance(own, int | float | Tensor):
        # A tensor may be infinite, as the best score of a callback that has seen none.
        is_like = isinstance(own, Tensor) and isinstance(stored, Tensor) and stored.shape == own.shape
        counts = isinstance(own, int) and least >= 0  # numbers without a bound, such as a rate of 1, have any type
        right = is_like or (_is_count(stored) if counts else _is_number(stored, least))
        expected = "a number" if least == -math.inf else f"a {'whole ' * counts}number of at least {least:g}"
    elif isinstance(own, list | tuple):
        right, expected = isinstance(stored, list | tuple) and len(stored) == len(own), f"{len(own)} values"
    else:
        return
    if not right:
        raise UserError(f"{where} is {_short(stored)}, expected {expected}")
    if isinstance(own, list | tuple):
        for number, (first, second) in enumerate(zip(own, stored, strict=True)):
            check_like(first, second, f"{where}[{number}]", least)


def _is_number(value: Any, least: float) -> bool:
    """Returns whether a value is a finite number of at least some size, or a tensor that holds one."""
    if isinstance(value, Tensor):
        if value.numel() != 1 or value.is_complex():
            return False
        value = value.item()
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= least


def _is_count(value: Any) -> bool:
    """Returns whether a value is a whole number of steps, also one in a tensor or a float."""
    return _is_number(value, 0) and float(value).is_integer() and value <= _LARGEST_COUNT


@contextlib.contextmanager
def _named(path: Path, what: str) -> Iterator[None]:
    """Turns whatever goes wrong in the block into an error of one line."""
    try:
        yield
    except InvalidVersion as error:
        raise UserError(f"{path}: {what} cannot be restored ({_short(error)}); {_ADVICE}") from error
    except Exception as error:  # states of other types raise errors of many types
        reason = f"holds no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise UserError(f"{path}: {what} cannot be restored ({' '.join(reason.split())[:200]}); {_ADVICE}") from error


def _check_count(name: str, states: Any, own: Sequence[Any]) -> None:
    if not isinstance(states, list):
        raise UserError(f"{name} is {_short(states)}, expected a list")
    if len(states) != len(own):
        raise UserError(f"{name} has {len(states)} entries, expected {len(own)}")


def _check_optimizer(optimizer: Optimizer, state: Any) -> None:
    """Checks the state of an optimiser, and that it can be loaded."""
    groups = _mapping("optimizer_states", state)["param_groups"]
    own = copy.copy(optimizer.param_groups)
    _check_count("param_groups", groups, own)
    for number, (first, second) in enumerate(zip(own, groups, strict=True)):
        where = f"param_groups[{number}]"
        check_like({**first, "params": None}, second, where)
        _check_options(where, optimizer, first, second)
        if first.get("name") != second.get("name"):
            raise UserError(f"{where} is called {_short(second.get('name'))}, expected {first.get('name')}")
        if len(second["params"]) != len(first["params"]):
            raise UserError(f"{where} has {len(second['params'])} parameters, expected {len(first['params'])}")
    parameters = [parameter for group in own for parameter in group["params"]]
    numbers = [number for group in groups for number in group["params"]]
    first_state = _first_state(optimizer)
    for number, values in _mapping("state", state["state"]).items():
        if number not in numbers:
            raise UserError(f"state[{_short(number)}] is of no parameter")
        _check_moments(f"state[{number}]", parameters[numbers.index(number)], values, first_state)
    before = optimizer.state_dict()
    try:
        optimizer.load_state_dict(copy.copy(state))
        for first, second in zip(own, optimizer.param_groups, strict=True):
            if missing := sorted(first.keys() - second.keys()):
                raise UserError(f"a parameter group has no {', '.join(missing)}")
    finally:  # another checkpoint may be checked after this one
        optimizer.load_state_dict(before)


def _check_options(where: str, optimizer: Optimizer, own: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Checks that the optimiser accepts the stored options of a group, which replace its own, and its switches."""
    for name in own.keys() & stored.keys():
        is_switch = isinstance(own[name], bool) or name in _IMPLEMENTATIONS
        if is_switch and stored[name] is not own[name]:
            raise UserError(f"{where}.{name} is {_short(stored[name])}, expected {own[name]}")
    accepted = inspect.signature(type(optimizer)).parameters
    options = {name: stored[name] for name in optimizer.defaults if name in stored and name in accepted}
    try:
        type(optimizer)([nn.Parameter(torch.zeros(1))], **options)
    except ValueError as error:  # an option out of its range
        raise UserError(f"{where}: {error}") from error


def _first_state(optimizer: Optimizer) -> dict[str, Any]:
    """Returns the state that an optimiser has for a parameter of one number after its first step."""
    scratch = nn.Parameter(torch.zeros(1))
    scratch.grad = torch.zeros(1)
    trial = copy.copy(optimizer)
    trial.state = defaultdict(dict)
    trial.param_groups = [{**optimizer.param_groups[0], "params": [scratch]}]
    trial.step()
    return dict(trial.state[scratch])


def _check_moments(where: str, parameter: Tensor, values: Any, first_state: Mapping[str, Any]) -> None:
    if missing := sorted(first_state.keys() - _mapping(where, values).keys()):
        raise UserError(f"{where} has no {', '.join(missing)}")
    for name, value in values.items():
        if isinstance(value, str) or (value is None and first_state.get(name) is not None):
            raise UserError(f"{where}.{name} is {_short(value)}, expected a number or a tensor")
        if name not in _OF_PARAMETER_SHAPE or value is None:
            is_right = _is_count(value) if name == "step" else _is_number(value, 0)
            if first_state.get(name) is not None and not is_right:
                whole = "whole " if name == "step" else ""
                raise UserError(f"{where}.{name} is {_short(value)}, expected a {whole}number of at least 0")
            continue
        if not isinstance(value, Tensor) or value.shape != parameter.shape or not value.is_floating_point():
            raise UserError(f"{where}.{name} is {_short(value)}, expected a tensor {tuple(parameter.shape)}")
        value = value.to(parameter.dtype)  # as the optimiser does, in which large numbers become infinite
        if not bool(value.isfinite().all()):
            raise UserError(f"{where}.{name} holds NaN or infinite numbers")
        if name in _SQUARES and bool((value < 0).any()):
            raise UserError(f"{where}.{name} holds negative numbers, expected means of squares")


def _check_callback(callback: pl.Callback, state: Any, steps: int) -> None:
    """Checks the state of a callback, and that it can be loaded."""
    name = f"callbacks.{type(callback).__name__}"
    check_like(callback.state_dict(), _mapping(name, state), name)
    if state and isinstance(callback, WeightAveraging):
        whole_number(f"{name}.latest_update_step", state.get("latest_update_step"), 0, steps)
    if state:
        callback.load_state_dict(copy.deepcopy(state))


def _check_averaged_weights(checkpoint: dict[str, Any], path: Path, method: nn.Module) -> None:
    """Checks the trained weights and the number of averages in a checkpoint of `callbacks=ema`."""
    names = ("current_model_state", "averaging_state")
    if not any(name in checkpoint for name in names):
        return
    weights, averaging = (_mapping(name, checkpoint.get(name)) for name in names)
    check_state(method, weights, path)
    # Other entries would replace averaged weights that have been checked.
    if averaging.keys() != {"n_averaged"} or not _is_count(count := averaging["n_averaged"]):
        raise UserError(f"averaging_state has {_short([*averaging])}, expected n_averaged, a number of at least 0")
    if not isinstance(count, Tensor) or count.ndim:
        raise UserError(f"averaging_state.n_averaged is {_short(count)}, expected a tensor ()")


def _check_loss_scale(name: str, state: Any) -> None:
    """Checks the state of a gradient scaler."""
    for key, value in _mapping(name, state).items():
        least = _LEAST_LOSS_SCALE if key == "scale" else 0
        if not _is_number(value, least):
            raise UserError(f"{name}.{_short(key)} is {_short(value)}, expected a number of at least {least:g}")


def _check_batches(data: Mapping[str, int], trainer: pl.Trainer) -> None:
    """Raises a UserError if the data have handed out more batches than the loops, which are restored, have finished."""
    if data.get("batches", 0) > (done := finished_batches(trainer)):
        raise UserError(f"data.batches is {data['batches']}, expected at most {done}, the batches of the loops")


def _check_ranks(method: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
    """Checks the states that differ between ranks: that of the first one, and of all in ``by_rank``."""
    parts = {name: p for name, p in method.named_modules() if isinstance(p, StatePerRank) and p.differs_by_rank}
    ranks = checkpoint.get("by_rank", [])
    if not isinstance(ranks, list):
        raise UserError(f"by_rank is {_short(ranks)}, expected a list")
    for name, part in parts.items():
        first = checkpoint["state_dict"][f"{name}._extra_state"]
        for state in (first, *(_mapping("by_rank", rank)[name] for rank in ranks)):
            copy.deepcopy(part).set_extra_state(state)


def _mapping(name: str, value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{name} is {_short(value)}, expected a mapping")
    return value


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {value.dtype}"
    return f"a {type(value).__name__}" if isinstance(value, dict | list | tuple) else repr(value)[:60]
