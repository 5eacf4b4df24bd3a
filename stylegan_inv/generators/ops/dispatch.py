"""The one place where an operation chooses its implementation.

Every operation takes ``impl``: ``"ref"`` is plain PyTorch and runs on any device and dtype, ``"auto"`` is the fastest
one that can handle the arguments. Today they are the same; a faster path is added by letting :func:`resolve` return
its name and by handling that name in the operation.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.errors import UserError

IMPLEMENTATIONS = ("auto", "ref")


def check(impl: str) -> str:
    """Return ``impl`` unchanged when it is a known name.

    Raises:
        UserError: for any other name.
    """
    if impl not in IMPLEMENTATIONS:
        raise UserError(f"unknown implementation {impl!r} of the generator's operations: use one of {IMPLEMENTATIONS}")
    return impl


def resolve(impl: str) -> str:
    """Name of the implementation that will run; ``"auto"`` never comes back."""
    check(impl)
    return "ref"


def full_precision(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """A context without autocast on the device of ``x``, for small products whose error every pixel would show."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else contextlib.nullcontext()
