"""What the config of a stranger's run could name to execute, write, read or download something, and where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Config = dict[str, Any]
#: Stands for the file that an attack would write.
CANARY = "canary"


def call(target: Any, *arguments: Any, **more: Any) -> Config:
    """A node that calls something; positional arguments come as attackers give them."""
    return {"_target_": target, **({"_args_": list(arguments)} if arguments else {}), **more}


#: Nodes that would execute code, write, read or download.
NODES: dict[str, Any] = {
    "module in the folder": call("evil.Evil"),
    "module in a subfolder": call("checkpoints.evil.Evil"),
    "os.system": call("os.system", f"touch {CANARY}"),
    "posix.system": call("posix.system", f"touch {CANARY}"),
    "subprocess": call("subprocess.check_output", ["touch", CANARY]),
    "exec": call("builtins.exec", f"open('{CANARY}','w')"),
    "eval": call("builtins.eval", f"open('{CANARY}','w')"),
    "open": call("builtins.open", CANARY, "w"),
    "io.open": call("io.open", CANARY, "w"),
    "__import__": call("builtins.__import__", "evil"),
    "import_module": call("importlib.import_module", "evil"),
    "runpy": call("runpy.run_path", "evil.py"),
    "torch.load": call("torch.load", "evil.pkl", weights_only=False),
    "numpy.load": call("numpy.load", "evil.npy", allow_pickle=True),
    "pickle.loads": call("pickle.loads", "cos\nsystem\n(S'touch canary'\ntR."),
    "torch.hub": call("torch.hub.load", ".", "evil", source="local"),
    "torch.hub url": call("torch.hub.load_state_dict_from_url", "http://127.0.0.1:9/x.pt"),
    "torch's compiler": call("torch._inductor.codecache.PyCodeCache.load_by_key_path", "evil", "evil.py"),
    "extension": call("torch.utils.cpp_extension.load", name="evil", sources=["evil.cpp"]),
    "path": call("pathlib.Path.write_text", call("pathlib.Path", CANARY), "x"),
    "unlink": call("pathlib.Path.unlink", call("pathlib.Path", "precious")),
    "mkdir": call("os.mkdir", CANARY),
    "rmtree": call("shutil.rmtree", "keep"),
    "archive": call("shutil.make_archive", CANARY, "zip", "."),
    "copytree": call("shutil.copytree", ".", f"../{CANARY}"),
    "url": call("urllib.request.urlopen", "http://127.0.0.1:9/"),
    "package: process": call("stylegan_inv.runtime.sweep_process.run_job", ["touch", CANARY]),
    "package: old process": call("stylegan_inv.sweeps.job_process.run_job", ["touch", CANARY]),
    "package: private module": call("stylegan_inv.methods.common.base.InversionMethod"),
    "package: writer": call("stylegan_inv.generators.save_generator", path=CANARY),
    "package: kernels": call("stylegan_inv.generators.ops.build.build_library", CANARY),
    "package: attribute walk": call("stylegan_inv.loading.torch.load", "evil.pkl"),
    "package: walk to os": call("stylegan_inv.utils.files.os.system", f"touch {CANARY}"),
    "package: loader": call("stylegan_inv.methods.__loader__.load_module", "evil"),
    "package: dunder": call("stylegan_inv.methods.__getattr__", "PSP"),
    "package: method of a class": call("stylegan_inv.methods.PSP.load_from_checkpoint", "evil.ckpt"),
    "package: instantiate": call("stylegan_inv.config.instantiate", {"_target_": "evil.Evil"}),
    "package: load_inverter": call("stylegan_inv.load_inverter", ".", trust=["evil"]),
    "package: callback": call("stylegan_inv.callbacks.Panels", run_dir="."),
    "package: loggers": call("stylegan_inv.runtime.make_loggers", run_dir="."),
    "package: download": call("stylegan_inv.weights.download.fetch", "inception"),
    "hydra: get_method": call("hydra.utils.get_method", path="os.system"),
    "hydra: get_class": call("hydra.utils.get_class", path="evil.Evil"),
    "hydra: get_object": call("hydra.utils.get_object", path="evil.EVIL"),
    "hydra: instantiate": call("hydra.utils.instantiate", {"_target_": "evil.Evil"}),
    "hydra: main": call("hydra._internal.utils._locate", "evil.Evil"),
    "partial": {"_target_": "os.system", "_partial_": True},
    "list as name": {"_target_": ["os.system"]},
    "number as name": {"_target_": 7},
    "mapping as name": {"_target_": {"_target_": "os.system"}},
    "null as name": {"_target_": None},
    "look-alike": {"_target_": "stylegan_inv.methods.РSP"},  # noqa: RUF001  a Cyrillic letter
    "full width": {"_target_": "ｏｓ.system"},  # noqa: RUF001
    "space": {"_target_": "stylegan_inv.methods.PSP "},
    "line": {"_target_": "stylegan_inv.methods.PSP\nos.system"},
    "relative": {"_target_": ".evil.Evil"},
    "dots": {"_target_": "stylegan_inv..methods.PSP"},
    "empty": {"_target_": ""},
    "positional arguments": call("stylegan_inv.losses.L2", "whole"),
    "unknown special key": {"_target_": "stylegan_inv.losses.L2", "_mode_": "x"},
    "text as _partial_": {"_target_": "stylegan_inv.losses.L2", "_partial_": "os.system"},
    "call as _convert_": {"_target_": "stylegan_inv.losses.L2", "_convert_": {"_target_": "os.system"}},
    "resolver": "${oc.env:HOME}",
    "interpolation": "x${method_name}",
    "escaped interpolation": "\\${oc.env:HOME}",
}


def put(*path: str) -> Callable[[Config, Any], None]:
    """Puts a node at a place of a config."""

    def change(config: Config, node: Any) -> None:
        for part in path[:-1]:
            config = config.setdefault(part, {})
        config[path[-1]] = node

    return change


#: Places of a config, among them those that a command does not build.
PLACES_OF_NODES = {
    "method": put("method"),
    "method.metrics": put("method", "metrics", "x"),
    "method.encoder.backbone": put("method", "encoder", "backbone"),
    "method.generator": put("method", "generator"),
    "method.loss": put("method", "loss", "terms", "x"),
    "method.optimizer": put("method", "optimizer"),
    "method.start": put("method", "start"),
    "dataset": put("dataset"),
    "dataset.task": put("dataset", "task"),
    "dataset.overrides": put("dataset", "overrides", "x"),
    "callbacks": put("callbacks", "x"),
    "trainer": put("trainer", "strategy"),
    "logger": put("logger"),
    "hydra": put("hydra", "callbacks", "x"),
    "unknown section": put("more", "x"),
}


#: A training has these, and nothing builds these sections from a run folder.
_SECTIONS = ("callbacks", "trainer", "logger")
ALLOWED = [(f"package: {name}", place) for name in ("callback", "loggers") for place in _SECTIONS]
#: Nodes whose name is allowed, and which are refused for something else.
OTHER_REASONS = ("positional", "unknown special", "text as", "call as", "hydra: get_")
