"""Writes pickles with the structure of NVlabs/stylegan's, without its code: run in a process of its own.

``python make_stylegan1_files.py FOLDER``: reads ``variables.pickle``, a list of (file name, variables, options), and
writes the files. The module ``dnnlib`` exists in this process only; the source text in the files writes ``canary`` when
it is executed.
"""

from __future__ import annotations

import pickle
import sys
import types
from pathlib import Path

import numpy as np

FOLDER = Path(sys.argv[1])


class EasyDict(dict):
    pass


class Network:
    def __init__(self, variables: dict, components: dict, options: dict, name: str) -> None:
        self.state = {
            "version": 3,
            "name": name,
            "static_kwargs": EasyDict(options),
            "components": EasyDict(components),
            "build_module_src": f"open({str(FOLDER / 'canary')!r}, 'w').write('executed')",
            "build_func_name": name,
            "variables": list(variables.items()),
        }

    def __getstate__(self) -> dict:
        return self.state


for cls, module, name in ((EasyDict, "dnnlib.util", "EasyDict"), (Network, "dnnlib.tflib.network", "Network")):
    for part in ("dnnlib", "dnnlib.tflib", module):
        sys.modules.setdefault(part, types.ModuleType(part))
    cls.__module__, cls.__qualname__ = module, name
    setattr(sys.modules[module], name, cls)

for file, variables, options in pickle.loads((FOLDER / "variables.pickle").read_bytes()):

    def below(prefix: str, found: dict = variables) -> dict:
        return {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}

    parts = {
        "synthesis": Network(below("synthesis/"), {}, options, "G_synthesis"),
        "mapping": Network(below("mapping/"), {}, options, "G_mapping"),
    }
    own = {key: value for key, value in variables.items() if "/" not in key}
    Gs = Network(own, parts, options, "G_style")
    D = Network({"FromRGB_lod0/weight": np.zeros((1, 1, 3, 4), np.float32), "lod": np.float32(0)}, {}, {}, "D_basic")
    (FOLDER / file).write_bytes(pickle.dumps((Gs, D, Gs), protocol=4))
