"""The order of the resumable sampler is a function of (seed, draw); the evaluation sampler yields every index once."""

from __future__ import annotations

import itertools
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from stylegan_inv.data.datamodules.sampler import DrawnIndex, EvaluationSampler, ResumableSampler
from stylegan_inv.errors import UserError


def take(sampler, count: int) -> list[int]:
    return list(itertools.islice(sampler, count))


def test_every_index_once_per_epoch_and_another_order_in_each():
    stream = take(ResumableSampler(50, seed=3), 200)
    epochs = [stream[i : i + 50] for i in range(0, 200, 50)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def philox4x64(counter: list[int], key: list[int]) -> list[int]:
    """Implements Philox4x64-10 as defined by Salmon et al. (SC 2011)."""
    for _ in range(10):
        p0, p1 = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
        counter = [p1 >> 64 ^ counter[1] ^ key[0], p1 % 2**64, p0 >> 64 ^ counter[3] ^ key[1], p0 % 2**64]
        key = [(key[0] + 0x9E3779B97F4A7C15) % 2**64, (key[1] + 0xBB67AE8584CAA73B) % 2**64]
    return counter


def test_order_is_that_of_philox_words():
    for epoch in range(3):
        words = [word for block in range(1, 4) for word in philox4x64([block, 0, 0, 0], [77, epoch])][:10]
        order = sorted(range(10), key=words.__getitem__)
        assert [ResumableSampler(10, seed=77).index(10 * epoch + i) for i in range(10)] == order


def test_golden_order():
    """Resuming with another version of NumPy, PyTorch or this package relies on these numbers."""
    assert take(ResumableSampler(10, seed=0), 20) == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7, 5, 3, 7, 8, 2, 4, 1, 0, 6, 9]


def test_first_image_is_uniform():
    """Over seeds, every image is first equally often (chi-square; the 99.9 % quantile for 9 degrees is 27.9)."""
    counts = [0] * 10
    for seed in range(2000):
        counts[ResumableSampler(10, seed).index(0)] += 1
    assert sum((count - 200) ** 2 / 200 for count in counts) < 27.9


def test_seeds_differ_and_unshuffled_is_in_order():
    assert take(ResumableSampler(100, 1), 100) != take(ResumableSampler(100, 2), 100)
    assert take(ResumableSampler(4, 1, shuffle=False), 6) == [0, 1, 2, 3, 0, 1]


@given(
    size=st.integers(1, 40),
    seed=st.integers(0, 2**64 - 1),
    batch=st.integers(1, 5),
    world=st.integers(1, 4),
    steps=st.integers(0, 12),
)
@settings(deadline=None, max_examples=60)
def test_resume_at_any_step_and_any_number_of_ranks(size, seed, batch, world, steps):
    more, total = 3, (steps + 3) * batch * world
    whole = take(ResumableSampler(size, seed), total)
    for rank in range(world):
        first = ResumableSampler(size, seed, batch, rank=rank, world_size=world)
        before = take(first, steps * batch)
        again = ResumableSampler(size, seed, batch, start=steps * batch * world, rank=rank, world_size=world)
        after = take(again, more * batch)
        assert before + after == whole[rank::world]
        assert [draw.draw for draw in after] == list(range(steps * batch * world + rank, total, world))
        loaded = ResumableSampler(size, seed, batch, rank=rank, world_size=world)
        loaded.load_state_dict(first.state_dict(steps))
        assert take(loaded, more * batch) == after
    assert [ResumableSampler(size, seed).index(draw) for draw in range(total)] == whole


def test_state_of_another_dataset_is_rejected():
    state = ResumableSampler(10, 0).state_dict(5)
    with pytest.raises(UserError, match="10 images, this run seed 0 and 11"):
        ResumableSampler(11, 0).load_state_dict(state)


def test_start_may_be_a_function():
    at = [0]
    sampler = ResumableSampler(7, 5, start=lambda: at[0])
    whole = take(sampler, 20)
    at[0] = 6
    assert take(sampler, 14) == whole[6:]


def test_no_length_and_not_wrapped_by_lightning():
    sampler = ResumableSampler(7)
    with pytest.raises(TypeError, match="max_steps"):
        len(sampler)
    assert isinstance(sampler, DistributedSampler) and isinstance(EvaluationSampler(3), DistributedSampler)
    sampler.set_epoch(4)
    assert take(sampler, 7) == take(ResumableSampler(7), 7)


def test_drawn_index_is_an_int_that_pickles():
    draw = DrawnIndex(5, draw=99)
    assert draw == 5 and [0, 1, 2, 3, 4, "five"][draw] == "five"
    copy = pickle.loads(pickle.dumps(draw))
    assert (copy, copy.draw) == (5, 99)


class Echo:
    """A dataset that returns each index and its draw."""

    def __len__(self) -> int:
        return 9

    def __getitem__(self, index):
        return int(index), index.draw


@pytest.mark.parametrize("workers", [0, 2])
def test_draws_reach_the_workers(workers):
    loader = DataLoader(Echo(), batch_size=4, sampler=ResumableSampler(9, 1), num_workers=workers)
    batches = list(itertools.islice(loader, 3))
    assert [d for _, draws in batches for d in draws.tolist()] == list(range(12))
    assert [i for indices, _ in batches for i in indices.tolist()] == take(ResumableSampler(9, 1), 12)


@pytest.mark.parametrize("size, world", [(5, 2), (8, 4), (3, 5), (1, 1)])
def test_evaluation_yields_each_index_exactly_once(size, world):
    ranks = [list(EvaluationSampler(size, rank=rank, world_size=world)) for rank in range(world)]
    assert sorted(itertools.chain(*ranks)) == list(range(size))
    assert [len(EvaluationSampler(size, rank=rank, world_size=world)) for rank in range(world)] == [
        len(indices) for indices in ranks
    ]


@pytest.mark.parametrize("arguments", [{"size": 0}, {"size": 4, "seed": -1}, {"size": 4, "seed": 1.5}])
def test_bad_arguments(arguments):
    with pytest.raises(UserError, match="expected"):
        ResumableSampler(**arguments)
    with pytest.raises(UserError, match="rank=2: expected a whole number from 0 to 1"):
        EvaluationSampler(4, rank=2, world_size=2)
