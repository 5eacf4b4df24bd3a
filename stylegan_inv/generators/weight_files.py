"""Reading files of weights. Nothing here executes what a file contains: pickles are read with ``weights_only=True``."""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stylegan_inv.errors import UserError

# First bytes of a file that torch.save wrote in its old, non-zip format: the pickled number 0x1950a86a20f9469cfc6c.
_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def file_hash(path: str | Path) -> str:
    """sha256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def safetensors_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, without its tensors."""
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as f:
        return f.metadata() or {}


def _read_torch(path: Path) -> Any:
    """``torch.load`` of tensors, containers and ``argparse.Namespace`` (training options) only."""
    allowed: list[Any] = [argparse.Namespace]
    if hasattr(torch.serialization, "safe_globals"):
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    before = torch.serialization.get_safe_globals()  # torch 2.4
    torch.serialization.add_safe_globals(allowed)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def read_weights(path: str | Path) -> tuple[Mapping[str, Any], dict[str, str]]:
    """Content of a ``.safetensors`` or PyTorch file (told apart by what is in it) and its text metadata.

    Raises:
        UserError: the file is empty, truncated, a web page, a pickle of objects, or something else.
    """
    path = Path(path)
    size = path.stat().st_size
    if size == 0:
        raise UserError(f"{path} is empty (0 bytes): the download failed, fetch it again")
    with open(path, "rb") as f:
        head = f.read(256)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise UserError(
            f"{path} is a web page, not weights: the server answered with a login, quota or error page; open the link "
            f"in a browser and save the file itself"
        )
    if text.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a Git LFS pointer, not weights: run `git lfs pull` where it came from")
    if head[:4] == b"PK\x03\x04" or head.startswith(_LEGACY_TORCH):
        try:
            content = _read_torch(path)
        except pickle.UnpicklingError as error:
            found = re.search(r"GLOBAL ([\w.]+)", str(error))
            what = f"the class {found[1]}" if found else "objects that are not tensors"
            raise UserError(
                f"{path} holds {what}, which loading could execute: refused; save the state dict alone, "
                f"torch.save(network.state_dict(), ...)"
            ) from error
        except Exception as error:  # torch reports damage as RuntimeError, EOFError, KeyError, ...
            raise UserError(f"{path} is damaged or incomplete ({size} bytes): download or copy it again") from error
        if isinstance(content, nn.Module) or not isinstance(content, Mapping):
            raise UserError(f"{path} holds a {type(content).__name__}, expected a state dict")
        return content, {}
    if head[:1] == b"\x80":
        raise UserError(
            f"{path} is a pickle of objects (NVIDIA's .pkl?), a format that is not supported yet: in NVIDIA's "
            f"repository run torch.save(pickle.load(open('{path.name}', 'rb'))['G_ema'].state_dict(), 'generator.pt') "
            f"and load generator.pt"
        )
    length = int.from_bytes(head[:8], "little")
    if len(head) > 8 and head[8:9] == b"{" and length < 100_000_000:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(str(path)), safetensors_metadata(path)
        except SafetensorError as error:
            raise UserError(f"{path} is damaged or incomplete ({size} bytes): download or copy it again") from error
    raise UserError(f"{path} is not a weights file: expected .safetensors or a file written by torch.save")
