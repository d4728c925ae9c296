"""JSON encoding of plain Python values that preserves the identity of mutable ones.

Lists, dicts, sets and bytearrays are mutable, and the same object may be in several places.
Therefore they are numbered, and each place has the number: after a call, both processes know which
arguments were changed, which was returned, and which contains itself.

`sandbox` sends this module's code into the sandbox together with the test runner's, so it imports
only the standard library.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

TYPE_CHECKING = False  # importing typing would cost each program 5 ms
if TYPE_CHECKING:
    from typing import Any

#: The mutable types, whose objects are numbered. An object's type is the first that it belongs to.
MUTABLE: dict[str, type[Any]] = {"list": list, "dict": dict, "set": set, "bytearray": bytearray}
#: The immutable types: the name in JSON, and the function that encodes a value.
IMMUTABLE: dict[type, tuple[str, Callable[[Graph, Any], Any]]] = {
    tuple: ("tuple", lambda graph, value: [graph.encode(item) for item in value]),
    frozenset: ("frozenset", lambda graph, value: [graph.encode(item) for item in value]),
    bytes: ("bytes", lambda _, value: value.hex()),
    complex: ("complex", lambda _, value: [value.real, value.imag]),
    range: ("range", lambda graph, v: [graph.encode(n) for n in (v.start, v.stop, v.step)]),
}


#: The types that JSON has itself.
JSON_TYPES = {type(None), bool, float, str}


class UnsupportedError(Exception):
    """A value of this type cannot be encoded."""


class Graph:
    """The values of one call, in one process.

    Attributes:
        objects: the mutable objects; `objects[n]` is the object with number n.
        flattened: the name of the first subclass (an IntEnum, a Counter) whose value was encoded
            as a value of its base class; empty without any.
    """

    def __init__(self) -> None:
        self.flattened = ""
        self.objects: list[Any] = []
        self._numbers: dict[int, int] = {}

    def encode(self, value: Any) -> Any:
        """Return a value as JSON; `contents` returns the contents of mutable objects.

        Raises:
            UnsupportedError: the value, or one in it, is of an unsupported type.
        """
        if type(value) in JSON_TYPES:
            return value
        if isinstance(value, int):  # Python limits decimal integers to 4300 digits
            plain = int(self._plain(value, int))
            return plain if abs(plain) < 1 << 63 else {"int": hex(plain)}
        if isinstance(value, float):
            return float(self._plain(value, float))
        if isinstance(value, str):
            return str.__str__(self._plain(value, str))
        for kind in MUTABLE.values():
            if isinstance(value, kind):
                return {"object": self._number(self._plain(value, kind))}
        for kind, (name, form) in IMMUTABLE.items():
            if isinstance(value, kind):
                return {name: form(self, self._plain(value, kind))}
        return self._encode_library_number(value)

    def contents(self) -> list[list[Any]]:
        """Return the contents of all objects as JSON, including the objects that they contain."""
        return [self._contents(value) for value in self.objects]  # grows during the iteration

    def decode(self, form: Any) -> Any:
        """Return the value of its JSON form; `load` must have loaded the objects before."""
        if not isinstance(form, dict):
            return form
        ((name, inner),) = form.items()
        return DECODERS[name](self, inner)

    def load(self, numbered: Iterable[tuple[int, list[Any]]]) -> None:
        """Set the contents of objects by number; create those with new numbers, in order from 0."""
        numbered = list(numbered)
        for number, (name, _) in numbered:
            if number == len(self.objects):
                self._number(MUTABLE[name]())
        for number, (name, forms) in numbered:
            self._fill(self.objects[number], MUTABLE[name], forms)

    def _plain(self, value: Any, kind: type[Any]) -> Any:
        if type(value) is not kind:
            self.flattened = self.flattened or type(value).__name__
        return value

    def _number(self, value: Any) -> int:
        number = self._numbers.setdefault(id(value), len(self.objects))
        if number == len(self.objects):
            self.objects.append(value)  # keeps the object alive, so its id stays unique
        return number

    def _contents(self, value: Any) -> list[Any]:
        if isinstance(value, dict):
            pairs = [[self.encode(key), self.encode(item)] for key, item in value.items()]
            return ["dict", pairs]
        if isinstance(value, bytearray):
            return ["bytearray", value.hex()]
        return ["list" if isinstance(value, list) else "set", [self.encode(item) for item in value]]

    def _fill(self, value: Any, kind: type[Any], forms: Any) -> None:
        if not isinstance(value, kind):
            raise TypeError(f"a {type(value).__name__} became a {kind.__name__}")
        if isinstance(value, bytearray):
            value[:] = bytes.fromhex(forms)
        elif isinstance(value, list):
            value[:] = [self.decode(form) for form in forms]
        elif isinstance(value, dict):
            pairs = [(self.decode(key), self.decode(form)) for key, form in forms]
            value.clear()
            for key, item in pairs:
                value[key] = item
        else:
            items = [self.decode(form) for form in forms]
            value.clear()
            value.update(items)

    def _encode_library_number(self, value: Any) -> Any:
        """Encode a Decimal or a Fraction; such a value exists only if its module is loaded."""
        for module, name in (("decimal", "Decimal"), ("fractions", "Fraction")):
            kind: type[Any] | None = getattr(sys.modules.get(module), name, None)
            if isinstance(kind, type) and isinstance(value, kind):
                self._plain(value, kind)
                if name == "Decimal":
                    return {name: str(value)}
                return {name: [self.encode(n) for n in (value.numerator, value.denominator)]}
        raise UnsupportedError(f"of type {type(value).__name__}")


def _decimal(_: Graph, text: str) -> Any:
    from decimal import Decimal

    return Decimal(text)


def _fraction(graph: Graph, forms: list[Any]) -> Any:
    from fractions import Fraction

    return Fraction(*(graph.decode(form) for form in forms))


DECODERS: dict[str, Callable[[Graph, Any], Any]] = {
    "object": lambda graph, number: graph.objects[number],
    "int": lambda _, digits: int(digits, 16),
    "tuple": lambda graph, forms: tuple(graph.decode(form) for form in forms),
    "frozenset": lambda graph, forms: frozenset(graph.decode(form) for form in forms),
    "bytes": lambda _, digits: bytes.fromhex(digits),
    "complex": lambda _, parts: complex(*parts),
    "range": lambda graph, forms: range(*(graph.decode(form) for form in forms)),
    "Decimal": _decimal,
    "Fraction": _fraction,
}
