"""Forward passes that several metrics share, and descriptions of networks for protocols."""

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


class ResultCache:
    """Caches the results of functions of the most recent tensors, so that metrics share the passes of a network.

    A tensor is recognised by identity and version counter, and only while it exists.

    Args:
        size: Maximum number of results.
    """

    def __init__(self, size: int = 16) -> None:
        self.size = size
        self._results: OrderedDict[Any, tuple[tuple[weakref.ref[Any], ...], Any]] = OrderedDict()

    def __call__(self, owner: object, compute: Callable[..., Any], *tensors: Tensor) -> Any:
        """Returns ``compute(*tensors)``.

        Args:
            owner: Object that ``compute`` belongs to; together with the function's name it identifies the function.
            compute: The function.
            *tensors: Its arguments.
        """
        if any(t.is_inference() for t in tensors):  # inference tensors have no version counter
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


#: The cache that all metrics of the process share.
cached = ResultCache()


def masked(image: Tensor, mask: Tensor) -> Tensor:
    """Returns images multiplied by their masks; repeated calls return the same tensor."""

    def multiply(image: Tensor, mask: Tensor) -> Tensor:
        return image * mask

    product: Tensor = cached(masked, multiply, image, mask)
    return product


def describe_network(source: nn.Module | str | Path | None, network: nn.Module) -> str:
    """Returns the name and hash of a network, such as ``face_eval (sha256 0123456789ab)``.

    Args:
        source: Name or file that the network was loaded from: the hash is that of the file. Otherwise the class is
            named and the hash is that of the tensors.
        network: The network.
    """
    if isinstance(source, (str, Path)):
        for file in (Path(source), ASSETS / f"{source}.safetensors"):
            if file.is_file():
                return f"{Path(source).stem} (sha256 {file_hash(file)[:12]})"
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return f"{type(network).__name__} (sha256 of its tensors {digest.hexdigest()[:12]})"
