"""Metrics over two processes equal those of one process, even if a process has no image."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from stylegan_inv.metrics.face_similarity import VerificationAUC
from stylegan_inv.metrics.image import MSE
from stylegan_inv.metrics.kernel import KernelDistance
from tests.forks import join, launch_ranks
from tests.metrics.test_distributions import Pixels

SPLITS = [((0, 3), (3, 5)), ((0, 5), (5, 5)), ((0, 0), (0, 5))]


def data() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(2, 5, 3, 16, 16, generator=torch.Generator().manual_seed(0)).unbind()


def work() -> None:
    rank = int(os.environ["LOCAL_RANK"])
    dist.init_process_group("gloo", rank=rank, world_size=2)
    try:
        x, y = data()
        people = torch.tensor([0, 0, 1, 1, 2])
        embeddings = torch.nn.functional.normalize(x.flatten(1)[:, :4] - 0.5, dim=1)
        single, single_auc = MSE(sync_on_compute=False), VerificationAUC(4, sync_on_compute=False)
        single.update(x, y, index=torch.arange(5))
        single_auc.update(embeddings, people)
        single_kernel = KernelDistance(Pixels(), features=6, sync_on_compute=False)
        single_kernel.update(x, real=True)
        single_kernel.update(y, real=False)
        for split in SPLITS:
            start, end = split[rank]
            metric, auc, kernel = MSE(), VerificationAUC(4), KernelDistance(Pixels(), features=6)
            for i in range(start, end):
                metric.update(x[i : i + 1], y[i : i + 1], index=torch.tensor([i]))
                auc.update(embeddings[i : i + 1], people[i : i + 1])
                kernel.update(x[i : i + 1], real=True)
                kernel.update(y[i : i + 1], real=False)
            if split == SPLITS[0] and rank == 1:
                metric.update(x[:1], y[:1], index=torch.tensor([0]))  # as a sampler does for padding
            torch.testing.assert_close(metric.compute(), single.compute())
            torch.testing.assert_close(auc.compute(), single_auc.compute())
            torch.testing.assert_close(kernel.compute(), single_kernel.compute())
            assert len(metric.rows("values")) == end - start + (
                split == SPLITS[0] and rank == 1
            )  # synchronisation is undone
    finally:
        dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")
def test_two_ranks_equal_one(tmp_path: Path) -> None:
    processes = launch_ranks(work, log=tmp_path / "log")
    assert join(processes, 120) == [0, 0], "".join((tmp_path / f"log.{rank}").read_text() for rank in (0, 1))
