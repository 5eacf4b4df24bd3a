"""Measures the inference time per image: with a batch of one, and with the fastest batch size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stylegan_inv.methods.common.base import InversionMethod
from stylegan_inv.utils.timing import interleave, seconds_of


def seconds_per_image(
    method: InversionMethod, images: Tensor, batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32), budget: float = 10.0
) -> dict[str, Any]:
    """Times ``invert``.

    The first call of a batch size is a warm-up and does not count, unless it takes a third of the budget: an
    optimisation of that length does not become faster. Batch sizes are tried in ascending order until a larger one does
    not save time, memory is exhausted, or there are not enough images.

    Args:
        method: On the device to measure.
        images: Input of the method, (B, C, H, W).
        batch_sizes: Batch sizes to try, ascending; the first one is 1.
        budget: Seconds for each batch size.

    Returns:
        ``batch_1`` and ``best``, each with the batch size, the median seconds per image, their interquartile range, the
        number of calls, and whether the calls were warm.
    """
    device = method.device.type
    tried: list[dict[str, Any]] = []
    for size in batch_sizes:
        if size > len(images):
            break
        try:
            tried.append(_time(method, images[:size].to(method.device), device, budget))
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        if len(tried) > 2 and tried[-1]["median"] > 0.97 * min(t["median"] for t in tried[:-1]):
            break
        if not tried[-1]["warm"]:
            break
    return {"batch_1": tried[0], "best": min(tried, key=lambda sample: sample["median"])}


def _time(method: InversionMethod, batch: Tensor, device: str, budget: float) -> dict[str, Any]:
    def call() -> object:
        return method.invert(batch)

    first = seconds_of(call, device)
    if first > budget / 3:
        return {"batch": len(batch), "median": first / len(batch), "spread": float("nan"), "calls": 1, "warm": False}
    repeats = max(3, min(50, int(budget / first / 2)))
    sample = interleave({"invert": call}, repeats, device)["invert"]
    per_image = {"median": sample.seconds / len(batch), "spread": sample.spread / len(batch)}
    return {"batch": len(batch), **per_image, "calls": repeats, "warm": True}
