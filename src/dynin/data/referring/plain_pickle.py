"""Pickles that hold plain values alone, read without unpickling: nothing that a file names is imported or called.

Enters: a file such as `mask_dict.pkl` or `refs(unc).p`. Leaves: dicts, lists, tuples, strings, bytes, numbers, True,
False and None. Does not know what they mean.

The standard library's list of opcodes (`pickletools`) takes the file apart; this module builds values from those that
make plain ones, and refuses every other, above all those that would import or call something.
"""

import pickletools
from collections.abc import Callable
from pathlib import Path

from dynin.errors import DataError

_VALUES = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 "
    "UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 FLOAT BINFLOAT".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_PUTS = frozenset("PUT BINPUT LONG_BINPUT MEMOIZE".split())
_GETS = frozenset("GET BINGET LONG_BINGET".split())
_NOTHING = frozenset(("PROTO", "FRAME"))


def read(path: Path) -> object:
    """The value in a pickle of plain values.

    Raises:
        DataError: If the file is missing, damaged, or holds anything else.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.step(opcode.name, argument)
    except _RefusedError as error:
        raise DataError(
            f"{path}: holds more than plain values ({error}), which is not read; write it anew as JSON with a program "
            "that you trust"
        ) from error
    except Exception as error:  # a damaged file ends in one of many errors of the list of opcodes or of the stack
        raise DataError(f"{path}: is damaged or no pickle, expected one of plain values; fetch it again") from error
    raise DataError(f"{path}: ends too soon; fetch it again")


class _RefusedError(Exception):
    """An opcode that makes something else than a plain value."""


class _Machine:
    """The stack and the memo of the pickle language, for plain values."""

    def __init__(self) -> None:
        self.stack: list = []
        self._below: list[list] = []
        """What lies below each mark."""
        self._memo: dict[int, object] = {}
        self._steps: dict[str, Callable[[], None]] = {
            "MARK": self._mark,
            "POP": self._pop,
            "POP_MARK": self._pop_mark,
            "DUP": lambda: self.stack.append(self.stack[-1]),
            "EMPTY_DICT": lambda: self.stack.append({}),
            "EMPTY_LIST": lambda: self.stack.append([]),
            "EMPTY_TUPLE": lambda: self.stack.append(()),
            "LIST": lambda: self._gather(list),
            "TUPLE": lambda: self._gather(tuple),
            "DICT": lambda: self._gather(lambda items: dict(zip(items[::2], items[1::2], strict=True))),
            "TUPLE1": lambda: self._tuple(1),
            "TUPLE2": lambda: self._tuple(2),
            "TUPLE3": lambda: self._tuple(3),
            "APPEND": lambda: self._extend([self.stack.pop()]),
            "APPENDS": lambda: self._extend(self._since_mark()),
            "SETITEM": lambda: self._update([self.stack.pop(-2), self.stack.pop()]),
            "SETITEMS": lambda: self._update(self._since_mark()),
        }

    def step(self, name: str, argument: object) -> None:
        """Carry out one opcode."""
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in self._steps:
            self._steps[name]()
        elif name in _PUTS:
            key = len(self._memo) if argument is None else argument
            assert isinstance(key, int)
            self._memo[key] = self.stack[-1]
        elif name in _GETS:
            assert isinstance(argument, int)
            self.stack.append(self._memo[argument])
        elif name not in _NOTHING:
            raise _RefusedError(f"opcode {name}" + (f" of {argument}" if isinstance(argument, str) else ""))

    def _mark(self) -> None:
        self._below.append(self.stack)
        self.stack = []

    def _since_mark(self) -> list:
        items, self.stack = self.stack, self._below.pop()
        return items

    def _pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._since_mark()

    def _pop_mark(self) -> None:
        self._since_mark()

    def _gather(self, make: Callable[[list], object]) -> None:
        items = self._since_mark()
        self.stack.append(make(items))

    def _tuple(self, count: int) -> None:
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def _extend(self, items: list) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise _RefusedError("items for something that is no list")
        target.extend(items)

    def _update(self, items: list) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise _RefusedError("entries for something that is no dict")
        target.update(zip(items[::2], items[1::2], strict=True))
