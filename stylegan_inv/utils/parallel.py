"""The same work on many items by several processes, in the order of the items."""

from __future__ import annotations

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

Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")
_AHEAD = 8
_shared: list[Any] = []


def ordered(
    function: Callable[[Shared, Item], Result], shared: Shared, items: Iterable[Item], workers: int, title: str = ""
) -> Iterator[Result]:
    """``function(shared, item)`` for each item, with a progress bar in a terminal.

    Args:
        function: At the top of a module, so that another process finds it.
        shared: Sent to each process once.
        items: Only a few are taken ahead of what is yielded.
        workers: Processes; 0 works in this one.
        title: Of the progress bar.

    Raises:
        UserError: A process was killed.
    """
    results = _alone(function, shared, items) if workers == 0 else _spread(function, shared, items, workers)
    console = Console(stderr=True)
    total = len(items) if isinstance(items, Sized) else None
    yield from track(results, title, total=total, console=console, disable=not console.is_terminal)


def _alone(function: Callable[..., Any], shared: Any, items: Iterable[Any]) -> Iterator[Any]:
    return (function(shared, item) for item in items)


def _spread(function: Callable[..., Any], shared: Any, items: Iterable[Any], workers: int) -> Iterator[Any]:
    waiting: deque[Future[Any]] = deque()
    left = iter(items)
    with ProcessPoolExecutor(workers, initializer=_start, initargs=(shared,)) as pool:
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


def _start(shared: Any) -> None:
    torch.set_num_threads(1)
    _shared[:] = [shared]


def _call(function: Callable[..., Any], item: Any) -> Any:
    return function(_shared[0], item)
