"""Measures time and memory on a machine that runs other processes too: alternating calls, medians, CPU time."""

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
    """Time of one call.

    Attributes:
        seconds: Median wall-clock time.
        spread: Interquartile range of the wall-clock time.
        cpu_seconds: Median CPU time of all threads of this process.
    """

    seconds: float
    spread: float
    cpu_seconds: float


def interleave(calls: Mapping[str, Callable[[], object]], repeats: int, device: str = "cpu") -> dict[str, Sample]:
    """Times calls alternately, so that a slow phase of the machine affects all of them.

    Args:
        calls: Name -> call. Each one runs once before the measurement.
        repeats: Number of measurements of each call, at least 1.
        device: ``"cuda"`` waits for the GPU before and after each call.

    Returns:
        Name -> sample.
    """
    wait = _synchronize(device)
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


def seconds_of(call: Callable[[], object], device: str = "cpu") -> float:
    """Returns the wall-clock time of a single call in seconds.

    Args:
        call: The call.
        device: ``"cuda"`` waits for the GPU before and after the call.
    """
    wait = _synchronize(device)
    wait()
    started = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - started


def _synchronize(device: str) -> Callable[[], None]:
    return torch.cuda.synchronize if device == "cuda" else lambda: None


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Disables garbage collection during a measurement."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def sample(values: list[tuple[float, float]]) -> Sample:
    """Returns the medians of pairs of wall-clock and CPU seconds."""
    clock = [v[0] for v in values]
    quartiles = statistics.quantiles(clock, n=4) if len(clock) > 1 else [clock[0]] * 3
    return Sample(statistics.median(clock), quartiles[2] - quartiles[0], statistics.median(v[1] for v in values))


def peak_memory(
    call: Callable[[], object], device: str = "cpu", clear: Callable[[], object] = lambda: None
) -> float | None:
    """Returns the peak memory of a call in megabytes, beyond the memory in use before it.

    The call runs twice and the second time is measured, so that memory that is allocated once and kept does not count.

    Args:
        call: The call.
        device: ``"cuda"`` measures the memory of the GPU.
        clear: Called between the two calls; frees memory that the first call has kept for the second.

    Returns:
        None on systems that do not report it.
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
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the current resident size
        before = _status("VmRSS")
        call()
        return (_status("VmHWM") - before) / _MB
    except OSError:
        return None


def _trim() -> None:
    """Returns freed memory to the system, if the C library can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _status(key: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def row(what: str, step: str, sample: Sample, reference: Sample, bound: float, peak: float | None) -> dict[str, Any]:
    """Returns a row of a benchmark table.

    Args:
        what: What is measured.
        step: Name of the pass, such as ``forward``.
        sample: Its time.
        reference: Time of the reference in the same run.
        bound: Lower bound of the time on this machine in seconds, see `Roofline.bound`.
        peak: Peak memory in megabytes, if known.
    """
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
    """Limits of this machine.

    Attributes:
        bytes_per_second: Bytes read and written per second.
        flops: Floating-point operations per second.
    """

    bytes_per_second: float
    flops: float

    def bound(self, flops: float, moved: float) -> float:
        """Returns the lower bound of the time in seconds.

        Args:
            flops: Number of floating-point operations.
            moved: Number of bytes read and written.
        """
        return max(flops / self.flops, moved / self.bytes_per_second)


def roofline(dtype: torch.dtype, device: str = "cpu", repeats: int = 7) -> Roofline:
    """Measures a copy between buffers of 128 MB and a product of two square matrices.

    Args:
        dtype: Type of the matrices.
        device: ``"cpu"`` or ``"cuda"``.
        repeats: Number of measurements.
    """
    source = torch.randn(32 << 20, device=device)
    target = torch.empty_like(source)
    copy = interleave({"copy": lambda: target.copy_(source)}, repeats, device)["copy"]
    n, flops = 128, 0.0
    while n < 8192:  # until one product takes 20 ms; a CPU without bfloat16 is a hundred times slower
        n *= 2
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        product = interleave({"product": partial(torch.mm, a, b, out=torch.empty_like(a))}, repeats, device)["product"]
        flops = 2 * n**3 / product.seconds
        if product.seconds > 0.02:
            break
    return Roofline(2 * source.nbytes / copy.seconds, flops)


def machine(device: str = "cpu") -> dict[str, Any]:
    """Returns a description of the machine that measurements belong to."""
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
