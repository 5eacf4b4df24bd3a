"""Ranger against the trajectory of the official one, torch's RAdam, and its own continuation."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from stylegan_inv.config import CONF_DIR, instantiate
from stylegan_inv.errors import UserError
from stylegan_inv.optim.ranger import Ranger
from tests.golden import check, needs_golden, tensor

NAMES = ("0.weight", "0.bias", "3.weight", "3.bias")


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(96, 4))


def train(net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, steps: int) -> list[float]:
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (net(x) - y).square().mean()
        loss.backward()
        losses.append(float(loss.detach()))
        optimizer.step()
    return losses


@needs_golden
@pytest.mark.parametrize("precision", ["f64", "f32"])
def test_trajectory(precision: str) -> None:
    dtype = torch.float64 if precision == "f64" else torch.float32
    net = network().to(dtype)
    net.load_state_dict({name: tensor("ranger", f"init.{name}") for name in NAMES})
    optimizer = Ranger(net.parameters(), lr=1e-3)
    x, y = tensor("ranger", "x").to(dtype), tensor("ranger", "y").to(dtype)
    losses: list[float] = []
    trajectory = [copy.deepcopy(net.state_dict())]
    for _ in range(20):
        losses += train(net, optimizer, x, y, 1)
        trajectory.append(copy.deepcopy(net.state_dict()))
    check("ranger", "loss", torch.tensor(losses), precision)
    for name in NAMES:
        rows = torch.stack([state[name] for state in trajectory])
        check("ranger", f"traj.{name}", rows, precision)
        check("ranger", f"delta.{name}", rows - rows[0], precision)


def test_without_its_additions_it_is_radam() -> None:
    """With eps towards 0; torch places that differently."""
    torch.manual_seed(0)
    ours, theirs = (network().double() for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    x, y = torch.randn(4, 3, 6, 6).double(), torch.randn(4, 4).double()
    common: dict[str, Any] = {"lr": 1e-2, "betas": (0.9, 0.999), "eps": 1e-30}
    train(ours, Ranger(ours.parameters(), alpha=1.0, centralize=False, weight_decay=0.1, **common), x, y, 12)
    radam = torch.optim.RAdam(theirs.parameters(), weight_decay=0.1, decoupled_weight_decay=True, **common)
    train(theirs, radam, x, y, 12)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("cut", [2, 7, 12])
def test_continues_exactly(cut: int) -> None:
    """Before the rectification, between two looks ahead, and just after one; from a file."""
    torch.manual_seed(1)
    x, y = torch.randn(4, 3, 6, 6), torch.randn(4, 4)
    whole = network()
    first = copy.deepcopy(whole)
    train(whole, Ranger(whole.parameters(), lr=1e-2), x, y, 20)
    optimizer = Ranger(first.parameters(), lr=1e-2)
    train(first, optimizer, x, y, cut)
    file = io.BytesIO()
    torch.save({"net": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    second = network()
    second.load_state_dict(saved["net"])
    optimizer = Ranger(second.parameters())
    optimizer.load_state_dict(saved["optimizer"])
    assert optimizer.param_groups[0]["lr"] == 1e-2
    train(second, optimizer, x, y, 20 - cut)
    for a, b in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_lookahead() -> None:
    """Every second step the weight is the middle of the slow one and where the fast ones went."""
    weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    fast = nn.Parameter(weight.detach().clone())
    with_it, without = Ranger([weight], lr=0.1, k=2), Ranger([fast], lr=0.1, k=1000)
    for step in range(2):
        for parameter, optimizer in ((weight, with_it), (fast, without)):
            parameter.grad = torch.tensor([0.3, 1.0 + step], dtype=torch.float64)
            optimizer.step()
    torch.testing.assert_close(weight.detach(), (torch.tensor([1.0, -2.0]).double() + fast.detach()) / 2)


def test_gradients_and_untouched_parameters_stay() -> None:
    used, unused = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(3))
    before = unused.detach().clone()
    used.grad = torch.randn(3, 4) + 5
    gradient = used.grad.clone()
    optimizer = Ranger([{"params": [used], "name": "a"}, {"params": [unused], "name": "b", "lr": 0.5}])
    assert optimizer.step(lambda: 7) == 7
    assert torch.equal(used.grad, gradient) and torch.equal(unused, before)
    moved = optimizer.state[used]["exp_avg"]
    torch.testing.assert_close(moved.mean(dim=1), torch.zeros(3), atol=1e-6, rtol=0)  # centralised


def test_learning_rate_schedules_reach_it() -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = Ranger([weight], lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0 if step else 1.0)
    for _ in range(2):
        weight.grad = torch.ones(1)
        optimizer.step()
        scheduler.step()
    assert float(weight.detach()) == pytest.approx(-1.0)


def test_errors() -> None:
    parameters = [nn.Parameter(torch.zeros(2, 2))]
    for bad in ({"lr": -1}, {"betas": (0.9, 1.0)}, {"eps": 0}, {"weight_decay": -1}, {"alpha": 2}, {"k": 0}):
        with pytest.raises(UserError, match="ranger: .*expected"):
            Ranger(parameters, **bad)
    parameters[0].grad = torch.eye(2).to_sparse()
    with pytest.raises(UserError, match="sparse"):
        Ranger(parameters).step()


def test_config_builds_it_with_the_papers_values() -> None:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        node = compose("train", overrides=["optimizer=ranger"]).optimizer
    group = instantiate(node)([nn.Parameter(torch.zeros(1))]).param_groups[0]
    want = {"lr": 1e-4, "betas": (0.95, 0.999), "eps": 1e-5, "weight_decay": 0, "k": 6, "alpha": 0.5}
    assert {key: group[key] for key in want} == want
