"""Reads pickles without executing anything.

Python's own unpickler imports and calls the functions that a file names, and sets attributes of objects. This reader
interprets the same instructions (split by `pickletools.genops`), but names are only looked up in a table of allowed
names, whose functions take data and return data. No object on the stack can be called or have its attributes set. All
other instructions are refused, and lengths are compared with the size of the file before anything is read.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

# Far above real files: training checkpoints have about 50,000 instructions.
MAX_STEPS = 1_000_000
MAX_MEMO = 250_000
#: What the functions of the table take, in multiples of the size of a pickle. They copy it, and a file can hand them
#: the same text or list a hundred thousand times, or join a text with itself again and again.
MAX_COPIES = 4
_LEAST_COPIES = 1 << 16
#: More parts than a key of any file has. Longer tuples with the same hash can be computed one from another.
_MOST_PARTS, _LONGEST_PART = 8, 256
#: The number that marks PyTorch's older format has 77. Python prints longer ones in quadratic time, or not at all.
_MOST_BITS = 128

_LITERALS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)
_CONSTRUCTORS: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}


class RefusedPickle(Exception):
    """Raised when a file asks for something that this reader refuses; the message continues "the file ..."."""


class RefusedCode(RefusedPickle):
    """Raised when a file names or calls code; its tensors alone could be read."""


@dataclass(frozen=True)
class Global:
    """The name of a class or function in a file; only the text."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class StandIn:
    """Base class of the objects that can receive a stored state (the BUILD instruction)."""

    __slots__ = ()

    def build(self, state: Any) -> None:
        """Receives the state, as data."""
        raise NotImplementedError


class Record(StandIn):
    """A stored object: the name of its class and its state.

    Attributes:
        name: Name of the class.
        state: Usually a dict of the attributes; None without a state.
        source: Source text of the class in the file (NVIDIA's persistence), or None. It is never executed.
    """

    __slots__ = ("name", "state", "source")

    def __init__(self, name: str, state: Any = None, source: str | None = None) -> None:
        self.name, self.state, self.source = name, state, source

    def build(self, state: Any) -> None:  # noqa: D102
        self.state = state


class BoundedStream:
    """A stream that never reads more bytes than the file has, because lengths in a damaged file are arbitrary."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self.left = file, size

    def read(self, count: int) -> bytes:
        """Returns exactly ``count`` bytes."""
        if not 0 <= count <= self.left:
            raise EOFError(f"expected {count} bytes, got {self.left}")
        self.left -= count
        return self._file.read(count)

    def readinto(self, buffer: memoryview) -> int:
        """Fills a buffer and returns the number of bytes."""
        if len(buffer) > self.left:
            raise EOFError(f"expected {len(buffer)} bytes, got {self.left}")
        count = int(self._file.readinto(buffer))  # type: ignore[attr-defined]
        self.left -= count
        return count

    def readline(self) -> bytes:
        """Returns the bytes up to the end of the line."""
        line = self._file.readline()
        self.left -= len(line)
        return line


def check_key(key: Any) -> Any:
    """Returns a dict key or member of a set unchanged, if it is plain.

    Hashing a tuple that is nested a million times would end the process. Python's hash of numbers is known, so that a
    dict of ten thousand chosen keys with the same hash takes minutes: whole numbers up to 64 bits have at most ten with
    the same hash, tuples of such numbers have as many as one wants.

    Raises:
        RefusedPickle: The key is no text, number or flat tuple of text and small numbers.
    """
    if isinstance(key, tuple):
        right = len(key) <= _MOST_PARTS and all(map(_is_part, key))
    else:
        right = key is None or isinstance(key, (str, bytes, float)) or _is_small(key, 64)
    if not right:
        raise RefusedPickle(
            f"has a {type(key).__name__} as a key, expected text, small numbers or a short tuple of them"
        )
    return key


def _is_small(value: Any, bits: int) -> bool:
    return isinstance(value, int) and value.bit_length() <= bits


def _is_part(value: Any) -> bool:
    # Tuples become text in the names of tensors, which copies their parts.
    is_text = isinstance(value, (str, bytes)) and len(value) <= _LONGEST_PART
    return value is None or is_text or _is_small(value, 31)


def _size(value: Any) -> int:
    return len(value) if isinstance(value, (str, bytes, bytearray, tuple, list, set, frozenset, dict)) else 1


def load(
    stream: BoundedStream,
    names: Mapping[str, Callable[..., Any] | None],
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Reads one pickle.

    Args:
        stream: The stream. It ends at the byte after the pickle.
        names: Maps each allowed name to the function that replaces it, or to None if the pickle may not call it.
        persistent: Resolves persistent ids (storages of PyTorch's files); None refuses them.

    Returns:
        The content, as plain data.

    Raises:
        RefusedPickle: The pickle contains more than data.
        Exception: Of many types, if the pickle is damaged.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    left = _LEAST_COPIES + MAX_COPIES * stream.left

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    def top(kind: type) -> Any:
        if not isinstance(stack[-1], kind):
            raise RefusedPickle(f"uses a {type(stack[-1]).__name__} as a {kind.__name__}")
        return stack[-1]

    def remember(number: int) -> None:
        memo[number] = stack[-1]
        if len(memo) > MAX_MEMO:
            raise RefusedPickle(f"has more than {MAX_MEMO:,} objects")

    def spend(arguments: tuple[Any, ...]) -> None:
        nonlocal left
        left -= len(arguments) + sum(map(_size, arguments))
        if left < 0:
            raise RefusedPickle(f"uses more than {MAX_COPIES} times as much data as it has; save it anew")

    def push_name(module: str, name: str) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise RefusedPickle("has a name that is not text")
        found = Global(module, name)
        if str(found) not in names:
            raise RefusedCode(f"names {ascii(str(found))[1:-1][:120]}, which unpickling could execute")
        stack.append(found)

    def call() -> None:
        arguments, what = stack.pop(), stack.pop()
        build = names.get(str(what)) if isinstance(what, Global) else None
        if build is None or not isinstance(arguments, tuple):
            label = what if isinstance(what, Global) else f"a {type(what).__name__}"
            raise RefusedCode(f"calls {label}")
        spend(arguments)
        stack.append(build(*arguments))

    def set_items(pairs: list[Any]) -> None:
        target = top(dict)
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            target[check_key(key)] = value

    argument: Any
    for step, (opcode, argument, _) in enumerate(pickletools.genops(stream)):  # type: ignore[arg-type]
        if step > MAX_STEPS:
            raise RefusedPickle(f"has more than {MAX_STEPS:,} instructions")
        op = opcode.name
        if op in _LITERALS:
            if isinstance(argument, int) and argument.bit_length() > _MOST_BITS:
                raise RefusedPickle(f"has a whole number of {argument.bit_length():,} bits")
            stack.append(argument)
        elif op in _CONSTRUCTORS:
            stack.append(_CONSTRUCTORS[op]())
        elif op in ("PUT", "BINPUT", "LONG_BINPUT"):
            remember(argument)
        elif op == "MEMOIZE":
            remember(len(memo))
        elif op in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif op == "MARK":
            marks.append(len(stack))
        elif op == "POP":
            if marks and marks[-1] == len(stack):
                marks.pop()
            else:
                stack.pop()
        elif op == "POP_MARK":
            since_mark()
        elif op == "DUP":
            stack.append(stack[-1])
        elif op in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(op[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif op == "TUPLE":
            stack.append(tuple(since_mark()))
        elif op == "LIST":
            stack.append(since_mark())
        elif op == "DICT":
            pairs = since_mark()
            stack.append({})
            set_items(pairs)
        elif op == "FROZENSET":
            stack.append(frozenset(map(check_key, since_mark())))
        elif op == "APPEND":
            value = stack.pop()
            top(list).append(value)
        elif op == "APPENDS":
            items = since_mark()
            top(list).extend(items)
        elif op == "SETITEM":
            pairs = stack[-2:]
            del stack[-2:]
            set_items(pairs)
        elif op == "SETITEMS":
            set_items(since_mark())
        elif op == "ADDITEMS":
            items = since_mark()
            top(set).update(map(check_key, items))
        elif op == "GLOBAL":
            push_name(*argument.split(" ", 1))
        elif op == "STACK_GLOBAL":
            name, module = stack.pop(), stack.pop()
            push_name(module, name)
        elif op in ("REDUCE", "NEWOBJ"):
            call()
        elif op == "BUILD":
            state = stack.pop()
            spend(state if isinstance(state, tuple) else ())
            # Attributes of dicts are ignored: PyTorch's state dicts have one, _metadata.
            if isinstance(stack[-1], StandIn):
                stack[-1].build(state)
            elif not isinstance(stack[-1], dict):
                raise RefusedPickle(f"sets attributes of a {type(stack[-1]).__name__}")
        elif op == "BINPERSID" and persistent is not None:
            stack.append(persistent(stack.pop()))
        elif op == "STOP":
            if len(stack) != 1 or marks:
                raise ValueError("the stack is not empty at the end")
            return stack[0]
        elif op not in ("PROTO", "FRAME"):  # frames do not matter, because every instruction is checked
            raise RefusedPickle(f"has the instruction {op}, which files of weights do not need")
    raise EOFError("the end is missing")
