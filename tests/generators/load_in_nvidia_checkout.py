"""Loads a snapshot with the loader of a checkout of NVIDIA's: run in a process of its own.

``python load_in_nvidia_checkout.py CHECKOUT SNAPSHOT OUTPUT``: writes the images of G and of its moving average, the
logits of D and what else was loaded, and a pickle of the same networks that NVIDIA's code writes. Only this process
executes the source text in the file.
"""

from __future__ import annotations

import copy
import importlib.util
import io
import pickle
import sys
import types

import packaging.version
import torch

checkout, snapshot, output = sys.argv[1:]
sys.path.insert(0, checkout)
if importlib.util.find_spec("pkg_resources") is None:  # which stylegan3 needs, and present versions of setuptools lack
    sys.modules["pkg_resources"] = types.ModuleType("pkg_resources")
    sys.modules["pkg_resources"].parse_version = packaging.version.parse  # type: ignore[attr-defined]

import legacy  # noqa: E402

with open(snapshot, "rb") as file:
    networks = legacy.load_network_pkl(file)
torch.manual_seed(0)
z, images = torch.randn(4, networks["G_ema"].z_dim), torch.rand(4, 3, *[networks["D"].img_resolution] * 2) * 2 - 1
c = torch.eye(networks["G"].c_dim)[:1].expand(4, -1) if networks["G"].c_dim else None
# Written once more by NVIDIA's own code, with the source text of the checkout.
with open(output.removesuffix(".pt") + ".pkl", "wb") as file:
    pickle.dump(networks, file)
half = legacy.load_network_pkl(io.BytesIO(pickle.dumps(networks)), force_fp16=True)
pipe = networks["augment_pipe"]
with torch.no_grad():
    result = {
        "z": z,
        "images": images,
        "G": networks["G"](z, c, noise_mode="const"),
        "G_ema": networks["G_ema"](z, c, noise_mode="const"),
        "copy": copy.deepcopy(networks["G_ema"])(z, c, noise_mode="const"),
        "D": networks["D"](images, c),
        "p": pipe.p,
        "hue": pipe.hue,
        "float16": half["G_ema"].synthesis.b8.use_fp16,
        "training_set": dict(networks["training_set_kwargs"]),
    }
torch.save(result, output)
