"""Seconds an image takes a method: warm, synchronised with the GPU, one image at a time and in the best batch."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.methods.common.base import InversionMethod
from stylegan_inv.utils.timing import interleave


def seconds_per_image(
    method: InversionMethod, images: Tensor, batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32), budget: float = 10.0
) -> dict[str, Any]:
    """Time ``invert``.

    The first call of a batch size warms up and is not counted, unless it alone takes the budget: what takes that long
    (optimisation of each image) is not made faster by warmth. Larger batches are tried until they do not pay, memory
    ends or there are not so many images.

    Args:
        method: On the device it shall be timed on.
        images: What it sees, (B, C, H, W).
        batch_sizes: To try, ascending, 1 first.
        budget: Seconds for each batch size.

    Returns:
        ``batch_1`` and ``best``: batch size, median seconds an image, interquartile range, calls, whether warm.
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

    first = _once(call, device)
    if first > budget / 3:
        return {"batch": len(batch), "median": first / len(batch), "spread": float("nan"), "calls": 1, "warm": False}
    repeats = max(3, min(50, int(budget / first / 2)))
    sample = interleave({"invert": call}, repeats, device)["invert"]
    per_image = {"median": sample.seconds / len(batch), "spread": sample.spread / len(batch)}
    return {"batch": len(batch), **per_image, "calls": repeats, "warm": True}


def _once(call: Any, device: str) -> float:
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    started = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - started
