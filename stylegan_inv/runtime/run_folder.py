"""What a run leaves on disk, and how to get a method back from it.

A run folder holds ``config.yaml`` (resolved), ``versions.json``, ``run.json``, ``metrics.csv``, ``metrics.json``,
``panels/`` and ``checkpoints/``.
"""

from __future__ import annotations

import json
import platform
import subprocess
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from stylegan_inv.errors import UserError
from stylegan_inv.methods.base import InversionMethod
from stylegan_inv.runtime.checkpoint_io import newest_readable, read_checkpoint
from stylegan_inv.runtime.official import load_official
from stylegan_inv.runtime.run_dirs import write_record
from stylegan_inv.runtime.weights import TABLE

_PACKAGES = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "omegaconf", "torchmetrics", "numpy", "Pillow")


def describe(run_dir: Path, config: dict[str, Any], command: str) -> None:
    """Write the resolved config, its hash, the git revision and the versions of what computed the run."""
    write_record(run_dir, command=command)
    OmegaConf.save(OmegaConf.create(config), run_dir / "config.yaml")
    versions = {"python": platform.python_version(), "platform": platform.platform(), "git": git_revision()}
    versions.update({name: metadata.version(name) for name in _PACKAGES})
    (run_dir / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")


def git_revision() -> str | None:
    """The revision of the checkout this package runs from, with ``+`` when files differ; None outside git."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def load_inverter(path: str | Path, device: str | torch.device = "cpu") -> InversionMethod:
    """Rebuild a trained method from its run folder, ready to invert.

    Args:
        path: A run folder (its ``checkpoints/last.ckpt`` is taken), a checkpoint inside one, an official checkpoint
            of pSp, e4e, ReStyle or their kin, or the name of one in `runtime.weights`.
        device: Where to put it.

    Returns:
        The method in evaluation mode.

    Raises:
        UserError: No such folder, no config or checkpoint in it, a checkpoint that does not fit, or a run that
            trained something else than an inversion method.
    """
    from stylegan_inv.config import instantiate  # Hydra is slow to import and needed only here

    # A file that lies in no run folder is somebody else's, and so is a name of the weights table.
    if str(path) in TABLE or (Path(path).is_file() and not (Path(path).parent.parent / "config.yaml").is_file()):
        return load_official(path, device)
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such run folder; give the folder that stylegan_inv.train printed")
    run_dir = path if path.is_dir() else path.parent.parent
    if not (run_dir / "config.yaml").is_file():
        raise UserError(f"{run_dir}: no config.yaml in it, expected the folder of a training run")
    checkpoint_path = path if path.is_file() else newest_readable(run_dir / "checkpoints")
    if checkpoint_path is None:
        raise UserError(f"{run_dir}: no checkpoints/last.ckpt in it; train first, or give another run")
    checkpoint = read_checkpoint(checkpoint_path)
    try:
        cfg = OmegaConf.load(run_dir / "config.yaml")
        node = cfg.method
    except (OmegaConfBaseException, ValueError) as error:
        raise UserError(f"{run_dir}/config.yaml: cannot be read ({str(error).splitlines()[0]})") from error
    method = instantiate(_for_inverting(OmegaConf.to_container(node)))
    if not isinstance(method, InversionMethod):
        raise UserError(f"{run_dir}: holds a {type(method).__name__}, expected an inversion method")
    method.on_load_checkpoint(checkpoint)
    state = checkpoint["state_dict"]
    if method.loss is None:
        state = {key: value for key, value in state.items() if not key.startswith("loss.")}
    load_state(method, state, checkpoint_path)
    return method.to(device).eval().requires_grad_(False)


def _for_inverting(node: Any) -> Any:
    """The config of a method without what only its training needs."""
    node = _without_pretrained(node)
    module, _, name = str(node.get("_target_")).rpartition(".")
    if "loss" in node and getattr(getattr(import_module(module), name, None), "trains", False):
        node["loss"] = None
    return node


def _without_pretrained(node: Any) -> Any:
    """A config whose encoder starts empty: the checkpoint fills it, and the files it once started from may be gone."""
    if isinstance(node, dict):
        return {key: None if key == "pretrained" else _without_pretrained(value) for key, value in node.items()}
    return [_without_pretrained(value) for value in node] if isinstance(node, list) else node


def load_state(module: torch.nn.Module, state: dict[str, Any], source: Path) -> None:
    """``load_state_dict`` whose error is one line that names what does not fit.

    Raises:
        UserError: Missing or surplus keys, or other shapes.
    """
    check_state(module, state, source)
    module.load_state_dict(state)


def check_state(module: torch.nn.Module, state: dict[str, Any], source: Path) -> None:
    """Raises UserError that lists missing and surplus keys and other shapes, if there are any."""
    own = module.state_dict()
    missing, surplus = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own.keys() & state.keys()
        if isinstance(own[key], torch.Tensor) and state[key].shape != own[key].shape  # else extra state
    ]
    problems = [
        f"{what}: {', '.join(keys[:3])}{' ...' if len(keys) > 3 else ''} ({len(keys)})"
        for what, keys in (("missing", missing), ("surplus", surplus), ("shape", sorted(shapes)))
        if keys
    ]
    if problems:
        raise UserError(f"{source}: does not fit {type(module).__name__}: {'; '.join(problems)}")
