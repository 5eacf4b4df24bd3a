"""The one place where an operation chooses its implementation.

Every operation takes ``impl``:

* ``"ref"``: plain PyTorch, any device and dtype.
* ``"fast"``: the operators of :mod:`.library`, any device and dtype. They run the kernels of ``csrc`` where there are
  some for the device and dtype and they could be built, else the plain PyTorch inside the operator.
* ``"auto"``: ``"fast"`` for float32, float16 and bfloat16 on a GPU, where there are kernels, else ``"ref"``.

Inside the transforms of ``torch.func`` all three are ``"ref"``: PyTorch's library operators do not take part in those.

The environment variable ``STYLEGAN_INV_OPS``, read when this module is imported, replaces ``"auto"`` by what it says.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.utils.compat import inside_functorch

IMPLEMENTATIONS = ("auto", "fast", "ref")
KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
VARIABLE = "STYLEGAN_INV_OPS"
_AUTO = os.environ.get(VARIABLE) or "auto"  # once, and not in resolve(): the compiler traces that


def check(impl: str) -> str:
    """Return ``impl`` unchanged when it is a known name.

    Raises:
        UserError: for any other name, also in the environment variable.
    """
    for name, origin in ((impl, ""), (_AUTO, f" in {VARIABLE}")):
        if name not in IMPLEMENTATIONS:
            raise UserError(
                f"unknown implementation {name!r} of the generator's operations{origin}: use one of {IMPLEMENTATIONS}"
            )
    return impl


def requested(impl: str) -> str:
    """What is asked for, with the environment variable in place of ``"auto"``.

    Raises:
        UserError: for an unknown name.
    """
    return _AUTO if check(impl) == "auto" else impl


def resolve(impl: str, x: Tensor) -> str:
    """``"fast"`` or ``"ref"``: what runs for the input ``x``.

    Raises:
        UserError: for an unknown name.
    """
    impl = requested(impl)
    if impl == "auto":
        impl = "fast" if x.is_cuda and x.dtype in KERNEL_DTYPES else "ref"
    if impl == "fast" and not torch.compiler.is_compiling() and inside_functorch():
        return "ref"  # PyTorch does not differentiate library operators inside torch.func's transforms
    return impl


def full_precision(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """A context without autocast on the device of ``x``, for small products whose error every pixel would show."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else contextlib.nullcontext()
