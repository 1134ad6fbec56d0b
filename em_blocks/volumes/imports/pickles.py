"""Pickled numpy arrays, read without unpickling: nothing that a file names is ever imported or called.

A pickle is a program for a stack machine, and `pickle.load` runs it. Here a machine that knows no
functions collects what the program says, and only the one program that numpy writes for a plain
array of numbers is understood.
"""

from __future__ import annotations

import math
import pickletools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from em_blocks.volumes.imports.unpacked import Readable

MOST_STEPS = 1000
"""Of a program; that of an array has about 50."""
LARGE = 1 << 16
"""Bytes of text or values from which on they can only be those of the array."""
_LONGEST_LINE = 1000

_ARRAY, _DTYPE = ("numpy", "ndarray"), ("numpy", "dtype")
_CORES = ("numpy.core", "numpy._core")  # of numpy 1 and 2
_RECONSTRUCT = [(f"{core}.multiarray", "_reconstruct") for core in _CORES]
_FROM_BUFFER = [(f"{core}.numeric", "_frombuffer") for core in _CORES]
# How Python 3 writes bytes for Python 2.
_ENCODE = ("_codecs", "encode")
_KNOWN = {_ARRAY, _DTYPE, _ENCODE, *_RECONSTRUCT, *_FROM_BUFFER}

_NUMBERS = re.compile(r"b1|[iu][1248]|f[248]")


class NotAnArrayError(ValueError):
    """A pickle that is something else than one plain array of numbers; says what."""


class Sink(Protocol):
    """What takes the values of an array."""

    def write(self, values: bytes, /) -> object: ...


class PickledArray(NamedTuple):
    """Shape and type of a pickled array."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool  # whether the first axis is the fastest

    @property
    def nbytes(self) -> int:
        """Size of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_pickled_array(file: Readable, sink: Sink, *, most_bytes: int) -> PickledArray:
    """Read the program of a pickle and copy the values of its array; memory does not depend on them.

    Parameters
    ----------
    file : Readable
        At the first byte of the pickle.
    sink : Sink
        Takes the values, in the order of the pickle.
    most_bytes : int
        Values of more bytes are refused before they are copied.

    Raises
    ------
    NotAnArrayError
        If the pickle is anything else than a plain array of numbers, or is damaged.
    """
    tape = _Tape(file, sink, most_bytes)
    found, values = _array(_run(tape))
    size = len(values) if isinstance(values, bytes) else tape.n_copied
    if size != found.nbytes:
        raise NotAnArrayError(
            f"its array of {found.shape} {found.dtype} needs {found.nbytes} bytes, but there are {size}"
        )
    if isinstance(values, bytes):
        sink.write(values)
    if file.read(1):
        raise NotAnArrayError("there is more in it than one array")
    return found


# -- the tape --------------------------------------------------------------------------------


class _Tape:
    """The file of a pickle; what is large on it goes to the sink."""

    def __init__(self, file: Readable, sink: Sink, most_bytes: int):
        self.file, self.sink, self.most_bytes = file, sink, most_bytes
        self.n_copied = 0
        self.was_large = False

    def read(self, n: int) -> bytes:
        if n <= LARGE:
            return self.file.read(n)
        if self.n_copied:
            raise NotAnArrayError("there are values of more than one array in it")
        if n > self.most_bytes:
            raise NotAnArrayError(
                f"its values take {n:,} bytes, but there is room for {self.most_bytes:,}"
            )
        while self.n_copied < n and (piece := self.file.read(min(1 << 20, n - self.n_copied))):
            self.sink.write(piece)
            self.n_copied += len(piece)
        self.was_large = True
        return _Copied(self.n_copied)

    def readline(self) -> bytes:
        return self.file.readline(_LONGEST_LINE)


class _Copied(bytes):
    """Stands for bytes that were copied: their length without their values."""

    def __new__(cls, length: int) -> _Copied:
        made = super().__new__(cls)
        made.length = length  # type: ignore[attr-defined]
        return made

    def __len__(self) -> int:
        return self.length  # type: ignore[attr-defined]


# -- the machine -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Name:
    """A function or class that the program names."""

    module: str
    name: str

    @property
    def key(self) -> tuple[str, str]:
        return self.module, self.name


@dataclass
class _Call:
    """What the program would call, and the state that it would give to the result."""

    of: tuple[str, str]
    arguments: tuple
    state: Any = None


_MARK, _VALUES = object(), object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "MARK": _MARK}
_LITERALS = {
    "BININT", "BININT1", "BININT2", "LONG1", "SHORT_BINUNICODE", "BINUNICODE",
    "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8", "SHORT_BINSTRING", "BINSTRING",
}
_BYTES = {"BINBYTES", "BINBYTES8", "BYTEARRAY8", "BINSTRING"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass
class _Machine:
    """The stack of a pickle, and what it remembers by number."""

    stack: list = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def pop(self) -> Any:
        if not self.stack:
            raise NotAnArrayError("its program takes more than it put there")
        return self.stack.pop()

    def step(self, name: str, argument: Any) -> None:
        """Do one step of the program that is not a constant or a literal."""
        push = self.stack.append
        if name in _TUPLES:
            push(tuple([self.pop() for _ in range(_TUPLES[name])][::-1]))
        elif name == "TUPLE":
            push(tuple(self._to_mark()[::-1]))
        elif name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            push(top := self.pop())
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = top
        elif name in ("BINGET", "LONG_BINGET"):
            if argument not in self.memo:
                raise NotAnArrayError("its program asks for what it did not put there")
            push(self.memo[argument])
        elif name == "GLOBAL":
            push(_named(*argument.split(" ", 1)))  # genops gives both, with a space between
        elif name == "STACK_GLOBAL":
            last = self.pop()
            push(_named(self.pop(), last))
        elif name == "REDUCE":
            arguments = self.pop()
            push(_called(self.pop(), arguments))
        elif name == "BUILD":
            state, made = self.pop(), self.pop()
            if not isinstance(made, _Call) or made.state is not None:
                raise NotAnArrayError("its program changes what is no new array")
            made.state = state
            push(made)
        else:
            raise NotAnArrayError(f"its program has the step {name}, which that of an array has not")

    def _to_mark(self) -> list:
        found = []
        while (value := self.pop()) is not _MARK:
            found.append(value)
        return found


def _run(tape: _Tape) -> Any:
    """Return what the program of a pickle would make, as names, calls and their arguments."""
    machine = _Machine()
    for name, argument in _steps(tape):
        if name in _CONSTANTS:
            machine.stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            machine.stack.append(_literal(tape, name, argument))
        else:
            machine.step(name, argument)
    if len(machine.stack) != 1:
        raise NotAnArrayError("its program makes more than one thing")
    return machine.stack[0]


def _steps(tape: _Tape) -> Iterator[tuple[str, Any]]:
    try:
        for number, (code, argument, _) in enumerate(pickletools.genops(tape)):  # type: ignore[arg-type]
            if number > MOST_STEPS:
                raise NotAnArrayError(f"its program has more than {MOST_STEPS} steps")
            if code.name == "STOP":
                return
            if code.name not in ("PROTO", "FRAME"):
                yield code.name, argument
    except NotAnArrayError:
        raise
    except ValueError as error:  # of what is no pickle, or ends too early
        raise NotAnArrayError(f"it is no whole pickle: {error}") from error
    raise NotAnArrayError("it ends in the middle of its program")


def _literal(tape: _Tape, name: str, argument: Any) -> Any:
    if tape.was_large:
        tape.was_large = False
        if name not in _BYTES:
            raise NotAnArrayError(
                "its values are stored as text, as pickles of the protocols 0 to 2 are; store it with "
                "protocol=4"
            )
        return _VALUES
    return bytes(argument) if isinstance(argument, bytearray) else argument


def _named(module: object, name: object) -> _Name:
    # Compared and shown as text only: nested tuples can take forever to be hashed or printed.
    if not isinstance(module, str) or not isinstance(name, str):
        raise NotAnArrayError("its program names a function by what is no text")
    if (module, name) not in _KNOWN:
        raise NotAnArrayError(f"it names {module}.{name}, which an array does not need")
    return _Name(module, name)


def _called(of: object, arguments: object) -> Any:
    if not isinstance(of, _Name) or of.key == _ARRAY or not isinstance(arguments, tuple):
        raise NotAnArrayError("its program calls what makes no array")
    if of.key != _ENCODE:
        return _Call(of.key, arguments)
    if len(arguments) == 2 and isinstance(arguments[0], str) and arguments[1] == "latin1":
        return arguments[0].encode("latin1", errors="replace")
    raise NotAnArrayError("its program encodes what is no text")


# -- what it means ---------------------------------------------------------------------------


def _array(made: object) -> tuple[PickledArray, object]:
    """Return the array that a program makes, and its values; raises `NotAnArrayError`."""
    if isinstance(made, _Call) and made.of in _RECONSTRUCT and _is_empty_array(made.arguments):
        if isinstance(made.state, tuple) and len(made.state) == 5:
            version, shape, dtype, fortran, values = made.state
            if version == 1 and fortran in (0, 1):
                return PickledArray(_shape(shape), _dtype(dtype), bool(fortran)), _bytes(values)
    elif isinstance(made, _Call) and made.of in _FROM_BUFFER and made.state is None:
        if len(made.arguments) == 4 and made.arguments[3] in ("C", "F"):
            values, dtype, shape, order = made.arguments
            return PickledArray(_shape(shape), _dtype(dtype), order == "F"), _bytes(values)
    raise NotAnArrayError("it makes something else than an array")


def _is_empty_array(arguments: tuple) -> bool:
    return len(arguments) == 3 and arguments[0] == _Name(*_ARRAY) and arguments[1] == (0,)


def _bytes(values: object) -> object:
    if isinstance(values, str):  # of Python 2
        values = values.encode("latin1", errors="replace")
    if values is not _VALUES and not isinstance(values, bytes):
        raise NotAnArrayError("its values are no bytes, as those of an array of objects")
    return values


def _shape(shape: object) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise NotAnArrayError("the shape of its array is no tuple of numbers from 0 on")
    return shape


def _dtype(dtype: object) -> np.dtype:
    """Return the type of numbers that a program makes."""
    if isinstance(dtype, _Call) and dtype.of == _DTYPE and dtype.arguments:
        name, state = dtype.arguments[0], dtype.state
        order = state[1] if isinstance(state, tuple) and len(state) > 4 else None
        if (
            isinstance(name, str) and _NUMBERS.fullmatch(name) and order in ("<", ">", "|", "=")
            and tuple(state[2:5]) == (None, None, None)
        ):
            return np.dtype(name).newbyteorder(order)
        shown = repr(name[:80]) if isinstance(name, str) else "none"
        raise NotAnArrayError(f"its array is of the dtype {shown}, not of plain numbers")
    raise NotAnArrayError("its array has no dtype of numbers")
