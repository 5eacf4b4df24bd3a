"""Writes files with the structure of NVIDIA's, without NVIDIA's code: run in a process of its own.

``python make_nvidia_files.py FOLDER``: reads ``generator.pt`` and ``discriminator.pt`` (state dicts in NVIDIA's layout)
and ``tensorflow.pt`` (variables), and writes ``network.pkl``, ``tensorflow.pkl``, ``pti.pt`` and variants. The modules
``torch_utils.persistence`` and ``dnnlib`` exist in this process only. The source text that travels with each class
writes ``canary`` when it is executed.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import nvidia_objects
import torch
from nvidia_objects import EasyDict, Persistent, tensorflow_networks, tree

FOLDER = Path(sys.argv[1])

nvidia_objects.SOURCE = f"open({str(FOLDER / 'canary')!r}, 'w').write('executed')"
generator = torch.load(FOLDER / "generator.pt", weights_only=True)
attributes = {
    "synthesis.b4.conv1.activation": "lrelu",
    "synthesis.b4.conv1.conv_clamp": 256,
    "synthesis.b4.conv1.use_noise": True,
    "mapping.fc0.bias_gain": 0.01,
    "z_dim": 5,
}
G_ema = tree(generator, "Generator", attributes)
zeros = {key: value if key.endswith("filter") else value * 0 for key, value in generator.items()}
G = tree(zeros, "Generator", attributes)
discriminator = torch.load(FOLDER / "discriminator.pt", weights_only=True)
D = tree(discriminator, "Discriminator", {"b4.mbstd.group_size": 2, "b4.conv.conv_clamp": None})
content = {"G": G, "D": D, "G_ema": G_ema, "training_set_kwargs": EasyDict(resolution=16), "augment_pipe": None}
(FOLDER / "network.pkl").write_bytes(pickle.dumps(content, protocol=4))
torch.save(G_ema, FOLDER / "pti.pt")
whole_batch = tree(discriminator, "Discriminator", {"b4.mbstd.group_size": None})
(FOLDER / "whole_batch.pkl").write_bytes(pickle.dumps({"D": whole_batch}, protocol=3))
twice = Persistent()
for _ in range(30):  # a thousand million modules, for who walks them all
    outer = Persistent()
    outer.a = outer.b = twice
    outer.kind = twice.kind = "Layer"
    twice = outer
(FOLDER / "twice.pkl").write_bytes(pickle.dumps({"G_ema": twice}, protocol=4))
relu = tree(generator, "Generator", {"synthesis.b4.conv1.activation": "relu"})
(FOLDER / "relu.pkl").write_bytes(pickle.dumps({"G_ema": relu}, protocol=2))
for name, changed in {
    "late": {"synthesis.b16.conv0.activation": "relu"},
    "orig": {"synthesis.b8.architecture": "orig"},
    "quiet": {"synthesis.b8.conv1.use_noise": False},
    "clamps": {"synthesis.b8.torgb.conv_clamp": 1.0},
}.items():
    network = tree(generator, "Generator", {**attributes, **changed})
    (FOLDER / f"{name}.pkl").write_bytes(pickle.dumps({"G_ema": network}, protocol=4))

Gs, D = tensorflow_networks(torch.load(FOLDER / "tensorflow.pt", weights_only=True))
(FOLDER / "tensorflow.pkl").write_bytes(pickle.dumps((Gs, D, Gs), protocol=4))
Gs.state["static_kwargs"]["normalize_latents"] = False
(FOLDER / "unnormalised.pkl").write_bytes(pickle.dumps((Gs, D, Gs), protocol=4))
