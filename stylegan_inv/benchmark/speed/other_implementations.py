"""Other implementations of the synthesis network with the same weights, for comparison in one process."""

from __future__ import annotations

import contextlib
import importlib
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator, to_nvidia, to_rosinality
from stylegan_inv.generators.ops import FILTER_TAPS, setup_filter
from stylegan_inv.generators.synthesis import SynthesisLayer

#: Maps codes (B, L, D) to images with the stored noise maps.
Synthesis = Callable[[Tensor], Tensor]


def grouped(generator: Generator) -> Synthesis:
    """Returns the form that NVIDIA's PyTorch code uses for evaluation, written from its description.

    Each sample has its own modulated and demodulated weights, which one grouped convolution applies. Images are
    resampled by zero insertion and a filter of 16 taps. Every step is a separate operation.
    """
    network = generator.synthesis
    taps = setup_filter(FILTER_TAPS)
    filter2d = torch.outer(taps, taps)

    def fir(x: Tensor, padding: tuple[int, int, int, int], up: int = 1) -> Tensor:
        b, c, h, w = x.shape
        if up > 1:
            x = F.pad(x.reshape(b, c, h, 1, w, 1), (0, up - 1, 0, 0, 0, up - 1)).reshape(b, c, h * up, w * up)
        kernel = (filter2d.to(x) * 4).expand(c, 1, 4, 4).contiguous()
        return F.conv2d(F.pad(x, padding), kernel, groups=c)

    def layer(module: SynthesisLayer, x: Tensor, w: Tensor) -> Tensor:
        b, inputs, h, _ = x.shape
        out = module.weight.shape[0]
        weight = module.weight[None] * module.affine(w)[:, None, :, None, None]
        weight = weight * (weight.square().sum(dim=(2, 3, 4)) + 1e-8).rsqrt()[:, :, None, None, None]
        x = x.reshape(1, b * inputs, h, h)
        if module.up == 2:
            weight = weight.transpose(1, 2).reshape(b * inputs, out, 3, 3)
            x = F.conv_transpose2d(x, weight, stride=2, groups=b)
            x = fir(x.reshape(b, out, *x.shape[2:]), (1, 1, 1, 1))
        else:
            x = F.conv2d(x, weight.reshape(b * out, inputs, 3, 3), padding=1, groups=b).reshape(b, out, h, h)
        x = x + module.noise_const * module.noise_strength
        x = F.leaky_relu(x + module.bias[:, None, None], 0.2) * math.sqrt(2)
        return x if module.conv_clamp is None else x.clamp(-module.conv_clamp, module.conv_clamp)

    def run(w: Tensor) -> Tensor:
        rows = w.unbind(dim=1)
        x = network.get_parameter("b4.const")[None].repeat(len(w), 1, 1, 1)
        image: Tensor | None = None
        k = 0
        blocks: list[Any] = list(network.blocks())
        for index, block in enumerate(blocks):
            for module in block.layers():
                x = layer(module, x, rows[k])
                k += 1
            torgb = block.torgb
            style = torgb.affine(rows[2 * index + 1]) * torgb.weight_gain
            weight = (torgb.weight[None] * style[:, None, :, None, None]).flatten(0, 1)
            colours = F.conv2d(x.reshape(1, -1, *x.shape[2:]), weight, groups=len(w))
            colours = colours.reshape(len(w), -1, *x.shape[2:]) + torgb.bias[:, None, None]
            if torgb.conv_clamp is not None:
                colours = colours.clamp(-torgb.conv_clamp, torgb.conv_clamp)
            image = colours if image is None else fir(image, (2, 1, 2, 1), up=2) + colours
        assert image is not None
        return image

    return run


def load_implementation(checkout: Path, generator: Generator) -> dict[str, Synthesis]:
    """Builds a public implementation with the weights of a generator.

    Args:
        checkout: Folder of rosinality/stylegan2-pytorch, NVlabs/stylegan2-ada-pytorch or NVlabs/stylegan3. Its code
            is executed.
        generator: Generator whose numbers of channels the implementation supports.

    Returns:
        Name -> synthesis, for each form of the implementation.

    Raises:
        UserError: If the folder is none of these checkouts, or its code cannot build or run the generator.
    """
    with code_of(checkout):
        return (_nvidia if is_nvidia(checkout) else _rosinality)(checkout, generator)


def is_nvidia(checkout: Path) -> bool:
    """Returns whether a folder is a checkout of NVIDIA's code; False for rosinality's.

    Raises:
        UserError: If it is neither.
    """
    if (checkout / "training").is_dir() and (checkout / "dnnlib").is_dir():
        return True
    if (checkout / "model.py").is_file() and (checkout / "op").is_dir():
        return False
    raise UserError(
        f"{checkout} is neither a checkout of rosinality/stylegan2-pytorch (model.py and op/) nor of NVIDIA's "
        "stylegan2-ada-pytorch or stylegan3 (training/ and dnnlib/)"
    )


@contextlib.contextmanager
def code_of(checkout: Path) -> Iterator[None]:
    """Imports from a checkout.

    Raises:
        UserError: If its code fails in this context.
    """
    try:
        with _on_path(checkout):
            yield
    except (ImportError, AttributeError, TypeError, RuntimeError) as error:
        raise UserError(f"the code in {checkout} does not run here: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _on_path(checkout: Path) -> Iterator[None]:
    sys.path.insert(0, str(checkout))
    # rosinality's operations are compiled for the GPU on import; its CPU code does not use the result.
    stub = mock.patch("torch.utils.cpp_extension.load")
    try:
        with contextlib.nullcontext() if torch.cuda.is_available() else stub, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.path.remove(str(checkout))


def _nvidia(checkout: Path, generator: Generator) -> dict[str, Synthesis]:
    ada = not (checkout / "training" / "networks_stylegan2.py").is_file()
    networks = importlib.import_module("training.networks" if ada else "training.networks_stylegan2")
    synthesis = {
        "channel_base": generator.channels[generator.resolution] * generator.resolution,
        "channel_max": max(generator.channels.values()),
        "num_fp16_res": 0,
        "conv_clamp": generator.config["conv_clamp"],
    }
    network = _load_weights(
        networks.Generator(
            generator.z_dim,
            0,
            generator.w_dim,
            generator.resolution,
            generator.img_channels,
            mapping_kwargs={"num_layers": generator.config["mapping_layers"]},
            **({"synthesis_kwargs": synthesis} if ada else synthesis),
        ),
        to_nvidia(generator.state_dict()),
        generator,
    )
    return {
        "NVIDIA": lambda w: network.synthesis(w, noise_mode="const"),
        "NVIDIA, not fused": lambda w: network.synthesis(w, noise_mode="const", fused_modconv=False),
    }


def _rosinality(checkout: Path, generator: Generator) -> dict[str, Synthesis]:
    model = importlib.import_module("model")
    multiplier = generator.channels[generator.resolution] * generator.resolution // 16384
    network = _load_weights(
        model.Generator(
            generator.resolution,
            generator.w_dim,
            generator.config["mapping_layers"],
            channel_multiplier=max(multiplier, 1),
        ),
        to_rosinality(generator.state_dict()),
        generator,
    )
    convolutions = [m for m in network.modules() if isinstance(m, model.ModulatedConv2d)]

    def run(w: Tensor, fused: bool) -> Tensor:
        for module in convolutions:
            module.fused = fused
        return network([w], input_is_latent=True, randomize_noise=False)[0]

    return {
        "rosinality": lambda w: run(w, True),
        "rosinality, not fused": lambda w: run(w, False),
    }


def _load_weights(network: Any, state: dict[str, Tensor], generator: Generator) -> Any:
    network.load_state_dict(state)
    device = next(generator.parameters()).device
    return network.eval().requires_grad_(False).to(device)
