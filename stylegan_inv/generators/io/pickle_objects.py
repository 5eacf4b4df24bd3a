"""The names that files of weights may contain, and the data that replaces them.

The table has the names that PyTorch, numpy, NVIDIA's pickles of both generations and the training options of the
encoder papers write. All its functions take data and return data, see `pickle_machine`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylegan_inv.generators.io.pickle_machine import Global, Record, RefusedPickle, StandIn, check_key
from stylegan_inv.utils.plain_data import MOST_VALUES

Names = dict[str, Callable[..., Any] | None]

# Tensors may share a storage (tied weights), so that their sizes can add up to more than the file.
EXPANSION = 16
#: numpy and PyTorch have at most 64 axes.
_MOST_AXES, _LARGEST_AXIS = 64, 1 << 63
#: Characters of all options together. The training options of the papers have 10,000.
_MOST_OPTION_CHARACTERS = 10_000_000

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
STORAGE_TYPES = {f"torch.{name}": dtype for name, dtype in _STORAGES.items()}
#: Named only so that the error says what is wrong.
_OTHER_STORAGES = ("torch.storage.UntypedStorage", "torch.ComplexFloatStorage", "torch.ComplexDoubleStorage")


class Storage:
    """The numbers of tensors: one axis, one dtype."""

    __slots__ = ("values",)

    def __init__(self, values: Tensor) -> None:
        self.values = values


def storage_id(pid: Any) -> tuple[torch.dtype, str, int]:
    """Parses a persistent id of PyTorch: ("storage", type, key, device, length[, None]).

    Returns:
        Dtype, key and length of the storage.

    Raises:
        RefusedPickle: An id of another form.
    """
    if isinstance(pid, tuple) and len(pid) in (5, 6) and isinstance(pid[1], Global) and pid[5:] in ((), (None,)):
        dtype, key, count = STORAGE_TYPES.get(str(pid[1])), pid[2], pid[4]
        if pid[0] == "storage" and dtype and isinstance(key, str) and type(count) is int and count >= 0:
            return dtype, key, count
    raise RefusedPickle(
        "has a storage that is not one of PyTorch's plain types (float8, complex, ...); save the tensors as float32"
    )


class _Dtype(StandIn):
    """A numpy dtype of numbers, never of objects."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any, *_: Any) -> None:
        if not (isinstance(code, str) and re.fullmatch(r"[biufc]\d{1,2}", code)):
            raise RefusedPickle("has a numpy array that does not contain numbers")
        self.code, self.order = code, "="

    def build(self, state: Any) -> None:
        if not isinstance(state, tuple) or state[1] not in ("<", ">", "=", "|") or any(state[2:5]):
            raise RefusedPickle("has a numpy array of structures")
        self.order = state[1]

    def read(self, data: Any, count: int) -> np.ndarray:
        dtype = np.dtype(f"{self.order}{self.code}")
        if not isinstance(data, bytes) or len(data) != count * dtype.itemsize:
            raise ValueError("a numpy array whose data does not fit its shape")
        return np.frombuffer(data, dtype)


def _is_shape(value: Any) -> bool:
    """Returns whether a value may be a shape; the product of a million large numbers would take hours."""
    return (
        isinstance(value, tuple)
        and len(value) <= _MOST_AXES
        and all(type(n) is int and 0 <= n < _LARGEST_AXIS for n in value)
    )


class NumpyArray(StandIn):
    """A numpy array."""

    __slots__ = ("values", "_tensor")

    def __init__(self, *_: Any) -> None:
        self.values: np.ndarray = np.empty(0)
        self._tensor: Tensor | None = None

    def build(self, state: Any) -> None:  # noqa: D102
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype):
            raise RefusedPickle("has a numpy array without a type")
        if not _is_shape(shape):
            raise ValueError("a numpy array with an impossible shape")
        self.values = dtype.read(data, math.prod(shape)).reshape(shape, order="F" if fortran else "C")

    def tensor(self) -> Tensor:
        """Returns a copy as a tensor, always the same one: a file can name an array a hundred thousand times."""
        if self._tensor is None:
            native = self.values.dtype.newbyteorder("=")
            self._tensor = torch.from_numpy(self.values.astype(native, order="C", copy=True))
        return self._tensor


def _scalar(dtype: Any, data: Any) -> Any:
    if not isinstance(dtype, _Dtype):
        raise RefusedPickle("has a numpy number without a type")
    return dtype.read(data, 1)[0].item()


def _encode(text: Any, encoding: Any) -> bytes:
    """Decodes bytes as protocol 2 writes them."""
    if not isinstance(text, str) or encoding != "latin1":
        raise RefusedPickle("encodes something other than bytes")
    return text.encode("latin1")


def _persistent_object(meta: Any) -> Record:
    """Returns an object of NVIDIA's persistence. NVIDIA's loader executes its source text; here it stays text."""
    if not isinstance(meta, dict) or meta.get("type") != "class" or not isinstance(meta.get("class_name"), str):
        raise RefusedPickle("has an object of NVIDIA's persistence that is not a class")
    source = meta.get("module_src")
    return Record(meta["class_name"], meta.get("state"), source if isinstance(source, str) else None)


def _record(name: str) -> Callable[..., Record]:
    return lambda *_: Record(name)


def _path(*parts: Any) -> str:
    return str(PurePosixPath(*(part for part in parts if isinstance(part, str))))


def _dict() -> dict[Any, Any]:
    """Returns an empty dict, which is filled by instructions that check the keys."""
    return {}


def plain_names() -> Names:
    """Returns the names of containers, numpy objects and the options of training scripts, but not of tensors."""
    names: Names = {
        "collections.OrderedDict": _dict,
        "_codecs.encode": _encode,
        "numpy.dtype": _Dtype,
        "numpy.ndarray": None,
        "argparse.Namespace": _record("argparse.Namespace"),
        "torch.Size": lambda size=(): tuple(size),
        "torch.device": lambda *parts: ":".join(str(part) for part in parts if isinstance(part, (str, int))),
        "torch_utils.persistence._reconstruct_persistent_obj": _persistent_object,
        "dnnlib.tflib.network.Network": _record("dnnlib.tflib.network.Network"),
    }
    for module in ("builtins", "__builtin__"):
        names[f"{module}.set"] = lambda items=(): set(map(check_key, items))
    for core in ("core", "_core"):
        names[f"numpy.{core}.multiarray.scalar"] = _scalar
        names[f"numpy.{core}.multiarray._reconstruct"] = NumpyArray
    for module in ("dnnlib", "dnnlib.util"):
        names[f"{module}.EasyDict"] = _dict
    for kind in ("PosixPath", "WindowsPath", "PurePosixPath"):
        names[f"pathlib.{kind}"] = names[f"pathlib._local.{kind}"] = _path
    for kind in ("Sequential", "ModuleList", "ModuleDict"):
        names[f"torch.nn.modules.container.{kind}"] = _record(kind)
    for dtype in STORAGE_TYPES.values():
        names[str(dtype)] = None
    return names


def torch_names(size: int) -> Names:
    """Returns the names of `plain_names` and of tensors.

    Args:
        size: Size of the file in bytes. The tensors may add up to `EXPANSION` times as many.
    """
    left = size * EXPANSION

    def tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Tensor:
        nonlocal left
        if not isinstance(storage, Storage) or not isinstance(shape, tuple) or not isinstance(stride, tuple):
            raise RefusedPickle("has a tensor without a storage")
        if not (_is_shape(shape) and _is_shape(stride) and _is_shape((offset,))) or len(shape) != len(stride):
            raise ValueError("a tensor with an impossible shape")
        count = math.prod(shape)
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if count and last >= storage.values.numel():
            raise ValueError("a tensor that exceeds its storage")
        left -= count * storage.values.element_size()
        if left < 0:
            raise RefusedPickle(
                f"has tensors that are more than {EXPANSION} times as large as the file; save copies, tensor.clone()"
            )
        return storage.values.as_strided(shape, stride, offset) if count else storage.values.new_empty(shape)

    return {
        **plain_names(),
        **dict.fromkeys(STORAGE_TYPES),
        **dict.fromkeys(_OTHER_STORAGES),
        "torch._utils._rebuild_tensor": tensor,
        "torch._utils._rebuild_tensor_v3": None,  # of the other storages, which `storage_id` refuses
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_parameter": lambda data, *_: data,
        "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,  # a parameter with further attributes
        "torch._utils._rebuild_meta_tensor_no_storage": _meta_tensor,
    }


def _meta_tensor(*_: Any) -> Tensor:
    raise RefusedPickle("has tensors on the meta device, which have no values; save the network with its weights")


def plain(value: Any, depth: int = 16) -> Any:
    """Converts options to the types of JSON: dicts, lists, numbers, text. Anything else becomes text.

    Args:
        value: The options.
        depth: Deepest allowed nesting.

    Raises:
        RefusedPickle: The options are nested more deeply, or have more than `MOST_VALUES` values. Lists that are
            shared count as often as they occur, because the copies here are not shared, and so do texts.
    """
    return _plain(value, depth, _Count())


class _Count:
    """Counts the values and the characters of options."""

    def __init__(self) -> None:
        self.values = self.characters = 0

    def add(self, value: Any) -> None:
        self.values += 1
        self.characters += len(value) if isinstance(value, (str, bytes)) else 0
        if self.values > MOST_VALUES:
            raise RefusedPickle(f"has options of more than {MOST_VALUES:,} values")
        if self.characters > _MOST_OPTION_CHARACTERS:
            raise RefusedPickle(f"has options of more than {_MOST_OPTION_CHARACTERS:,} characters")


def _plain(value: Any, depth: int, count: _Count) -> Any:
    if depth == 0:
        raise RefusedPickle("has too deeply nested options")
    count.add(value)
    if isinstance(value, Record) and isinstance(value.state, dict):
        value = value.state
    if isinstance(value, dict):
        for key in value:
            count.add(key)
        return {str(key): _plain(item, depth - 1, count) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item, depth - 1, count) for item in value]
    if isinstance(value, NumpyArray):
        is_short = value.values.size <= MOST_VALUES
        return _plain(value.values.tolist(), depth - 1, count) if is_short else f"array {value.values.shape}"
    if isinstance(value, Tensor):
        return _plain(value.tolist(), depth - 1, count) if value.numel() <= 64 else f"tensor {tuple(value.shape)}"
    if value is None or isinstance(value, (str, int, float)):
        return value
    return str(value) if isinstance(value, (bytes, Global)) else type(value).__name__
