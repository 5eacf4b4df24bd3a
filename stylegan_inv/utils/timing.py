"""Measuring on a machine that others use as well: turn by turn, medians, processor time beside the clock's."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

_MB = 1e6


@dataclass
class Sample:
    """Seconds of one call: medians, and the interquartile range of the first."""

    seconds: float
    spread: float
    cpu_seconds: float  # of all threads of this process


def interleave(calls: Mapping[str, Callable[[], object]], repeats: int, device: str = "cpu") -> dict[str, Sample]:
    """Time calls turn by turn, so that whatever slows the machine for a while slows all of them.

    Args:
        calls: by name. Each runs once before, unmeasured.
        repeats: measured turns, at least 1.
        device: ``"cuda"`` waits for the GPU before and after each call.

    Returns:
        A sample by name.
    """
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    with _no_collection():
        for _ in range(repeats):
            for name, call in calls.items():
                wait()
                clock, cpu = time.perf_counter(), time.process_time()
                call()
                wait()
                taken[name].append((time.perf_counter() - clock, time.process_time() - cpu))
    return {name: sample(values) for name, values in taken.items()}


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection in the middle of a measurement."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def sample(values: list[tuple[float, float]]) -> Sample:
    """Sum up pairs of wall-clock and processor seconds."""
    clock = [v[0] for v in values]
    quartiles = statistics.quantiles(clock, n=4) if len(clock) > 1 else [clock[0]] * 3
    return Sample(statistics.median(clock), quartiles[2] - quartiles[0], statistics.median(v[1] for v in values))


def peak_memory(
    call: Callable[[], object], device: str = "cpu", clear: Callable[[], object] = lambda: None
) -> float | None:
    """Megabytes that a call takes at most beyond what is in use before it; None where the system does not tell.

    The call runs twice and the second time counts: what is made once and kept is not the call's. ``clear`` runs between
    the two and drops what the first has only kept for the next.
    """
    call()
    clear()
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / _MB
    try:
        _trim()
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is resident now
        before = _status("VmRSS")
        call()
        return (_status("VmHWM") - before) / _MB
    except OSError:
        return None


def _trim() -> None:
    """Give freed memory back to the system where the C library can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _status(key: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def row(what: str, step: str, sample: Sample, reference: Sample, bound: float, peak: float | None) -> dict[str, Any]:
    """One line of a benchmark: the ratios are to a reference of the same run and to what the machine could do."""
    return {
        "what": what,
        "pass": step,
        "seconds": sample.seconds,
        "spread": sample.spread,
        "cpu_seconds": sample.cpu_seconds,
        "times_reference": reference.seconds / sample.seconds,
        "of_roofline": bound / sample.seconds,
        "peak_mb": peak,
    }


@dataclass
class Roofline:
    """What this machine can do at most: bytes (read and written) and floating-point operations a second."""

    bytes_per_second: float
    flops: float

    def bound(self, flops: float, moved: float) -> float:
        """Seconds that nothing with so much work can undercut."""
        return max(flops / self.flops, moved / self.bytes_per_second)


def roofline(dtype: torch.dtype, device: str = "cpu", repeats: int = 7) -> Roofline:
    """Measure a copy between warm buffers of 128 MB and a product of two square matrices."""
    source = torch.randn(32 << 20, device=device)
    target = torch.empty_like(source)
    copy = interleave({"copy": lambda: target.copy_(source)}, repeats, device)["copy"]
    n, flops = 128, 0.0
    while n < 8192:  # larger until one product takes long enough; a CPU without bfloat16 is a hundred times slower
        n *= 2
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        product = interleave({"product": partial(torch.mm, a, b, out=torch.empty_like(a))}, repeats, device)["product"]
        flops = 2 * n**3 / product.seconds
        if product.seconds > 0.02:
            break
    return Roofline(2 * source.nbytes / copy.seconds, flops)


def machine(device: str = "cpu") -> dict[str, Any]:
    """What the numbers belong to."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
        "processor": _processor(),
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
