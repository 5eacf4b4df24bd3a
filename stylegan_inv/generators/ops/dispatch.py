"""Selects the implementation of an operation.

Every operation has an argument ``impl``:

* ``"ref"``: Plain PyTorch, for any device and dtype.
* ``"fast"``: The operators of :mod:`.library`, for any device and dtype. They run the kernels of ``csrc`` if these
  support the device and dtype and can be built, and plain PyTorch otherwise.
* ``"auto"``: ``"fast"`` for float32, float16 and bfloat16 on a GPU, otherwise ``"ref"``.

On a CPU, ``"auto"`` and ``"fast"`` run the kernels of :mod:`.cpu_functions` where a network is trained in float32.

Inside the transforms of ``torch.func``, all three run ``"ref"``, because these do not support library operators.

The environment variable ``STYLEGAN_INV_OPS`` replaces ``"auto"``. It is read when this module is imported.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.utils.compat import inside_functorch

IMPLEMENTATIONS = ("auto", "fast", "ref")
KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
VARIABLE = "STYLEGAN_INV_OPS"
_weight_gradients = True  # of all threads: backward passes on a GPU run in threads of their own
_AUTO = os.environ.get(VARIABLE) or "auto"  # not read in resolve(), which the compiler traces


def check(impl: str) -> str:
    """Returns ``impl`` unchanged if it is a known name.

    Raises:
        UserError: An unknown name, also in the environment variable.
    """
    for name, origin in ((impl, ""), (_AUTO, f" in {VARIABLE}")):
        if name not in IMPLEMENTATIONS:
            raise UserError(
                f"unknown implementation {name!r} of the generator's operations{origin}: use one of {IMPLEMENTATIONS}"
            )
    return impl


def requested(impl: str) -> str:
    """Returns ``impl``, or the value of the environment variable in place of ``"auto"``.

    Raises:
        UserError: An unknown name.
    """
    return _AUTO if check(impl) == "auto" else impl


def resolve(impl: str, x: Tensor) -> str:
    """Returns the implementation for an input, ``"fast"`` or ``"ref"``.

    Raises:
        UserError: An unknown name.
    """
    impl = requested(impl)
    if impl == "auto":
        impl = "fast" if x.is_cuda and x.dtype in KERNEL_DTYPES else "ref"
    if impl == "fast" and not torch.compiler.is_compiling() and inside_functorch():
        return "ref"  # torch.func's transforms do not differentiate library operators
    return impl


def trains_natively(impl: str, x: Tensor) -> bool:
    """Returns whether the kernels for training on a CPU are wanted for an input, see :mod:`.cpu_functions`."""
    wanted = x.device.type == "cpu" and x.dtype == torch.float32 and requested(impl) != "ref"
    return wanted and not torch.compiler.is_compiling() and not inside_functorch() and not x.is_meta


@contextlib.contextmanager
def no_weight_gradients() -> Iterator[None]:
    """Computes no gradients of the weights of 3x3 convolutions in backward passes that run in this context.

    For ``torch.autograd.grad`` with respect to images or codes: an autograd function is not told which of its gradients
    are wanted and would compute all. Gradients of that gradient are complete.
    """
    global _weight_gradients
    before, _weight_gradients = _weight_gradients, False
    try:
        yield
    finally:
        _weight_gradients = before


def weight_gradients() -> bool:
    """Returns whether a backward pass computes gradients of weights, see :func:`no_weight_gradients`."""
    return _weight_gradients


def full_precision(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Returns a context without autocast on the device of ``x``, for small products whose error affects every pixel."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else contextlib.nullcontext()
