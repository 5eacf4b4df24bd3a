"""The pool of codes; `test_golden_losses` tests the network."""

from __future__ import annotations

import io

import pytest
import torch

from stylegan_inv.errors import UserError
from stylegan_inv.losses.latent.latent_discriminator import LatentDiscriminator
from stylegan_inv.losses.latent.latent_pool import LatentPool


def numbered(start: int, count: int) -> torch.Tensor:
    """Returns different codes (count, 4)."""
    return torch.arange(start, start + count).float()[:, None].repeat(1, 4)


def test_pool_is_filled_then_half_of_the_returned_codes_are_old() -> None:
    pool = LatentPool(50, seed=0)
    assert torch.equal(pool.swap(numbered(0, 50)), numbered(0, 50))
    inside, swapped, steps = set(range(50)), 0, 3000
    for new in range(50, 50 + steps):
        (returned,) = pool.swap(numbered(new, 1))
        got = int(returned[0])
        if got != new:
            assert got in inside, "every returned code was in the pool"
            inside.remove(got)
            inside.add(new)
            swapped += 1
    assert abs(swapped / steps - 0.5) < 3 * 0.5 / steps**0.5
    assert inside == {int(code[0]) for code in pool.get_extra_state()["codes"]}


def test_every_position_is_replaced_equally_often() -> None:
    pool = LatentPool(4, seed=1)
    pool.swap(numbered(0, 4))
    ages = []
    for new in range(4, 4004):
        got = int(pool.swap(numbered(new, 1))[0, 0])
        if got != new:
            ages.append(new - got)
    # A code leaves with probability 1/8 per step, so it stays for 8 steps on average.
    assert sum(ages) / len(ages) == pytest.approx(8, rel=0.1)


def test_one_random_layer_of_each_image() -> None:
    w = torch.arange(3 * 5).float().view(3, 5, 1).repeat(1, 1, 4)
    pool, counts = LatentPool(0), torch.zeros(3, 5)
    for _ in range(500):
        returned = pool.swap(w)
        assert returned.shape == (3, 4)
        image, layer = returned[:, 0].long() // 5, returned[:, 0].long() % 5
        assert image.tolist() == [0, 1, 2]
        counts[image, layer] += 1
    assert counts.min() > 60  # 100 expected


def test_state_dict_restores_the_pool_exactly() -> None:
    whole, first = LatentPool(6, seed=3), LatentPool(6, seed=3)
    w = torch.randn(12, 2, 5, 4)
    want = [whole.swap(batch) for batch in w]
    for batch in w[:7]:
        first.swap(batch)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = LatentPool(6, seed=99)
    second.load_state_dict(torch.load(file, weights_only=True))
    for batch, expected in zip(w[7:], want[7:], strict=True):
        assert torch.equal(second.swap(batch), expected)
    assert list(second.buffers()) == [], "DDP would replace the pools of all ranks by the first one"


def test_empty_pool_is_restored_and_larger_one_is_refused() -> None:
    pool = LatentPool(3)
    pool.load_state_dict(LatentPool(3).state_dict())
    assert torch.equal(pool.swap(numbered(0, 3)), numbered(0, 3))
    with pytest.raises(UserError, match="has 3 codes, expected at most 2"):
        LatentPool(2).load_state_dict(pool.state_dict())
    with pytest.raises(UserError, match="size=-1"):
        LatentPool(-1)


def test_pool_stores_copies_without_a_graph() -> None:
    pool = LatentPool(2, seed=0)
    w = torch.ones(2, 4, requires_grad=True)
    assert not pool.swap(w).requires_grad
    with torch.no_grad():
        w.fill_(5)
    assert torch.equal(pool.get_extra_state()["codes"], torch.ones(2, 4))


def test_discriminator_of_other_sizes() -> None:
    network = LatentDiscriminator(w_dim=32, layers=2)
    assert network(torch.zeros(2, 7, 32)).shape == (2, 7, 1)
    assert set(network.state_dict()) == {"mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias"}
