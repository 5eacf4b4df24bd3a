"""The networks that metrics look through, and what identifies them in a protocol."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from torch import nn

from stylegan_inv.encoders.face import ASSETS
from stylegan_inv.runtime.weights import file_hash


def describe_network(given: Any, network: nn.Module) -> str:
    """``face_eval (sha256 0123456789ab)``: the name or file a network was asked for by, and the hash of its file.

    A network that was built elsewhere is named by its class, and its hash is that of its tensors.
    """
    if isinstance(given, (str, Path)):
        for file in (Path(given), ASSETS / f"{given}.safetensors"):
            if file.is_file():
                return f"{Path(given).stem} (sha256 {file_hash(file)[:12]})"
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return f"{type(network).__name__} (sha256 of its tensors {digest.hexdigest()[:12]})"
