"""Reads files of weights without executing their content. The content tells the format, not the suffix."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators.io import torch_pickle
from stylegan_inv.generators.io.layouts import list_keys
from stylegan_inv.generators.io.nvidia_pickle import networks
from stylegan_inv.generators.io.pickle_machine import RefusedPickle
from stylegan_inv.utils.safetensors_files import open_safetensors
from stylegan_inv.weights.download import file_hash, is_web_page

__all__ = ["file_hash", "is_web_page", "misfits", "read_weights", "safetensors_metadata"]


def safetensors_metadata(path: Path) -> dict[str, str]:
    """Returns the metadata of a safetensors file, without reading its tensors."""
    with open_safetensors(path) as f:
        return f.metadata() or {}


def _read_pickle(path: Path, head: bytes, size: int) -> Any:
    if head.startswith(b"PK\x03\x04"):
        return torch_pickle.read_zip(path)
    with open(path, "rb") as f:
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
    size = path.stat().st_size
    if size == 0:
        raise UserError(f"{path} is empty (0 bytes): the download failed; download it again")
    with open(path, "rb") as f:
        head = f.read(256)
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
        content = networks(_read_pickle(path, head, size))
    except RefusedPickle as error:
        raise UserError(
            f"{path} {error}: refused; save the state dict alone, torch.save(network.state_dict(), ...)"
        ) from error
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
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
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
    return "; ".join(problems)
