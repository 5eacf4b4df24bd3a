"""A callback that records when the parts of a training start and end, and what they change."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from stylegan_inv.methods.feature_space.hfgi import HFGI
from stylegan_inv.methods.hyperstyle import HyperStyle


class PartTimes(pl.Callback):
    """Writes times (seconds since the epoch), hashes of the weights and states of the optimiser as JSON.

    Args:
        path: The file; it is written at the end of training.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._record: dict[str, Any] = {"steps": [], "validations": [], "losses": []}

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._record |= {
            "training_starts": time.time(),
            "first_step": trainer.global_step,
            "optimizer_at_start": _optimizer_summary(trainer),
            "generator_at_start": weights_hash(pl_module.generator.state_dict().values()),
        }
        before = _trained(pl_module).named_parameters()
        self._before = {name: value.detach().clone() for name, value in before}

    def on_train_batch_start(self, *args: Any) -> None:
        self._record["steps"].append([time.time()])

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        self._record["steps"][-1].append(time.time())
        losses = {name: float(value) for name, value in trainer.callback_metrics.items() if "loss" in name}
        self._record["losses"].append(losses)

    def on_validation_start(self, *args: Any) -> None:
        self._record["validations"].append([time.time()])

    def on_validation_end(self, *args: Any) -> None:
        self._record["validations"][-1].append(time.time())

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        after = dict(_trained(pl_module).named_parameters())
        backbone = {name: value for name, value in self._before.items() if name.startswith(("body.", "conv_layer"))}
        changed = [name for name, value in backbone.items() if not torch.equal(value, after[name])]
        self._record |= {
            "last_step": trainer.global_step,
            "optimizer_at_end": _optimizer_summary(trainer),
            "generator_at_end": weights_hash(pl_module.generator.state_dict().values()),
            "backbone_tensors": len(backbone),
            "backbone_tensors_changed": len(changed),
            "finite": all(math.isfinite(value) for losses in self._record["losses"] for value in losses.values()),
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._record, indent=2) + "\n")


def _trained(method: Any) -> Any:
    """Returns the network whose backbone is trained."""
    if isinstance(method, HFGI):
        return method.aligner
    return method.hypernetwork if isinstance(method, HyperStyle) else method.encoder


def weights_hash(tensors: Iterable[Tensor]) -> str:
    """Returns the sha256 of the values of tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _optimizer_summary(trainer: pl.Trainer) -> dict[str, Any]:
    """Returns the number of parameters with a state in the first optimiser, and a hash of these states."""
    state = trainer.optimizers[0].state
    tensors = [value for entry in state.values() for value in entry.values() if isinstance(value, Tensor)]
    return {"parameters": len(state), "hash": weights_hash(tensors)}
