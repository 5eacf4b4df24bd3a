"""Extracts state dicts from NVIDIA's pickles of PyTorch and TensorFlow.

The pickles of PyTorch (NVlabs/stylegan2-ada-pytorch d72cc7d, NVlabs/stylegan3 c233a91) contain a dict of networks.
``torch_utils.persistence`` stores their modules together with the source text of the classes. Those of TensorFlow
(NVlabs/stylegan2 bf0fe0b, stylegan2-ada) contain a tuple (G, D, Gs) of ``dnnlib.tflib.network.Network``, as do those of
the original StyleGAN (NVlabs/stylegan f3a0446). `pickle_machine` reads the objects without executing the source texts.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.generators.io.layouts import State, check_name
from stylegan_inv.generators.io.pickle_machine import Record, RefusedPickle
from stylegan_inv.generators.io.pickle_objects import EXPANSION, NumpyArray, plain
from stylegan_inv.generators.io.stylegan1_layout import check_tensorflow_options, from_stylegan_tensorflow
from stylegan_inv.generators.io.tensorflow_layout import from_tensorflow

# NVIDIA's largest networks have 200 modules and 4 levels. The limits end the walk through a cycle.
_MAX_PARTS = 20_000
_MAX_DEPTH = 32
#: Longest name of a tensor, with the names of all modules that it is in. A file can hand the same long name to each.
_LONGEST_NAME = 1000
_ATTRIBUTES = ("activation", "architecture", "bias_gain", "conv_clamp", "group_size", "use_noise")
#: Attributes of modules (a pattern of their paths) that the shapes of a state dict do not tell, and their only value.
_ARCHITECTURE: tuple[tuple[str, Any], ...] = (
    (r"mapping\.fc\d+\.activation", "lrelu"),
    (r"mapping\.embed\.activation", "linear"),
    (r"synthesis\.b\d+\.conv[01]\.activation", "lrelu"),
    (r"synthesis\.b\d+\.conv[01]\.use_noise", True),
    (r"synthesis\.b\d+\.architecture", "skip"),
    (r"(synthesis\.b\d+\.\w+|mapping)\.affine\.activation", "linear"),
    (r"b\d+\.architecture", "resnet"),
    (r"b\d+\.(fromrgb|conv|conv0|conv1|fc)\.activation", "lrelu"),
    (r"b\d+\.(skip|out)\.activation", "linear"),
)
#: Group size of a minibatch standard deviation over all samples.
WHOLE_BATCH = 1 << 30


@dataclass
class StoredNetwork:
    """A network from a pickle.

    Attributes:
        name: Name of its class.
        state: Its state dict, for StyleGAN2 in NVIDIA's layout.
        hints: Arguments of :class:`.Generator` or :class:`.Discriminator` that the shapes do not tell.
        source_sha256: Hash of the source text of its class, which is not executed; None without one.
    """

    name: str
    state: State
    hints: dict[str, Any] = field(default_factory=dict)
    source_sha256: str | None = None


def networks(content: Any, size: int) -> Any:
    """Replaces networks by :class:`StoredNetwork`, and other objects by plain data.

    Args:
        content: Content of a file, from `torch_pickle`. Only its top level is searched.
        size: Size of the file in bytes, to which the memory is bounded.

    Raises:
        RefusedPickle: A network that is not supported.
    """
    if isinstance(content, tuple) and len(content) == 3 and all(map(_is_tensorflow, content)):
        content = dict(zip(("G", "D", "G_ema"), content, strict=True))  # Gs is the average of G
    elif isinstance(content, Record):  # a single network, as PTI saves it
        content = {"G_ema": content}
    if not isinstance(content, dict):
        return content
    return {name: _network(_with_tensors(value), size) for name, value in content.items()}


def _with_tensors(value: Any) -> Any:
    """Returns numpy arrays, alone or as values of a dict, as tensors."""
    if isinstance(value, NumpyArray):
        return value.tensor()
    if isinstance(value, dict) and any(isinstance(item, NumpyArray) for item in value.values()):
        return {key: item.tensor() if isinstance(item, NumpyArray) else item for key, item in value.items()}
    return value


def _is_tensorflow(value: Any) -> bool:
    return isinstance(value, Record) and value.name == "dnnlib.tflib.network.Network"


def _network(value: Any, size: int) -> Any:
    if not isinstance(value, Record):
        return value
    if _is_tensorflow(value):
        return _tensorflow_network(value, size)
    if isinstance(value.state, dict) and value.state.keys() == {"arguments", "tensors"}:
        return _exported_network(value)
    if not (isinstance(value.state, dict) and "_modules" in value.state):
        return plain(value)
    state: State = {}
    attributes: dict[str, Any] = {}
    for path, module in _parts(value, "_modules", "."):
        skipped = _get(module, "_non_persistent_buffers_set", set)
        for key, tensor in [*_get(module, "_parameters").items(), *_get(module, "_buffers").items()]:
            if isinstance(tensor, Tensor) and key not in skipped:
                state[_joined(path, key)] = tensor
        if len(state) > _MAX_PARTS:
            raise RefusedPickle(f"has more than {_MAX_PARTS:,} tensors in a network")
        attributes.update((path + key, module.state[key]) for key in _ATTRIBUTES if key in module.state)
    return StoredNetwork(value.name, state, _hints(attributes), _sha256(value.source))


def _exported_network(value: Record) -> StoredNetwork:
    """Returns a network that `nvidia_snapshot` wrote: arguments of NVIDIA's class, and tensors."""
    tensors, arguments = _get(value, "tensors"), _get(value, "arguments")
    state = {str(name): tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor)}
    hints: dict[str, Any] = {}
    for part, key, name in (
        ("synthesis_kwargs", "conv_clamp", "conv_clamp"),
        (None, "conv_clamp", "conv_clamp"),
        ("mapping_kwargs", "lr_multiplier", "mapping_lr_multiplier"),
    ):
        options = arguments if part is None else arguments.get(part)
        if isinstance(options, dict) and key in options:
            hints[name] = _positive(key, options[key])
    epilogue = arguments.get("epilogue_kwargs")
    if isinstance(epilogue, dict):
        hints["mbstd_group_size"] = _group_size(epilogue.get("mbstd_group_size"))
    return StoredNetwork(value.name, state, hints, _sha256(value.source))


def _get(module: Record, key: str, kind: type = dict) -> Any:
    found = module.state.get(key)
    return found if isinstance(found, kind) else kind()


def _parts(network: Record, key: str, separator: str) -> Iterator[tuple[str, Record]]:
    """Yields a network and all its children, each with its path."""
    count = 0

    def walk(part: Record, path: str, depth: int) -> Iterator[tuple[str, Record]]:
        nonlocal count
        count += 1
        if depth > _MAX_DEPTH or count > _MAX_PARTS:
            raise RefusedPickle("has too many or too deeply nested networks")
        yield path, part
        for name, child in _get(part, key).items():
            if isinstance(child, Record) and isinstance(child.state, dict):
                yield from walk(child, _joined(path, name, separator), depth + 1)

    yield from walk(network, "", 0)


def _joined(path: str, name: Any, separator: str = "") -> str:
    text = str(name)
    if len(path) + len(text) > _LONGEST_NAME:
        raise RefusedPickle(f"has a name of more than {_LONGEST_NAME:,} characters in a network")
    return check_name(f"{path}{text}{separator}")


def _hints(attributes: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments that shapes do not tell, from the attributes of the modules."""
    for name, found in attributes.items():
        for pattern, expected in _ARCHITECTURE:
            if re.fullmatch(pattern, name) and plain(found) != expected:
                raise _unsupported(name, plain(found), expected)
    for layers in (r"synthesis\.b\d+\.(conv[01]|torgb)", r"b\d+\.(fromrgb|conv|conv0|conv1)"):
        clamps = {str(found) for name, found in attributes.items() if re.fullmatch(rf"{layers}\.conv_clamp", name)}
        if len(clamps) > 1:
            raise RefusedPickle(
                f"has layers with different conv_clamp ({', '.join(sorted(clamps)[:3])}): not supported"
            )
    hints: dict[str, Any] = {}
    for layer in ("synthesis.b4.conv1", "b4.conv"):
        if f"{layer}.conv_clamp" in attributes:
            hints["conv_clamp"] = _positive("conv_clamp", attributes[f"{layer}.conv_clamp"])
    if "synthesis.b4.conv1.activation" in attributes and "mapping.fc0.bias_gain" in attributes:
        hints["mapping_lr_multiplier"] = _positive("lr_multiplier", attributes["mapping.fc0.bias_gain"])
    if "b4.mbstd.group_size" in attributes:
        hints["mbstd_group_size"] = _group_size(attributes["b4.mbstd.group_size"])
    return hints


def _unsupported(name: str, found: Any, expected: Any) -> RefusedPickle:
    return RefusedPickle(
        f"has {name} {str(found)[:60]!r}; only StyleGAN2's {expected!r} is supported, with which its state dict alone "
        f"would give other images"
    )


def _positive(name: str, value: Any) -> float | None:
    if value is None or (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
        return value
    raise RefusedPickle(f"has {name}={plain(value)!r}, expected a positive number")


def _group_size(value: Any) -> int:
    return WHOLE_BATCH if value is None else max(int(_positive("mbstd group size", value) or 1), 1)


def _tensorflow_network(network: Record, size: int) -> StoredNetwork:
    if not isinstance(network.state, dict):
        raise RefusedPickle("has a TensorFlow network without content")
    variables: State = {}
    left = size * EXPANSION
    for path, part in _parts(network, "components", "/"):
        for name, value in _get(part, "variables", list):
            if isinstance(value, NumpyArray):
                left -= value.values.nbytes  # each is copied, as its layout is another one
                if left < 0:
                    raise RefusedPickle(f"has variables that are more than {EXPANSION} times as large as the file")
                variables[_joined(path, name)] = value.tensor()
            elif isinstance(value, (int, float)):
                variables[_joined(path, name)] = torch.tensor(float(value))
    options = _get(network, "static_kwargs")
    name, source = str(plain(network.state.get("build_func_name"))), network.state.get("build_module_src")
    if any("/StyleMod/" in variable for variable in variables):
        state = from_stylegan_tensorflow(variables, check_tensorflow_options(plain(options)))
        return StoredNetwork(name, state, source_sha256=_sha256(source))
    if "FromRGB_lod0/weight" in variables:  # its discriminator, which the project does not support
        return StoredNetwork(name, variables, source_sha256=_sha256(source))
    is_generator = any(name.startswith("synthesis/") for name in variables)
    for key, expected in {
        "resample_kernel": [1, 3, 3, 1],
        "architecture": "skip" if is_generator else "resnet",
        "nonlinearity": "lrelu",
        "act": "lrelu",
        "mapping_nonlinearity": "lrelu",
        "normalize_latents": True,
    }.items():
        if (found := plain(options.get(key, expected))) != expected:
            raise _unsupported(key, found, expected)
    hints: dict[str, Any] = {"conv_clamp": _positive("conv_clamp", options.get("conv_clamp"))}
    if is_generator:
        hints["demod_eps_scaled"] = True
        hints["mapping_lr_multiplier"] = _positive("mapping_lrmul", options.get("mapping_lrmul", 0.01))
    else:
        # TensorFlow's default is 4; NVIDIA's converter uses the whole batch if the file has no group size.
        hints["mbstd_group_size"] = _group_size(options.get("mbstd_group_size", 4))
    return StoredNetwork(name, from_tensorflow(variables), hints, _sha256(source))


def _sha256(source: Any) -> str | None:
    return hashlib.sha256(source.encode("utf-8", "replace")).hexdigest() if isinstance(source, str) else None
