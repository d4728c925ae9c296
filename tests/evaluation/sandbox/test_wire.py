"""Values on their way from one process to another."""

from __future__ import annotations

import collections
import enum
import json
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from lori_core.evaluation.sandbox.wire import Graph, UnsupportedError


def across(value: Any) -> Any:
    """Send a value through JSON to a graph of another process."""
    sent, received = Graph(), Graph()
    form = json.loads(json.dumps([sent.encode(value), sent.contents()]))
    received.load(enumerate(form[1]))
    return received.decode(form[0])


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, -(2**63), 2**64, 0.1, -0.0, math.inf, 1 - 2j, "é\ud800\n", b"\xff\0",
        bytearray(b"ab"), (), (1, ("a",)), [], [[[]]], {}, {1: {"a": [None]}, (2,): set()}, {1, 2},
        frozenset({1, (2,)}), range(3), range(10**30, 0, -2), Decimal("1.10"), Decimal("-Infinity"),
        Fraction(-3, 10**40), [Decimal(1), {Fraction(1, 2)}],
    ],
)  # fmt: skip
def test_plain_values_stay_what_they_are(value: Any) -> None:
    got = across(value)
    assert (got, type(got), repr(got)) == (value, type(value), repr(value))


def test_not_a_number_and_decimals_keep_their_digits() -> None:
    assert math.isnan(across(math.nan))
    assert str(across(Decimal("sNaN123"))) == "sNaN123"
    assert str(across(Decimal("1E+999"))) == "1E+999"


def test_one_object_in_several_places_stays_one_object() -> None:
    inner = [1]
    twice = across([inner, (inner,), {"a": inner}])
    assert twice[0] is twice[1][0] is twice[2]["a"]
    ring: list[Any] = [1]
    ring.append(ring)
    got = across(ring)
    assert got[0] == 1
    assert got[1] is got


def test_a_deep_value_needs_no_deep_stack() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    got = across(deep)
    for _ in range(5000):
        (got,) = got
    assert got == []


def test_a_subclass_becomes_its_base_and_is_named() -> None:
    graph = Graph()
    assert graph.encode(enum.IntEnum("Colour", "RED")(1)) == 1
    assert graph.flattened == "Colour"
    assert across(collections.Counter("aab")) == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    "value", [object(), len, lambda: 1, iter([]), (n for n in ()), [{"a": map(len, [])}], int, ...]
)
def test_values_of_other_types_are_refused(value: Any) -> None:
    graph = Graph()
    with pytest.raises(UnsupportedError):
        graph.encode([value])
        graph.contents()
