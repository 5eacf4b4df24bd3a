"""``python -m stylegan_inv.benchmark generator``: the synthesis network in its forms, and against others."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.benchmark.speed.other_implementations import Synthesis, grouped, load_implementation
from stylegan_inv.generators import Generator
from stylegan_inv.generators.frozen.fused_synthesis import FusedSynthesis
from stylegan_inv.utils import timing

REFERENCE = "modules"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this subcommand."""
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--channel-base", type=int, default=32768, help="32768 is config F, 16384 the half of it")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument(
        "--against",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="checkout of rosinality/stylegan2-pytorch, NVlabs/stylegan2-ada-pytorch or NVlabs/stylegan3; repeatable",
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="forms to time, by the beginning of their name")


def run(options: argparse.Namespace, limits: timing.Roofline) -> list[dict[str, Any]]:
    """Time forward alone and forward with backward to W+; one row for each form and pass."""
    torch.manual_seed(0)
    generator = Generator(options.resolution, channel_base=options.channel_base).to(options.device).freeze()
    for layer in generator.synthesis.layers():
        layer.noise_strength.fill_(0.1)
    w = generator.mapping(torch.randn(options.batch, generator.z_dim, device=options.device)).clone()
    forms = _forms(generator, options)
    if options.only:
        forms = {name: f for name, f in forms.items() if name.startswith((*options.only, REFERENCE))}
    with torch.no_grad():
        want = forms[REFERENCE](w)
        differences = {name: float((f(w) - want).norm() / want.norm()) for name, f in forms.items()}
    work = options.batch * convolution_flops(generator)

    def forget() -> None:
        fused = generator.synthesis.fused
        assert isinstance(fused, FusedSynthesis)
        fused.clear_activations()

    rows = []
    for name, step, passes in (("forward", _forward, 1), ("with backward", _gradient, 2)):
        calls: dict[str, Callable[[], object]] = {form: partial(step, f, w) for form, f in forms.items()}
        samples = timing.interleave(calls, options.repeats, options.device)
        # of plain convolutions: Winograd's need fewer operations, so less time than the bound is possible
        bound = limits.bound(passes * work, 0)
        for form, sample in samples.items():
            peak = timing.peak_memory(calls[form], options.device, forget)
            row = timing.row(form, name, sample, samples[REFERENCE], bound, peak)
            rows.append({**row, "difference": differences[form]})
    return rows


def convolution_flops(generator: Generator) -> int:
    """Floating-point operations of the convolutions of one image, the gradient-free direct way."""
    flops = 0
    for layer in generator.synthesis.layers():
        flops += 2 * layer.weight.numel() * (layer.resolution // layer.up) ** 2
    blocks: list[Any] = list(generator.synthesis.blocks())
    for block in blocks:
        flops += 2 * block.torgb.weight.numel() * block.conv1.resolution**2
    return flops


def _forms(generator: Generator, options: argparse.Namespace) -> dict[str, Synthesis]:
    low = torch.bfloat16 if options.dtype == "bfloat16" else None

    def with_switches(fused: FusedSynthesis) -> Synthesis:
        def call(w: Tensor) -> Tensor:
            generator.synthesis.fused = fused  # each keeps its own constants
            return generator.synthesis(w)

        return call

    forms = {
        "frozen": with_switches(FusedSynthesis(enabled=True, dtype=low)),
        "frozen, no C++": with_switches(FusedSynthesis(enabled=True, dtype=low, native=False)),
        REFERENCE: with_switches(FusedSynthesis()),
        "grouped": grouped(generator),
    }
    for checkout in options.against:
        forms |= load_implementation(checkout, generator)
    return forms


def _forward(form: Synthesis, w: Tensor) -> None:
    with torch.no_grad():
        form(w)


def _gradient(form: Synthesis, w: Tensor) -> None:
    w = w.detach().requires_grad_()
    torch.autograd.grad(form(w).square().sum(), w)
