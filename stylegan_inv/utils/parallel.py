"""Applies a function to many items in several processes, in the order of the items."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import track

from stylegan_inv.errors import UserError
from stylegan_inv.utils.parent_process import end_worker_with

Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")
_AHEAD = 8
_shared: list[Any] = []


def ordered(
    function: Callable[[Shared, Item], Result], shared: Shared, items: Iterable[Item], workers: int, title: str = ""
) -> Iterator[Result]:
    """Yields ``function(shared, item)`` for each item, with a progress bar in a terminal.

    Args:
        function: A function at the top level of a module, which other processes can import.
        shared: First argument of each call; sent to each process once.
        items: Items; only a few are read ahead of the results.
        workers: Number of worker processes; 0 works in the main process.
        title: Title of the progress bar.

    Raises:
        UserError: A worker process was killed.
    """
    results = (
        _in_main_process(function, shared, items) if workers == 0 else _in_workers(function, shared, items, workers)
    )
    console = Console(stderr=True)
    total = len(items) if isinstance(items, Sized) else None
    yield from track(results, title, total=total, console=console, disable=not console.is_terminal)


def _in_main_process(function: Callable[..., Any], shared: Any, items: Iterable[Any]) -> Iterator[Any]:
    return (function(shared, item) for item in items)


def _in_workers(function: Callable[..., Any], shared: Any, items: Iterable[Any], workers: int) -> Iterator[Any]:
    waiting: deque[Future[Any]] = deque()
    left = iter(items)
    with ProcessPoolExecutor(workers, initializer=_start, initargs=(shared, os.getpid())) as pool:
        try:
            waiting.extend(pool.submit(_call, function, item) for item in islice(left, workers * _AHEAD))
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(_call, function, item) for item in islice(left, 1))
                yield result
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process was killed (out of memory?); run the same command with fewer --workers"
            ) from error
        finally:
            for future in waiting:
                future.cancel()


def _start(shared: Any, parent: int) -> None:
    end_worker_with(parent)
    torch.set_num_threads(1)
    _shared[:] = [shared]


def _call(function: Callable[..., Any], item: Any) -> Any:
    return function(_shared[0], item)
