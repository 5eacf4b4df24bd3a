"""The networks that metrics look through: one pass for all that share one, and what identifies them in a protocol."""

from __future__ import annotations

import hashlib
import weakref
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from stylegan_inv.encoders.face_network import ASSETS
from stylegan_inv.weights.download import file_hash


class Recent:
    """Remembers what functions made of the last few tensors, so that metrics on one network share its passes.

    A tensor is known again by identity and version, and only while it lives.

    Args:
        size: Results to keep.
    """

    def __init__(self, size: int = 16) -> None:
        self.size = size
        self._results: OrderedDict[Any, tuple[tuple[weakref.ref[Any], ...], Any]] = OrderedDict()

    def __call__(self, owner: object, compute: Callable[..., Any], *tensors: Tensor) -> Any:
        """``compute(*tensors)``; ``owner`` and the function's name tell it from others."""
        if any(t.is_inference() for t in tensors):  # their changes are not counted
            return compute(*tensors)
        key = (id(owner), compute.__name__, tuple((id(t), t._version) for t in tensors))
        inputs = (owner, *tensors)
        refs, result = self._results.pop(key, ((), None))
        if not refs or any(ref() is not it for ref, it in zip(refs, inputs, strict=True)):
            refs, result = tuple(weakref.ref(it) for it in inputs), compute(*tensors)
        self._results[key] = refs, result
        while len(self._results) > self.size:
            self._results.popitem(last=False)
        return result


#: Shared by all metrics of the process.
recent = Recent()


def masked(image: Tensor, mask: Tensor) -> Tensor:
    """Images times their masks, the same tensor for all that ask for it."""

    def multiply(image: Tensor, mask: Tensor) -> Tensor:
        return image * mask

    return recent(masked, multiply, image, mask)


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
