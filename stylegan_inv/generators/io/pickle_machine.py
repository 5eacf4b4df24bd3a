"""A reader of pickles that executes nothing.

Python's own unpickler imports and calls what a file names, and sets the attributes that it asks for. This one works
through the same instructions (split by `pickletools.genops`), but a name stays a name: it must stand in a table of
exact names, and what is built from it is made by a function of ours that takes data and returns data. Nothing that lies
on the stack can be called or have attributes set, other instructions than the ones below are refused, and lengths are
checked against the size of the file before anything is read.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

# Far above any real file: training checkpoints have some 50,000 instructions.
MAX_STEPS = 1_000_000
MAX_MEMO = 250_000

_ITSELF = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)
_NEW: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}


class RefusedPickle(Exception):
    """The file asks for something that this reader does not do; the message completes "the file ..."."""


@dataclass(frozen=True)
class Global:
    """The name of a class or function in a file: text, not the thing itself."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class StandIn:
    """Base of what may receive a stored state (the BUILD instruction)."""

    __slots__ = ()

    def build(self, state: Any) -> None:
        """Take the state, as data."""
        raise NotImplementedError


class Record(StandIn):
    """An object that a file describes: the name of its class and what was stored with it.

    Attributes:
        name: Of the class.
        state: Usually the attributes as a dict; None if nothing was stored.
        source: Source text that the file brings for its class (NVIDIA's persistence), or None. Never run.
    """

    __slots__ = ("name", "state", "source")

    def __init__(self, name: str, state: Any = None, source: str | None = None) -> None:
        self.name, self.state, self.source = name, state, source

    def build(self, state: Any) -> None:  # noqa: D102
        self.state = state


class BoundedStream:
    """Reads that never ask for more bytes than the file has: a length in a damaged file may be anything."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self.left = file, size

    def read(self, count: int) -> bytes:
        """Exactly ``count`` bytes."""
        if not 0 <= count <= self.left:
            raise EOFError(f"{count} bytes wanted, {self.left} left")
        self.left -= count
        return self._file.read(count)

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer; the number of bytes."""
        if len(buffer) > self.left:
            raise EOFError(f"{len(buffer)} bytes wanted, {self.left} left")
        count = self._file.readinto(buffer)  # type: ignore[attr-defined]
        self.left -= count
        return count

    def readline(self) -> bytes:
        """Up to the end of the line."""
        line = self._file.readline()
        self.left -= len(line)
        return line


def check_key(key: Any) -> Any:
    """A dict key or member of a set: plain, as hashing a tuple nested a million times ends the process."""
    parts = key if isinstance(key, tuple) else (key,)
    if not all(part is None or isinstance(part, (str, bytes, int, float)) for part in parts):
        raise RefusedPickle(f"has a {type(key).__name__} as a key, expected text or numbers")
    return key


def load(
    stream: BoundedStream,
    names: Mapping[str, Callable[..., Any] | None],
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Read one pickle.

    Args:
        stream: Left at the byte after the pickle.
        names: Exact names that the pickle may mention -> the function that builds what it makes of them, or None for
            names that are only mentioned.
        persistent: What stands for a persistent id (storages of torch files); None refuses them.

    Raises:
        RefusedPickle: The pickle wants more than data.
        Exception: Of many kinds, if it is damaged.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    def top(kind: type) -> Any:
        if not isinstance(stack[-1], kind):
            raise RefusedPickle(f"fills a {type(stack[-1]).__name__} as if it were a {kind.__name__}")
        return stack[-1]

    def remember(number: int) -> None:
        memo[number] = stack[-1]
        if len(memo) > MAX_MEMO:
            raise RefusedPickle(f"has more than {MAX_MEMO:,} objects")

    def mention(module: str, name: str) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise RefusedPickle("has a name that is not text")
        found = Global(module, name)
        if str(found) not in names:
            raise RefusedPickle(f"names {ascii(str(found))[1:-1][:120]}, which loading it could execute")
        stack.append(found)

    def make() -> None:
        arguments, what = stack.pop(), stack.pop()
        build = names.get(str(what)) if isinstance(what, Global) else None
        if build is None or not isinstance(arguments, tuple):
            label = what if isinstance(what, Global) else f"a {type(what).__name__}"
            raise RefusedPickle(f"wants to call {label}")
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
        if op in _ITSELF:
            stack.append(argument)
        elif op in _NEW:
            stack.append(_NEW[op]())
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
            mention(*argument.split(" ", 1))
        elif op == "STACK_GLOBAL":
            name, module = stack.pop(), stack.pop()
            mention(module, name)
        elif op in ("REDUCE", "NEWOBJ"):
            make()
        elif op == "BUILD":
            state = stack.pop()
            # The attributes of a dict (torch's state dicts have one, _metadata) are no content.
            if isinstance(stack[-1], StandIn):
                stack[-1].build(state)
            elif not isinstance(stack[-1], dict):
                raise RefusedPickle(f"sets attributes of a {type(stack[-1]).__name__}")
        elif op == "BINPERSID" and persistent is not None:
            stack.append(persistent(stack.pop()))
        elif op == "STOP":
            if len(stack) != 1 or marks:
                raise ValueError("something is left on the stack")
            return stack[0]
        elif op not in ("PROTO", "FRAME"):  # every instruction is checked by itself, frames or not
            raise RefusedPickle(f"has the instruction {op}, which no file of weights needs")
    raise EOFError("no end")
