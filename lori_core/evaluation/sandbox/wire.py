"""How plain values go from one process to another as JSON, with their identity.

Lists, dicts, sets and bytearrays can be changed, and the same one may stand in several places. So
they are numbered, and each place holds its number: after a call, both sides know which of the
arguments was changed, which of them was returned, and which contains itself.

The standard library alone: `sandbox` takes this module's code along with the judge's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

TYPE_CHECKING = False  # importing typing would cost each program 5 ms
if TYPE_CHECKING:
    from typing import Any

#: What can be changed: the kinds that are numbered. A value's kind is the first it belongs to.
MUTABLE: dict[str, type[Any]] = {"list": list, "dict": dict, "set": set, "bytearray": bytearray}
#: What cannot: how its JSON is made, and the value from it, with the graph's own two functions.
IMMUTABLE: dict[type, tuple[str, Callable[[Graph, Any], Any]]] = {
    tuple: ("tuple", lambda graph, value: [graph.encode(item) for item in value]),
    frozenset: ("frozenset", lambda graph, value: [graph.encode(item) for item in value]),
    bytes: ("bytes", lambda _, value: value.hex()),
    complex: ("complex", lambda _, value: [value.real, value.imag]),
    range: ("range", lambda graph, v: [graph.encode(n) for n in (v.start, v.stop, v.step)]),
}


#: What JSON has itself.
AS_THEY_ARE = {type(None), bool, float, str}


class UnsupportedError(Exception):
    """A value of a kind that cannot cross; says which."""


class Graph:
    """The values of one call, in one process; `objects[n]` is the mutable value of number n.

    A value of a subclass (an IntEnum, a Counter) crosses as its plain base; `flattened` is the name
    of the first such class.
    """

    def __init__(self) -> None:
        self.flattened = ""
        self.objects: list[Any] = []
        self._numbers: dict[int, int] = {}

    def encode(self, value: Any) -> Any:
        """Return a value as JSON; the contents of mutable ones follow with `contents`.

        Raises:
            UnsupportedError: it is, or holds, what cannot cross.
        """
        if type(value) in AS_THEY_ARE:
            return value
        if isinstance(value, int):  # JSON's decimal digits are limited to 4300 by Python
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
        return self._number_of_a_library(value)

    def contents(self) -> list[list[Any]]:
        """Return the contents of all objects as JSON, of those too that they lead to."""
        return [self._contents(value) for value in self.objects]  # grows while it is read

    def decode(self, form: Any) -> Any:
        """The inverse of `encode`; `load` comes first."""
        if not isinstance(form, dict):
            return form
        ((name, inner),) = form.items()
        return DECODERS[name](self, inner)

    def load(self, numbered: Iterable[tuple[int, list[Any]]]) -> None:
        """Give objects their contents; those with new numbers are made, in order, from 0."""
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
            self.objects.append(value)  # and so its id stays its own
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

    def _number_of_a_library(self, value: Any) -> Any:
        """Encode a Decimal or a Fraction; nobody has one whose module is not loaded."""
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
