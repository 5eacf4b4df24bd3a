"""Checkpoints that can be read and do not hold what a training continues from: one line, before anything is written."""

from __future__ import annotations

import copy
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stylegan_inv import train
from stylegan_inv.errors import UserError
from stylegan_inv.loading import load_inverter
from stylegan_inv.runtime.checkpoint_io import read_checkpoint
from stylegan_inv.runtime.training_state import NewRun, _check_loss_scale, check_checkpoint
from tests.faults.small import build, run

#: e4e has two optimisers, a pool of codes and stages.
METHOD = "e4e"
SHORT = ("trainer.max_steps=2", "trainer.val_check_interval=2", "callbacks.checkpoint.every_n_train_steps=1")
POOL = "adversary.fakes._extra_state"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "run"
    run(METHOD, folder, *SHORT)
    return folder


@pytest.fixture(scope="module")
def new_run(base: Path, tmp_path_factory: pytest.TempPathFactory) -> NewRun:
    """What `prepare` checks a checkpoint against; every case checks it again."""
    found: list[NewRun] = []

    def keep(location: Any, run: NewRun) -> Any:
        found.append(run)
        return location.ckpt_path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "checked_checkpoint", keep)
        last = base / "checkpoints" / "last.ckpt"
        build(METHOD, tmp_path_factory.mktemp("new") / "run", *SHORT, f"ckpt_path={last}")
    return found[0]


def put(*keys: Any) -> Callable[[dict[str, Any]], None]:
    """Sets the last of ``keys`` within the others to the value after them; without a value removes it."""

    def change(checkpoint: Any) -> None:
        *way, last, value = keys
        for key in way:
            checkpoint = checkpoint[key]
        if value is ...:
            del checkpoint[last]
        else:
            checkpoint[last] = value(checkpoint[last]) if callable(value) else value

    return change


GROUP, STATE = ("optimizer_states", 0, "param_groups", 0), ("optimizer_states", 0, "state", 0)
FIT = ("loops", "fit_loop")
BATCHES = (*FIT, "epoch_loop.batch_progress")
DATA = "SynthFacesDataModule"


def one_tensor(change: Callable[[torch.Tensor], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def changed(state: dict[str, Any]) -> dict[str, Any]:
        key = next(key for key, value in state.items() if key.startswith("encoder.") and value.ndim > 1)
        return {**state, key: change(state[key])}

    return changed


def of_checkpoints(**values: Any) -> Callable[[dict[str, Any]], None]:
    def changed(callbacks: dict[str, Any]) -> dict[str, Any]:
        return {key: {**value, **values} if "Checkpoints" in key else value for key, value in callbacks.items()}

    return put("callbacks", changed)


CASES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a weight is text": (put("state_dict", one_tensor(lambda _: "x")), "expected tensors by name"),
    "a weight of whole numbers": (put("state_dict", one_tensor(lambda t: t.to(torch.int8))), "torch.int8"),
    "a weight is NaN": (put("state_dict", one_tensor(lambda t: t * math.nan)), "NaN"),
    "keys that are numbers": (put("state_dict", 5, torch.ones(1)), "state_dict"),
    "no epoch": (put("epoch", ...), "epoch=None"),
    "epoch of text": (put("epoch", "x"), "epoch=x"),
    "negative step": (put("global_step", -1), "global_step=-1"),
    "step of text": (put("global_step", "4"), "global_step=4"),
    "no version": (put("pytorch-lightning_version", ...), "pytorch-lightning_version"),
    "another version": (put("pytorch-lightning_version", 3), "its steps"),
    "a version of text": (put("pytorch-lightning_version", "new"), "'new'"),
    "no loops": (put("loops", ...), "its loops"),
    "a list of loops": (put("loops", []), "its loops"),
    "no loop of the training": (put("loops", {}), "fit_loop"),
    "progress is a list": (put(*BATCHES, []), "epoch_loop.batch_progress is a list"),
    "progress is text": (put(*BATCHES, "total", "ready", "x"), "ready is 'x', expected a whole number of at least 0"),
    "progress is a vector": (put(*BATCHES, "total", "ready", torch.ones(3)), "ready is a tensor (3,)"),
    "progress is negative": (put(*BATCHES, "total", "ready", -3), "ready is -3"),
    "half of the progress": (put(*BATCHES, "total", ...), "its loops"),
    "truth is text": (put(*BATCHES, "is_last_batch", "yes"), "is_last_batch"),
    "batches are text": (put(*FIT, "epoch_loop.state_dict", "_batches_that_stepped", "x"), "_batches_that_stepped"),
    "no optimisers": (put("optimizer_states", ...), "optimizer_states is None, expected a list"),
    "optimisers in a dict": (put("optimizer_states", {}), "optimizer_states is a dict"),
    "an optimiser too few": (put("optimizer_states", lambda s: s[:1]), "has 1 entries, expected 2"),
    "optimisers of text": (put("optimizer_states", ["a", "b"]), "expected a mapping"),
    "no groups": (put("optimizer_states", 0, "param_groups", ...), "param_groups"),
    "more groups": (put("optimizer_states", 0, "param_groups", lambda g: g * 2), "param_groups has 2 entries"),
    "rate of text": (put(*GROUP, "lr", "x"), "lr is 'x', expected a number"),
    "no rate": (put(*GROUP, "lr", ...), "no lr"),
    "rate is None": (put(*GROUP, "lr", None), "lr is None"),
    "rate is NaN": (put(*GROUP, "lr", math.nan), "lr is nan"),
    "rate is infinite": (put(*GROUP, "lr", math.inf), "lr is inf"),
    "decay is a tensor of NaN": (put(*GROUP, "weight_decay", torch.tensor(math.nan)), "weight_decay is a tensor"),
    "one beta": (put(*GROUP, "betas", [0.9]), "betas"),
    "group of another name": (put(*GROUP, "name", "decoder"), "called 'decoder', expected encoder"),
    "fewer parameters": (put(*GROUP, "params", lambda p: p[:-1]), "parameters, expected"),
    "state of no parameter": (put("optimizer_states", 0, "state", 9999, {}), r"state[9999] is of no parameter"),
    "state is a list": (put("optimizer_states", 0, "state", []), "state is a list"),
    "moments are text": (put(*STATE, "exp_avg", "x"), "exp_avg is 'x'"),
    "step is text": (put(*STATE, "step", "x"), "step is 'x'"),
    "moments of another shape": (put(*STATE, "exp_avg", torch.ones(3)), "exp_avg is a tensor (3,)"),
    "moments are NaN": (put(*STATE, "exp_avg_sq", lambda t: t * math.nan), "exp_avg_sq holds NaN"),
    "moments are None": (put(*STATE, "exp_avg", None), "exp_avg is None"),
    "no moments": (put(*STATE, "exp_avg_sq", ...), "has no exp_avg_sq"),
    "step is a vector": (put(*STATE, "step", torch.ones(3)), "step is a tensor (3,)"),
    "no schedules": (put("lr_schedulers", ...), "lr_schedulers is None"),
    "a schedule too few": (put("lr_schedulers", []), "has 0 entries, expected 1"),
    "schedules of text": (put("lr_schedulers", ["x"]), "lr_schedulers is 'x'"),
    "schedule without rates": (put("lr_schedulers", 0, "base_lrs", []), "base_lrs"),
    "schedule of text": (put("lr_schedulers", 0, "last_epoch", "x"), "last_epoch is 'x'"),
    "no callbacks": (put("callbacks", ...), "callbacks"),
    "a list of callbacks": (put("callbacks", []), "callbacks is a list"),
    "callback is a list": (put("callbacks", "SkipNonFinite", [1]), "SkipNonFinite is a list"),
    "callback counts text": (put("callbacks", "SkipNonFinite", "skipped", "x"), "skipped is 'x'"),
    "callback without count": (put("callbacks", "SkipNonFinite", "skipped", ...), "skipped"),
    "best model is a number": (of_checkpoints(best_model_path=5), "best_model_path"),
    "data is a list": (put(DATA, []), "state of the data is a list"),
    "data without size": (put(DATA, "size", ...), "data.size=None"),
    "negative draw": (put(DATA, "draw", -8), "data.draw=-8"),
    "more batches than steps": (put(DATA, "batches", 7), "data.batches is 7, expected at most 2"),
    "a draw beyond NumPy": (put(DATA, "draw", 1 << 70), "data.draw="),
    "ranks are a number": (put("by_rank", lambda _: 5), "by_rank is 5"),
    "ranks without states": (put("by_rank", lambda _: [{}]), "states of its ranks"),
    "other steps than the loops": (put("global_step", 0), "global_step is 0, expected 2, the steps of the loops"),
    "half of a step": (put(*BATCHES, "total", "ready", 0.5), "ready is 0.5, expected a whole number"),
    "more than all steps": (put(*BATCHES, "total", "started", 1e300), "started is 1e+300, expected a whole number"),
    "a moment after a step": (put(*STATE, "step", 5e-324), "step is 5e-324, expected a whole number"),
    "a moment after all steps": (put(*STATE, "step", torch.tensor(1e38)), "step is a tensor () of torch.float32"),
    "a negative rate": (put(*GROUP, "lr", -1.0), "learning rate: -1"),
    "a beta of two": (put(*GROUP, "betas", [2.0, 0.9]), "beta parameter at index 0: 2.0"),
    "another switch": (put(*GROUP, "maximize", True), "maximize is True, expected False"),
    "capturable": (
        put("optimizer_states", 1, "param_groups", 0, "capturable", True),
        "capturable is True, expected False",
    ),
    "foreach is a list": (
        put("optimizer_states", 1, "param_groups", 0, "foreach", [1]),
        "foreach is a list, expected None",
    ),
    "negative squares": (put(*STATE, "exp_avg_sq", lambda t: -t - 1), "exp_avg_sq holds negative numbers"),
    "moments beyond float32": (put(*STATE, "exp_avg", lambda t: t.double() + 1e300), "exp_avg holds NaN or infinite"),
    "epochs of a schedule": (put("lr_schedulers", 0, "last_epoch", 0.5), "last_epoch=0.5"),
    "steps of a schedule": (put("lr_schedulers", 0, "_step_count", 1e300), "_step_count=1e+300"),
    "an empty callback": (put("callbacks", "SkipNonFinite", ""), "SkipNonFinite is '', expected a mapping"),
    "a negative count": (put("callbacks", "SkipNonFinite", "in_a_row", -1), "in_a_row=-1"),
    "a count of all bits": (put("callbacks", "SkipNonFinite", "skipped", 1 << 63), "skipped=9223372036854775808"),
    "a count in a tensor": (put("callbacks", "SkipNonFinite", "skipped", torch.ones(())), "skipped=tensor(1.)"),
    "best score is NaN": (of_checkpoints(best_model_score=math.nan), "best_model_score holds nan"),
    "best score is true": (of_checkpoints(best_model_score=True), "best_model_score holds True"),
    "best scores": (of_checkpoints(best_model_score=torch.ones(3)), "best_model_score holds tensor"),
    "score of text": (of_checkpoints(current_score="x"), "current_score holds 'x'"),
    "scores of text": (of_checkpoints(best_k_models={"a.ckpt": "x"}), "best_k_models holds 'x'"),
    "steps of text": (
        put("state_dict", "adversary.steps", lambda _: torch.tensor(math.nan)),
        "adversary.steps holds other",
    ),
    "distances of a text": (put("reached", "quantiles", "1" * 9), "validation distances"),
    "distances of true": (put("reached", "relative", 0, True), "validation distances"),
    "no relative distances": (put("reached", "relative", ""), "validation distances"),
    "half an image": (put("reached", "images", 2.5), "validation distances"),
    "pool of text": (put("state_dict", POOL, "x"), "LatentPool"),
    "pool without codes": (put("state_dict", POOL, "codes", ...), "LatentPool"),
    "pool of no random state": (put("state_dict", POOL, "random", torch.ones(3)), "random state"),
    "frozen is a list": (put("frozen", ["a"]), "does not fit E4E"),
    "method is a list": (put("method", [1]), "checkpoint of method [1]"),
    "distances are a number": (put("reached", 7), "validation distances"),
}


def test_the_original_fits(base: Path, new_run: NewRun) -> None:
    before = {key: value.clone() for key, value in new_run.method.named_parameters()}
    check_checkpoint(base / "checkpoints" / "last.ckpt", new_run)
    assert all(torch.equal(value, before[key]) for key, value in new_run.method.named_parameters())


@pytest.mark.parametrize("name", CASES)
def test_wrong_content_is_named(name: str, base: Path, new_run: NewRun, tmp_path: Path) -> None:
    checkpoint = copy.deepcopy(read_checkpoint(base / "checkpoints" / "last.ckpt"))
    checkpoint.setdefault("by_rank", [])
    change, expected = CASES[name]
    change(checkpoint)
    torch.save(checkpoint, tmp_path / "x.ckpt")
    with pytest.raises(UserError) as error:
        check_checkpoint(tmp_path / "x.ckpt", new_run)
    message = str(error.value)
    assert expected in message and "\n" not in message and len(message) < 700, message


AVERAGING = "averaging_state"
OTHERS: dict[str, tuple[str, dict[str, tuple[Callable[[dict[str, Any]], None], str]]]] = {
    "restyle": (
        "callbacks=ema",
        {
            "no shape": (put(AVERAGING, "n_averaged", torch.ones(0)), "averaging_state has"),
            "no tensor": (put(AVERAGING, "n_averaged", 3), "n_averaged is 3, expected a tensor ()"),
            "too many": (put(AVERAGING, "n_averaged", torch.tensor(1e300).double()), "averaging_state has"),
            "negative": (put(AVERAGING, "n_averaged", torch.tensor(-1)), "averaging_state has"),
            "weights": (put(AVERAGING, "module.encoder.neck.weight", "x"), "averaging_state has"),
            "no averages": (put(AVERAGING, ...), "averaging_state is None"),
            "averages alone": (put("current_model_state", ...), "current_model_state is None"),
            "never again": (
                put("callbacks", "EMAWeightAveraging", "latest_update_step", 1 << 63),
                "latest_update_step",
            ),
        },
    ),
    "stylegan2": (
        "augment=ada",
        {
            "probability": (put("state_dict", "augment.p", torch.tensor(7.0)), "augment.p=7"),
            "path length": (put("state_dict", "pl_mean", torch.tensor(-1.0)), "pl_mean=-1"),
            "images": (put("state_dict", "augment._images", torch.tensor(-5)), "augment._images holds other numbers"),
            "batches": (put("state_dict", "batches", torch.tensor(math.nan)), "batches holds other numbers"),
        },
    ),
}


@pytest.mark.parametrize("method", OTHERS)
def test_states_of_averaged_weights_and_generators(method: str, tmp_path: Path) -> None:
    option, cases = OTHERS[method]
    run(method, tmp_path / "run", *SHORT, option)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "checked_checkpoint", lambda location, job: found.append(job) or location.ckpt_path)
        found: list[NewRun] = []
        build(method, tmp_path / "new", *SHORT, option, f"ckpt_path={last}")
    check_checkpoint(last, found[0])
    for change, expected in cases.values():
        checkpoint = copy.deepcopy(read_checkpoint(last))
        change(checkpoint)
        torch.save(checkpoint, tmp_path / "x.ckpt")
        with pytest.raises(UserError) as error:
            check_checkpoint(tmp_path / "x.ckpt", found[0])
        assert expected in str(error.value) and "\n" not in str(error.value), error.value


def test_loss_scales() -> None:
    _check_loss_scale("MixedPrecision", {"scale": 65536.0, "_growth_tracker": 0})
    for state in ([1], {"scale": 0.0}, {"scale": math.nan}, {"scale": "x"}, {"_growth_tracker": -1}):
        with pytest.raises(UserError, match="MixedPrecision.* is .*, expected a "):
            _check_loss_scale("MixedPrecision", state)


def test_nothing_is_written_and_the_one_before_is_taken(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    last = tmp_path / "bad.ckpt"
    checkpoint = torch.load(base / "checkpoints" / "last.ckpt", weights_only=True)
    CASES["an optimiser too few"][0](checkpoint)
    torch.save(checkpoint, last)
    with pytest.raises(UserError, match="bad.ckpt: its optimisers cannot be restored"):
        build(METHOD, folder, *SHORT, f"ckpt_path={last}")
    assert not folder.exists()
    shutil.copytree(base, folder)
    shutil.copy(last, folder / "checkpoints" / "last.ckpt")
    with caplog.at_level(logging.WARNING):
        job = build(METHOD, folder, "trainer.max_steps=4", *SHORT[1:])[1]
    assert job.location.ckpt_path == folder / "checkpoints" / "previous.ckpt"
    assert "last.ckpt: its optimisers" in caplog.text and "continuing from" in caplog.text
    shutil.copy(last, folder / "checkpoints" / "previous.ckpt")
    with pytest.raises(UserError, match="last.ckpt: its optimisers"):
        build(METHOD, folder, "trainer.max_steps=4", *SHORT[1:])


def test_weights_that_are_none_are_not_inverted_with(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(base, folder)
    for name in ("a weight is NaN", "a weight is text", "frozen is a list"):
        checkpoint = torch.load(base / "checkpoints" / "last.ckpt", weights_only=True)
        CASES[name][0](checkpoint)
        torch.save(checkpoint, folder / "checkpoints" / "x.ckpt")
        with pytest.raises(UserError) as error:
            load_inverter(folder / "checkpoints" / "x.ckpt")
        assert "x.ckpt" in str(error.value) and "\n" not in str(error.value)
