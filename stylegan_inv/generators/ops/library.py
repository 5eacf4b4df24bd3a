"""The operations as operators of ``torch.library`` (namespace ``stylegan_inv``), which ``impl="fast"`` runs.

The compiler does not look into operators, so they do not break its graphs. They define shapes for fake tensors and
derivatives, and their outputs have the memory format of the input. Each runs the CUDA kernels of :mod:`.cuda` if these
support the input, and plain PyTorch otherwise.

A backward pass runs one fused operator. Under ``create_graph`` it runs the same formula in differentiable operations,
which gives derivatives of any order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_LIBRARY = torch.library.Library("stylegan_inv", "DEF")
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order)


def define(schema: str, plain: Callable[..., Any], kernels: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Defines an operator.

    Args:
        schema: Its name and signature.
        plain: Implementation in plain PyTorch, for any device.
        kernels: Implementation for CUDA.
        fake: Returns tensors of the output's shape and memory format.
    """
    name = schema.split("(")[0]
    _LIBRARY.define(schema, tags=_TAGS)
    _LIBRARY.impl(name, plain, "CompositeExplicitAutograd")
    _LIBRARY.impl(name, kernels, "CUDA")
    torch.library.register_fake(f"stylegan_inv::{name}", fake, lib=_LIBRARY)


def derivative(name: str, backward: Callable[..., Any], setup_context: Callable[..., Any]) -> None:
    """Registers the backward pass of an operator, see ``torch.library.register_autograd``."""
    torch.library.register_autograd(f"stylegan_inv::{name}", backward, setup_context=setup_context, lib=_LIBRARY)
