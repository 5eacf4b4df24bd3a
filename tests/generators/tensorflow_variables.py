"""Names and layout of the variables in NVIDIA's files of TensorFlow."""

from __future__ import annotations

import numpy as np
import torch

from stylegan_inv.generators import Discriminator, Generator


def to_tensorflow(generator: Generator, discriminator: Discriminator) -> dict[str, dict[str, torch.Tensor]]:
    """Inverts NVIDIA's conversion."""
    g: dict[str, torch.Tensor] = {}
    for key, value in generator.state_dict().items():
        parts = key.split(".")
        if key == "mapping.w_avg":
            g["dlatent_avg"] = value
        elif parts[0] == "mapping":
            g[f"mapping/Dense{parts[1][2:]}/{parts[2]}"] = value.t() if parts[2] == "weight" else value
        elif parts[2] == "const":
            g["synthesis/4x4/Const/const"] = value[None]
        else:
            r = int(parts[1][1:])
            layer = {"conv0": "Conv0_up", "conv1": "Conv" if r == 4 else "Conv1", "torgb": "ToRGB"}[parts[2]]
            name = f"synthesis/{r}x{r}/{layer}"
            leaf = ".".join(parts[3:])
            if leaf == "noise_const":
                number = 0 if r == 4 else 2 * int(np.log2(r)) - (5 if layer == "Conv0_up" else 4)
                g[f"synthesis/noise{number}"] = value[None, None]
            elif leaf == "weight":
                weight = value.permute(2, 3, 1, 0)
                g[f"{name}/weight"] = weight.flip(0, 1) if layer == "Conv0_up" else weight
            elif leaf == "affine.weight":
                g[f"{name}/mod_weight"] = value.t()
            elif leaf == "affine.bias":
                g[f"{name}/mod_bias"] = value - 1
            else:
                g[f"{name}/{leaf}"] = value
    g["synthesis/lod"] = torch.tensor(0.0)
    layers = {"fromrgb": "FromRGB", "conv0": "Conv0", "conv1": "Conv1_down", "skip": "Skip", "conv": "Conv"}
    d = {}
    for key, value in discriminator.state_dict().items():
        block, layer, leaf = key.split(".")
        r = block[1:]
        name = {"fc": "4x4/Dense0", "out": "Output"}.get(layer) or f"{r}x{r}/{layers[layer]}"
        d[f"{name}/{leaf}"] = value.permute({4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[value.ndim])
    return {"G": {k: v.contiguous() for k, v in g.items()}, "D": {k: v.contiguous() for k, v in d.items()}}
