"""Reads a pickle with stand-ins for whatever it names: nothing is imported, nothing it names runs.

Python's own unpickler does it, cut down to the instructions that torch writes and its restricted
reader accepts. All of them are looked at before the first is carried out.
"""

import io
import pickle
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

from acon_analysis.models.checkpoints.allowed import CALLABLE, NAMESPACE, is_allowed, refuse_global
from acon_analysis.models.checkpoints.errors import Refusal, show
from acon_analysis.models.checkpoints.limits import Limits
from acon_analysis.models.checkpoints.records import Dictionary, Inert, Ordered, TensorRecord

_OPCODES = frozenset((
    "PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1",
    "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2",
    "TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS", "BINGET",
    "LONG_BINGET", "BINPUT", "LONG_BINPUT", "GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "BINPERSID",
))  # fmt: skip
_MAX_MARKS = 64
_STOP: Callable[[Any], None] = pickle._Unpickler.dispatch[pickle.STOP[0]]


@dataclass(frozen=True)
class Global:
    """A name the file asked for, ``"module attribute"``."""

    name: str


class Machine(pickle._Unpickler):
    """Reads pickles in a row under common caps; `persistent` stands for what lies outside."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]]
        for name in _OPCODES
    }

    def __init__(
        self, stream: io.BytesIO, limits: Limits, persistent: Callable[[tuple[object, ...]], object]
    ) -> None:
        super().__init__(stream, encoding="latin-1")
        self._stream, self._limits, self._persistent = stream, limits, persistent
        self._executed = self._tensors = 0
        self.stack: list[Any] = []
        self.metastack: list[list[Any]] = []
        self.memo: dict[int, object] = {}

    def load(self) -> object:
        """Describe what the next pickle would make; a Refusal of what no state dict needs."""
        start = self._stream.tell()
        try:
            self._look()
            self._stream.seek(start)
            self.memo.clear()
            return super().load()
        except Refusal:
            raise
        except Exception as error:  # pickle raises nearly everything on damaged files
            raise Refusal(f"its pickle is damaged ({show(str(error))})") from None

    def _look(self) -> None:
        """Check each instruction of the next pickle and what it says by itself."""
        marks, first = 0, self._executed + 1
        for opcode, argument, position in pickletools.genops(self._stream):
            self._executed += 1
            if self._executed > self._limits.opcodes:
                raise Refusal(f"it has more than {self._limits.opcodes:,} pickle instructions")
            if self._executed == first and opcode.name != "PROTO":
                raise Refusal("it does not begin as torch begins a pickle")
            if opcode.name not in _OPCODES:
                raise Refusal(
                    f"it holds the pickle instruction {opcode.name} at byte {position}, which "
                    "torch never writes into a state dict"
                )
            self._require_known(opcode.name, argument)
            marks += {"MARK": 1, "TUPLE": -1, "APPENDS": -1, "SETITEMS": -1}.get(opcode.name, 0)
            if marks > _MAX_MARKS:
                raise Refusal(f"its containers are nested more than {_MAX_MARKS} deep")

    def _require_known(self, opcode: str, argument: object) -> None:
        if opcode == "PROTO" and argument != 2:
            raise Refusal(f"it is a pickle of protocol {argument}, expected torch's protocol 2")
        if opcode == "GLOBAL" and not is_allowed(str(argument)):
            raise refuse_global(str(argument))
        if opcode.endswith("PUT") and isinstance(argument, int) and argument > self._executed:
            raise Refusal(
                f"its pickle numbers an object {argument:,}, more than it has instructions"
            )

    def find_class(self, module: str, name: str) -> Global:
        """Return the stand-in of a name."""
        if not is_allowed(f"{module} {name}"):
            raise refuse_global(f"{module} {name}")
        return Global(f"{module} {name}")

    def persistent_load(self, described: object) -> object:
        """Return what stands for tensor data."""
        if not isinstance(described, tuple):
            _mismatch("take as a storage", described)
        return self._persistent(described)

    def _empty_dict(self) -> None:
        self.stack.append(Dictionary())

    def _reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            _mismatch("call", function)
        if function.name not in CALLABLE:
            raise Refusal(f"it calls {show(function.name)}, which no state dict does")
        result = CALLABLE[function.name](*arguments)
        self._tensors += isinstance(result, TensorRecord)
        if self._tensors > self._limits.tensors:
            raise Refusal(f"it holds more than {self._limits.tensors:,} tensors")
        self.stack.append(result)

    def _newobj(self) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        if kind != Global(NAMESPACE) or arguments != ():
            _mismatch("make an object of", kind)
        self.stack.append(Inert("Namespace"))

    def _build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        match target:
            # torch notes the versions of a model's modules on the state dict.
            case Ordered() if isinstance(state, dict) and state.keys() <= {"_metadata"}:
                return
            case Inert(kind="Namespace") if isinstance(state, dict):
                return
            case Inert(kind="NumPy type") if isinstance(state, tuple):
                return
        _mismatch("set the state of", target)

    def _stop(self) -> None:
        if len(self.stack) != 1 or self.metastack:
            raise Refusal("its pickle is damaged (it leaves more or less than one object)")
        _STOP(self)

    dispatch |= {
        pickle.EMPTY_DICT[0]: _empty_dict,
        pickle.REDUCE[0]: _reduce,
        pickle.NEWOBJ[0]: _newobj,
        pickle.BUILD[0]: _build,
        pickle.STOP[0]: _stop,
    }


def _mismatch(action: str, value: object) -> NoReturn:
    what = value.name if isinstance(value, Global) else value
    raise Refusal(f"its pickle wants to {action} {show(what)}, which no state dict does")
