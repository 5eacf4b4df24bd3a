"""Objects that pickle as NVIDIA's networks do, without NVIDIA's code.

Importing this adds modules ``torch_utils.persistence`` and ``dnnlib``, so it belongs in a process of its own.
"""

from __future__ import annotations

import sys
import types

import numpy as np
import torch
from torch import Tensor, nn

#: Source text that travels with each class.
SOURCE = ""


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
    def __reduce__(self) -> tuple:
        meta = {
            "type": "class",
            "version": 6,
            "module_src": SOURCE,
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


def tensorflow_networks(variables: dict[str, dict[str, Tensor]]) -> tuple[Network, Network]:
    """Returns Gs and D with these variables, which have the names of `tests.generators.tensorflow_variables`."""

    def part(prefix: str, name: str) -> dict[str, np.ndarray]:
        """Returns the variables with a prefix, every other one in Fortran order, as numpy stores transposed arrays."""
        found = variables[name].items()
        arrays = {key.removeprefix(prefix): value.numpy() for key, value in found if key.startswith(prefix)}
        return {key: np.asfortranarray(a) if i % 2 else a for i, (key, a) in enumerate(arrays.items())}

    components = {"mapping": _network(part("mapping/", "G"), {}), "synthesis": _network(part("synthesis/", "G"), {})}
    generator = _network({"dlatent_avg": variables["G"]["dlatent_avg"].numpy()}, components, mapping_lrmul=0.01)
    return generator, _network(part("", "D"), {}, mbstd_num_features=1)


def _network(variables: dict[str, np.ndarray], components: dict[str, Network], **static: object) -> Network:
    return Network(
        version=4,
        name="network",
        static_kwargs=EasyDict(static),
        components=EasyDict(components),
        build_module_src=SOURCE,
        build_func_name="G_main",
        variables=list(variables.items()),
    )
