"""Reads files of weights without executing their content. The content tells the format, not the suffix."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators.io import torch_pickle
from stylegan_inv.generators.io.layouts import check_name, list_keys, shown
from stylegan_inv.generators.io.nvidia_pickle import networks
from stylegan_inv.generators.io.pickle_machine import RefusedCode, RefusedPickle
from stylegan_inv.utils.regular_files import file_size, open_regular
from stylegan_inv.utils.safetensors_files import open_safetensors
from stylegan_inv.weights.download import file_hash, is_web_page

__all__ = [
    "file_hash",
    "is_web_page",
    "misfits",
    "network_state",
    "plain_names",
    "read_weights",
    "safetensors_metadata",
    "unusable_values",
    "with_counters",
]
#: What DataParallel, DistributedDataParallel, AveragedModel, `torch.compile`, FSDP and activation checkpointing insert
#: into the names of parameters.
_WRAPPERS = frozenset(("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))
#: Number of batches that batch norm has seen, which files of early PyTorch versions do not have.
_COUNTER = "num_batches_tracked"
#: End of the names of batch norm's variances.
_VARIANCE = "running_var"
#: More than any network counts; a float holds it exactly.
_LARGEST_COUNT = 1 << 53


def safetensors_metadata(path: Path) -> dict[str, str]:
    """Returns the metadata of a safetensors file, without reading its tensors."""
    with open_safetensors(path) as f:
        return f.metadata() or {}


def _read_pickle(path: Path, head: bytes, size: int) -> Any:
    if head.startswith(b"PK\x03\x04"):
        return torch_pickle.read_zip(path)
    with open_regular(path, "a file of weights") as f:
        if head.startswith(torch_pickle.LEGACY_START):
            return torch_pickle.read_legacy(f, size)
        return torch_pickle.read_objects(f, size)


def read_weights(path: str | Path) -> tuple[Mapping[str, Any], dict[str, str]]:
    """Reads a file of weights.

    Args:
        path: A safetensors file, a file of `torch.save` in either format, or a pickle of NVIDIA's PyTorch or TensorFlow
            networks.

    Returns:
        The content by key, and the metadata. Networks that are stored as objects become :class:`.StoredNetwork`, and
        options (``argparse.Namespace``) become dicts.

    Raises:
        UserError: The file is empty, truncated, a web page, of another format, or contains code to execute.
    """
    path = Path(path)
    with open_regular(path, "a file of weights") as f:
        size = file_size(f)
        head = f.read(256)
    if size == 0:
        raise UserError(f"{path} is empty (0 bytes): the download failed; download it again")
    if is_web_page(head):
        raise UserError(
            f"{path} is a web page, not weights: the server answered with a login, quota or error page; open the link "
            f"in a browser and save the file itself"
        )
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a Git LFS pointer, not weights: run `git lfs pull` where it came from")
    # Checked before pickles, because the length of the header may start with the same byte as a pickle.
    length = int.from_bytes(head[:8], "little")
    if len(head) > 8 and head[8:9] == b"{" and length < 100_000_000:
        from safetensors import SafetensorError

        try:
            with open_safetensors(path) as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except SafetensorError as error:
            raise UserError(f"{path} is damaged or incomplete ({size} bytes): download or copy it again") from error
    if head.startswith((b"PK\x03\x04", b"\x80")) and len(head) > 2:
        return _read_torch(path, head, size), {}
    raise UserError(
        f"{path} is not a weights file: expected .safetensors, a file written by torch.save, or NVIDIA's .pkl"
    )


def _read_torch(path: Path, head: bytes, size: int) -> Mapping[str, Any]:
    try:
        content = networks(_read_pickle(path, head, size), size)
    except RefusedCode as error:
        raise UserError(
            f"{path} {error}: refused; if its network has one of the architectures that are supported, save the state "
            f"dict alone, torch.save(network.state_dict(), ...)"
        ) from error
    except RefusedPickle as error:
        raise UserError(f"{path} {error}") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # a damaged file raises EOFError, KeyError, IndexError, RuntimeError, ...
        raise UserError(f"{path} is damaged or incomplete ({size} bytes): download or copy it again") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path} contains a {type(content).__name__}, expected a state dict")
    return content


def misfits(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Returns a description of the differences between a state dict and a network; empty if it fits.

    Args:
        expected: State dict of the network.
        state: State dict to load. Counters of batch norm may be missing, as in files of early PyTorch versions.
    """
    missing = [key for key in expected if key not in state and not key.endswith(_COUNTER)]
    unexpected = [key for key in state if key not in expected]
    wrong = [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    problems = [list_keys("missing key", missing)] if missing else []
    problems += [list_keys("unexpected key", unexpected)] if unexpected else []
    if wrong:
        problems.append(f"{len(wrong)} wrong shape{'s' if len(wrong) > 1 else ''} ({'; '.join(wrong[:2])})")
    if not problems and (values := unusable_values(expected, state)):
        problems.append("; ".join(values[:2]) + (f"; ... ({len(values)} tensors)" if len(values) > 2 else ""))
    return "; ".join(problems)


def unusable_values(expected: Mapping[str, Tensor], state: Mapping[str, Any]) -> list[str]:
    """Returns descriptions of tensors whose numbers cannot be those of a network, e.g. ``a.weight holds NaN``.

    Any precision of floating point numbers can be used. Whole numbers are codes of quantised weights, whose scale is
    elsewhere. Tensors without memory (on the meta device) are not looked at.

    Args:
        expected: State dict of the network.
        state: State dict to load; other keys are ignored.
    """
    found = []
    for key, own in expected.items():
        value = state.get(key)
        if not isinstance(own, Tensor) or not isinstance(value, Tensor):
            continue
        if not own.is_floating_point():
            if not value.is_meta and not _are_counts(value):
                found.append(f"{key} holds other numbers than counts, expected whole ones of at least 0")
        elif not value.is_floating_point():
            found.append(f"{key} has type {value.dtype}, expected floating point numbers")
        elif not value.is_meta and not bool(torch.isfinite(value.float()).all()):
            found.append(f"{key} holds NaN or infinite numbers, expected finite ones: the network is broken")
        elif key.endswith(_VARIANCE) and not value.is_meta and bool((value < 0).any()):
            found.append(f"{key} holds negative numbers, expected variances: the network is broken")
    return found


def _are_counts(value: Tensor) -> bool:
    """Returns whether a tensor, also one of floating point numbers, holds what fits into counters and indices."""
    if value.dtype is torch.bool:
        return True
    numbers = value.double()
    return bool(((numbers >= 0) & (numbers <= _LARGEST_COUNT) & (numbers == numbers.floor())).all())


def with_counters(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a state dict that fits with all counters of batch norm, in the types of the network."""
    complete: dict[str, Tensor] = {}
    for key, own in expected.items():
        complete[key] = state[key].to(own.dtype) if key in state else torch.zeros((), dtype=own.dtype)
    return complete


def plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a state dict with the names that its network had before it was wrapped.

    Args:
        state: State dict, perhaps of `torch.nn.DataParallel`, `torch.compile` and others, also in parts of the network.

    Raises:
        UserError: Two tensors of one name, or a name that no network has.
    """
    named: dict[str, Tensor] = {}
    for key, value in state.items():
        name = check_name(".".join(part for part in key.split(".") if part not in _WRAPPERS))
        if name in named:
            raise UserError(f"contains {shown(name)} twice, once as {shown(key)}; save the state dict of one network")
        named[name] = value
    if len(state) > 1 and all(key.startswith("module.") for key in state if key != "n_averaged"):
        named.pop("n_averaged", None)  # of AveragedModel
    return named


def network_state(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Returns the tensors in the content of a file, or in its entry ``state_dict``, by their plain names."""
    inner = content.get("state_dict")
    items = (inner if isinstance(inner, Mapping) else content).items()
    return plain_names({str(key): value for key, value in items if isinstance(value, Tensor)})
