"""Reads a pickle's instructions one by one without running them.

The machine has a stack and a memo as pickle has, but the values on it are descriptions: a call is
looked up among the few that are allowed and answered by a stand-in. Only the instructions that
torch writes and its own restricted reader accepts are known.
"""

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from acon_analysis.models.checkpoints.allowed import (
    CALLABLE,
    NAMESPACE,
    is_allowed,
    put,
    refuse_global,
)
from acon_analysis.models.checkpoints.errors import Refusal, show
from acon_analysis.models.checkpoints.limits import Limits
from acon_analysis.models.checkpoints.records import Inert, Ordered, TensorRecord

_PLAIN = frozenset(
    ("BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "LONG1", "SHORT_BINSTRING")
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MAX_MARKS = 64


@dataclass(frozen=True, slots=True)
class Global:
    """A name the file asked for, ``"module attribute"``; nothing is imported."""

    name: str


class Machine:
    """Interprets one or several pickles in a row, symbolically.

    Parameters
    ----------
    stream : io.BytesIO
        The pickles; reading starts at the current position and stops after STOP.
    limits : Limits
        Caps on instructions and tensors, over all pickles of the stream together.
    persistent : callable
        Gets a storage's description (a tuple) and returns what stands for it.
    """

    def __init__(
        self,
        stream: io.BytesIO,
        limits: Limits,
        persistent: Callable[[tuple[object, ...]], object],
    ) -> None:
        self._stream = stream
        self._limits = limits
        self._persistent = persistent
        self._executed = 0
        self._tensors = 0
        self._stack: list[object] = []
        self._marks: list[list[object]] = []
        self._memo: dict[int, object] = {}

    def load(self) -> object:
        """Return the description of what the next pickle would make.

        Raises
        ------
        Refusal
            An instruction, a global or an argument that no state dict needs, or damage.
        """
        self._stack, self._marks, self._memo = [], [], {}
        first = True
        try:
            for opcode, argument, position in pickletools.genops(self._stream):
                if first and opcode.name != "PROTO":
                    raise Refusal("it does not begin as torch begins a pickle")
                first = False
                self._executed += 1
                if self._executed > self._limits.opcodes:
                    raise Refusal(f"it has more than {self._limits.opcodes:,} pickle instructions")
                if opcode.name != "STOP":
                    self._step(opcode.name, argument, position or 0)
        except (ValueError, IndexError, KeyError, OverflowError, UnicodeError, EOFError) as error:
            raise Refusal(f"its pickle is damaged ({show(str(error))})") from None
        if self._marks or len(self._stack) != 1:
            raise Refusal("its pickle is damaged (it leaves more or less than one object)")
        return self._stack[0]

    def _step(self, name: str, argument: object, position: int) -> None:
        if name in _PLAIN:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            items = [self._stack.pop() for _ in range(_TUPLES[name])]
            self._stack.append(tuple(reversed(items)))
        elif name in _HANDLERS:
            _HANDLERS[name](self, argument)
        else:
            raise Refusal(
                f"it holds the pickle instruction {name} at byte {position}, which torch never "
                "writes into a state dict"
            )

    def _proto(self, argument: object) -> None:
        if argument != 2:
            raise Refusal(f"it is a pickle of protocol {argument}, expected torch's protocol 2")

    def _mark(self, _: object) -> None:
        if len(self._marks) >= _MAX_MARKS:
            raise Refusal(f"its containers are nested more than {_MAX_MARKS} deep")
        self._marks.append(self._stack)
        self._stack = []

    def _pop_mark(self) -> list[object]:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _tuple(self, _: object) -> None:
        items = tuple(self._pop_mark())
        self._stack.append(items)

    def _empty_list(self, _: object) -> None:
        self._stack.append([])

    def _empty_dict(self, _: object) -> None:
        self._stack.append({})

    def _list(self) -> list[object]:
        target = self._stack[-1]
        if not isinstance(target, list):
            self._mismatch("append to", target)
        return target

    def _append(self, _: object) -> None:
        item = self._stack.pop()
        self._list().append(item)

    def _appends(self, _: object) -> None:
        items = self._pop_mark()
        self._list().extend(items)

    def _put_items(self, items: list[object]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            self._mismatch("put items into", target)
        for key, value in zip(items[::2], items[1::2], strict=True):
            put(target, key, value)

    def _setitem(self, _: object) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._put_items([key, value])

    def _setitems(self, _: object) -> None:
        self._put_items(self._pop_mark())

    def _get(self, argument: object) -> None:
        self._stack.append(self._memo[_index(argument)])

    def _memoize(self, argument: object) -> None:
        index = _index(argument)
        if index > self._executed:
            raise Refusal(f"its pickle numbers an object {index:,}, more than it has instructions")
        self._memo[index] = self._stack[-1]

    def _global(self, argument: object) -> None:
        name = str(argument)
        if not is_allowed(name):
            raise refuse_global(name)
        self._stack.append(Global(name))

    def _reduce(self, _: object) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            self._mismatch("call", function)
        if function.name not in CALLABLE:
            raise Refusal(f"it calls {show(function.name)}, which no state dict does")
        result = CALLABLE[function.name](arguments)
        if isinstance(result, TensorRecord):
            self._tensors += 1
            if self._tensors > self._limits.tensors:
                raise Refusal(f"it holds more than {self._limits.tensors:,} tensors")
        self._stack.append(result)

    def _newobj(self, _: object) -> None:
        arguments, kind = self._stack.pop(), self._stack.pop()
        if kind != Global(NAMESPACE) or arguments != ():
            self._mismatch("make an object of", kind)
        self._stack.append(Inert("Namespace"))

    def _build(self, _: object) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        match target:
            # torch notes the versions of a model's modules on the state dict.
            case Ordered() if isinstance(state, dict) and state.keys() <= {"_metadata"}:
                return
            case Inert(kind="Namespace") if isinstance(state, dict):
                return
            case Inert(kind="NumPy type") if isinstance(state, tuple):
                return
        self._mismatch("set the state of", target)

    def _persid(self, _: object) -> None:
        described = self._stack.pop()
        if not isinstance(described, tuple):
            self._mismatch("take as a storage", described)
        self._stack.append(self._persistent(described))

    @staticmethod
    def _mismatch(action: str, value: object) -> NoReturn:
        what = value.name if isinstance(value, Global) else value
        raise Refusal(f"its pickle wants to {action} {show(what)}, which no state dict does")


def _index(argument: object) -> int:
    if not isinstance(argument, int):
        raise Refusal("its pickle is damaged (an object's number is none)")
    return argument


_HANDLERS: dict[str, Callable[[Machine, object], None]] = {
    "PROTO": Machine._proto,
    "MARK": Machine._mark,
    "TUPLE": Machine._tuple,
    "EMPTY_LIST": Machine._empty_list,
    "EMPTY_DICT": Machine._empty_dict,
    "APPEND": Machine._append,
    "APPENDS": Machine._appends,
    "SETITEM": Machine._setitem,
    "SETITEMS": Machine._setitems,
    "BINGET": Machine._get,
    "LONG_BINGET": Machine._get,
    "BINPUT": Machine._memoize,
    "LONG_BINPUT": Machine._memoize,
    "GLOBAL": Machine._global,
    "REDUCE": Machine._reduce,
    "NEWOBJ": Machine._newobj,
    "BUILD": Machine._build,
    "BINPERSID": Machine._persid,
}
