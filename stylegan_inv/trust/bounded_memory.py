"""Bounds the memory that building the parts of a stranger's config may take.

Each size in a config is bounded (`allowed_names.LARGEST`), but sizes multiply: an encoder of a few hundred units with
thousands of channels has terabytes of weights, all of which are made before they are compared with the checkpoint.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stylegan_inv.errors import UserError

#: More than the networks of any paper that are not in its checkpoint: generator, features, metrics.
LEAST_BYTES = 1 << 30
#: What a tensor counts at least, so that their number is bounded, too.
_TENSOR_BYTES = 1 << 16
#: Operations that make a tensor, whose first argument is its shape.
_MAKERS = ("empty", "zeros", "ones", "full", "rand", "randn", "empty_strided")


@contextlib.contextmanager
def bounded_memory(bytes_of_files: int = 0) -> Iterator[None]:
    """Limits the tensors that are made in the block to `LEAST_BYTES` and four times the size of some files.

    Args:
        bytes_of_files: Size of the files that hold the weights.

    Raises:
        UserError: More is asked for; it is not made.
    """
    with _Counter(LEAST_BYTES + 4 * bytes_of_files):
        yield


class _Counter(TorchDispatchMode):
    def __init__(self, most: int) -> None:
        super().__init__()
        self._left = self._most = most

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket.__name__ in _MAKERS and str(kwargs.get("device")) != "meta":
            dtype = kwargs.get("dtype") or torch.get_default_dtype()
            self._left -= max(math.prod(args[0]) * dtype.itemsize, _TENSOR_BYTES)
            if self._left < 0:
                raise UserError(
                    f"describes networks of more than {self._most / 1e9:.1f} GB, expected those of the checkpoint"
                )
        return func(*args, **kwargs)
