"""No method changes its frozen networks; checkpoints contain their hashes, but not their weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stylegan_inv import train
from stylegan_inv.errors import UserError
from stylegan_inv.runtime.atomic_checkpoints import tensors
from stylegan_inv.utils.frozen_module import Frozen, state_hash
from tests.faults.small import METHODS, build, run, state


def frozen(method: nn.Module) -> dict[str, Frozen]:
    return {name: part for name, part in method.named_modules() if isinstance(part, Frozen)}


def content(tensor: Tensor) -> bytes:
    return hashlib.sha256(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data).digest()


@pytest.mark.parametrize("method", METHODS)
def test_frozen_networks_are_neither_changed_nor_saved(method: str, tmp_path: Path) -> None:
    cfg, job = build(method, tmp_path / "run", "trainer.max_steps=2", "trainer.val_check_interval=2")
    held = frozen(job.method)
    assert held or method in ("stylegan2", "face_network"), "these train all they have"
    networks = {id(part.network): part.network for part in held.values()}
    before = {key: state_hash(network) for key, network in networks.items()}
    # One value alone, as of a step counter, may well be equal by chance.
    weights = {content(p) for network in networks.values() for p in network.state_dict().values() if p.numel() > 64}
    train.train(cfg, job)
    for key, network in networks.items():
        assert state_hash(network) == before[key]
        assert not any(p.requires_grad or p.grad is not None for p in network.parameters()) and not network.training
    checkpoint = state(tmp_path / "run")
    assert not weights & {content(tensor) for tensor in tensors(checkpoint) if tensor.numel() > 64}
    if method not in ("stylegan2", "face_network"):
        named = checkpoint["frozen"]
        assert named == {name: before[id(part.network)] for name, part in held.items() if name != "_generator"}


def test_other_networks_in_the_loss_are_refused_and_others_that_measure_are_not(tmp_path: Path) -> None:
    run("psp", tmp_path / "run", "trainer.max_steps=1")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    other = "face_eval"  # instead of face_train
    with pytest.raises(UserError, match=r"trained with network \w{12} in loss.id, got \w{12}; give the file"):
        build("psp", tmp_path / "other", f"ckpt_path='{last}'", f"loss.id.network={other}")
    assert not (tmp_path / "other").exists()
    build("psp", tmp_path / "without", f"ckpt_path='{last}'", "~loss.id")
    build("psp", tmp_path / "measured", f"ckpt_path='{last}'", "metrics.id.network=face_train")


def test_the_hash_does_not_depend_on_where_and_how_a_network_computes() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    first, second = Frozen(network), Frozen(network)
    before = state_hash(network)
    first.to(torch.bfloat16)
    assert first.hash == second.hash == before != state_hash(network)


def test_every_bit_and_name_of_the_state_counts() -> None:
    def hash_of(**values: Any) -> str:
        network = nn.Module()
        for name, value in values.items():
            network.register_buffer(name, value)
        return state_hash(network)

    a = torch.arange(6.0)
    hashes = [
        hash_of(a=a), hash_of(b=a), hash_of(a=a.reshape(2, 3)), hash_of(a=a.double()), hash_of(a=a.nextafter(a + 1)),
        hash_of(a=a, b=torch.tensor(3)),
    ]  # fmt: skip
    assert len(set(hashes)) == len(hashes) and hash_of(a=a.clone()) == hashes[0]
