"""Objects that pickle as NVIDIA's networks do, without NVIDIA's code.

Importing this adds modules ``torch_utils.persistence`` and ``dnnlib``, so it belongs in a process of its own.
"""

from __future__ import annotations

import sys
import types

import numpy as np
import torch
from torch import nn


def fake_module(name: str, **content: object) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update(content)
    sys.modules[name] = module
    return module


def _reconstruct_persistent_obj(meta: dict) -> None:
    raise AssertionError("written to be read by others")


class EasyDict(dict):
    def __getattr__(self, name: str) -> object:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Network:
    def __init__(self, **state: object) -> None:
        self.state = state

    def __getstate__(self) -> dict:
        return self.state


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
_reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
EasyDict.__module__, EasyDict.__qualname__ = "dnnlib.util", "EasyDict"
Network.__module__, Network.__qualname__ = "dnnlib.tflib.network", "Network"
fake_module("torch_utils")
fake_module("torch_utils.persistence", _reconstruct_persistent_obj=_reconstruct_persistent_obj)
fake_module("dnnlib")
fake_module("dnnlib.util", EasyDict=EasyDict)
fake_module("dnnlib.tflib")
fake_module("dnnlib.tflib.network", Network=Network)


class Persistent(nn.Module):
    #: Source text that travels with each class.
    source = ""

    def __reduce__(self) -> tuple:
        meta = {
            "type": "class",
            "version": 6,
            "module_src": Persistent.source,
            "class_name": self.kind,
            "state": dict(vars(self)),
        }
        return _reconstruct_persistent_obj, (meta,), None


def tree(state: dict[str, torch.Tensor], kind: str, attributes: dict[str, object]) -> Persistent:
    """Returns modules with this state dict."""
    root = Persistent()
    root.kind = kind

    def module_of(path: list[str]) -> Persistent:
        here = root
        for name in path:
            if name not in here._modules:
                here.add_module(name, Persistent())
                here._modules[name].kind = "Layer"
            here = here._modules[name]
        return here

    for key, value in state.items():
        *path, name = key.split(".")
        module = module_of(path)
        if name in ("w_avg", "noise_const", "resample_filter"):
            module.register_buffer(name, value)
        else:
            module.register_parameter(name, nn.Parameter(value))
    for key, value in attributes.items():
        *path, name = key.split(".")
        setattr(module_of(path), name, value)
    root.register_buffer("scratch", torch.zeros(3), persistent=False)
    root.act_gain = np.sqrt(np.float64(2))
    return root
