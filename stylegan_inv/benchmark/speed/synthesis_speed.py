"""``python -m stylegan_inv.benchmark generator``: speed of the synthesis network in all its forms, and of others."""

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
from stylegan_inv.utils.command_line import whole

REFERENCE = "modules"
FROZEN = "frozen"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this subcommand."""
    parser.add_argument("--resolution", **whole(4, 4096), default=256)
    parser.add_argument(
        "--channel-base", **whole(1, 1 << 17), default=32768, help="32768 for config F, 16384 for half of it"
    )
    parser.add_argument("--batch", **whole(1, 4096), default=1)
    parser.add_argument(
        "--against",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="checkout of rosinality/stylegan2-pytorch, NVlabs/stylegan2-ada-pytorch or NVlabs/stylegan3; repeatable",
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="forms to time, by the first letters of their names")


def run(options: argparse.Namespace, limits: timing.Roofline) -> list[dict[str, Any]]:
    """Times forward alone, and forward with backward to W+; returns one row for each form and pass.

    ``times_frozen`` is the speed relative to the plain call of the frozen network.

    Args:
        options: Of the command line.
        limits: Of the machine.
    """
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
        # The bound is that of plain convolutions. Winograd's algorithm needs fewer operations and may be faster.
        bound = limits.bound(passes * work, 0)
        for form, sample in samples.items():
            peak = timing.peak_memory(calls[form], options.device, forget)
            row = timing.row(form, name, sample, samples[REFERENCE], bound, peak)
            row["times_frozen"] = samples[FROZEN].seconds / sample.seconds if FROZEN in samples else None
            rows.append({**row, "difference": differences[form]})
    return rows


def convolution_flops(generator: Generator) -> int:
    """Returns the floating-point operations of the convolutions of one image, forward, without Winograd's algorithm."""
    flops = 0
    for layer in generator.synthesis.layers():
        flops += 2 * layer.weight.numel() * (layer.resolution // layer.up) ** 2
    blocks: list[Any] = list(generator.synthesis.blocks())
    for block in blocks:
        flops += 2 * block.torgb.weight.numel() * block.conv1.resolution**2
    return flops


def _forms(generator: Generator, options: argparse.Namespace) -> dict[str, Synthesis]:
    low = torch.bfloat16 if options.dtype == "bfloat16" else None

    network = generator.synthesis
    frozen = FusedSynthesis(enabled=True, dtype=low)

    def with_switches(fused: FusedSynthesis) -> Synthesis:
        def call(w: Tensor) -> Tensor:
            network.fused = fused  # each form keeps its own constants
            image: Tensor = network(w)
            return image

        return call

    def with_arguments(arguments: Callable[[Tensor], dict[str, Any]]) -> Synthesis:
        def call(w: Tensor) -> Tensor:
            network.fused = frozen
            result = network(**{"w": w, **arguments(w)})
            image: Tensor = result if isinstance(result, Tensor) else result.image
            return image

        return call

    middle = network.resolutions[(len(network.resolutions) - 1) // 2]
    rows = [0, *(row for k in range(1, network.num_ws - 1, 2) for row in (k, k, k + 1)), network.num_ws - 1]
    affine = {n: network.get_submodule(f"{n}.affine") for n in network.layer_names()}
    changed = f"b{middle}.conv1.weight"
    difference = torch.zeros_like(network.get_parameter(changed))[None]

    forms = {
        FROZEN: with_switches(frozen),
        "frozen, features": with_arguments(lambda w: {"features": {f"b{middle}": (1.0, 0.0)}}),
        "frozen, returned": with_arguments(lambda w: {"return_features": [f"b{middle}.conv1"]}),
        "frozen, styles": with_arguments(
            lambda w: {"w": None, "styles": {n: a(w[:, row]) for (n, a), row in zip(affine.items(), rows, strict=True)}}
        ),
        "frozen, weights": with_arguments(lambda w: {"weights": {changed: difference}}),
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
