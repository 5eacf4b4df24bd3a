"""Steps with losses or images that are not finite are skipped, counted and reported, and never saved."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from tests.faults.small import differences, rows, run, state

BREAK = "+callbacks.break={{_target_: tests.faults.test_non_finite.Break, what: {what}, steps: {steps}}}"


class Break(pl.Callback):
    """Spoils something in some steps, counted from 0."""

    def __init__(self, what: str, steps: list[int]) -> None:
        self.what, self.steps = what, steps

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: dict[str, Tensor], *args: Any) -> None:
        step = trainer.fit_loop.epoch_loop.batch_progress.total.processed
        if step not in self.steps:
            return
        if self.what == "image":
            batch["image"][0] = torch.nan
        if self.what == "loss":
            module.loss.terms["l2"] = Nan(module.loss.terms["l2"])
        if self.what == "latents":
            # The last layer is what the codes come from.
            hook = module.encoder.register_forward_hook(lambda m, i, codes: (hook.remove(), codes * 1e30 * 1e30)[1])
        if self.what == "weights":
            next(module.parameters()).data.fill_(torch.inf)

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *args: Any) -> None:
        if self.what == "loss" and isinstance(module.loss.terms["l2"], Nan):
            module.loss.terms["l2"] = module.loss.terms["l2"].real


class Nan(nn.Module):
    def __init__(self, real: nn.Module) -> None:
        super().__init__()
        self.real = real

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.real(*args, **kwargs) * torch.nan


def finite(tree: Any) -> bool:
    if isinstance(tree, Tensor):
        return bool(torch.isfinite(tree).all())
    values = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (list, tuple)) else []
    return all(finite(value) for value in values)


@pytest.mark.parametrize(
    ("method", "what", "more"),
    [
        ("psp", "loss", ()),
        ("e4e", "image", ("encoder=single_level", "encoder/backbone=ir_se_tiny")),
        ("e4e", "latents", ()),
        ("face_network", "image", ()),
        ("stylegan2", "image", ()),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_steps_are_skipped_counted_and_named(
    method: str, what: str, more: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        run(method, tmp_path / "run", BREAK.format(what=what, steps="[2,4]"))
    checkpoint = state(tmp_path / "run")
    assert checkpoint["global_step"] == 6
    assert finite(checkpoint["state_dict"]) and finite(checkpoint["optimizer_states"])
    assert "(1 in a row, 2 in all)" in caplog.text
    assert "not finite: loss" in caplog.text and "images " in caplog.text
    if what == "loss":
        assert "loss l2, total" in caplog.text
    assert rows(tmp_path / "run")[-1] is not None


def test_a_skipped_step_changes_nothing(tmp_path: Path) -> None:
    """Weights, moments and running statistics after a skipped step are those before it."""
    whole, skipped = tmp_path / "whole", tmp_path / "skipped"
    run("psp", whole, "trainer.max_steps=2", "method.scheduler=null")
    run("psp", skipped, "trainer.max_steps=3", "method.scheduler=null", BREAK.format(what="loss", steps="[2]"))
    first, second = state(whole), state(skipped)
    for key in ("state_dict", "optimizer_states"):
        assert not differences(first[key], second[key], key)


def test_many_in_a_row_end_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    more = ("callbacks.non_finite.abort_after=3", "callbacks.checkpoint.every_n_train_steps=1")
    with pytest.raises(UserError, match=r"not finite: loss l2, total; images \d+, \d+; .*ended after 3 in a row"):
        run("psp", folder, *more, BREAK.format(what="loss", steps="[1,2,3,4,5]"))
    assert finite(state(folder)["state_dict"])


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    more = ("callbacks.checkpoint.every_n_train_steps=1", "callbacks.non_finite=null")
    with pytest.raises(UserError, match="encoder.*not finite; nothing was saved, the last good .*last.ckpt"):
        run("psp", folder, *more, BREAK.format(what="weights", steps="[3]"))
    assert state(folder)["global_step"] == 3 and finite(state(folder)["state_dict"])
