"""The parts that `code_families.py` joins into functions: data only, written for this project.

In a phrase `{n}` is what is gone through (`numbers in values`), `{f}` the same after the filter and
`{k}` a constant out of `ks`; in code `{x}` is one element, `{s}` the source, `{g}`, `{p}`
and `{l}` the elements as a sole argument, as any argument and as a new list, `{e}` the entries. `verb` is the phrase of a filter as a predicate (`is even`),
of a map as an order (`square each one`), of an aggregate at a sentence's end (`the sum`). A part
with `held` stands only in the test split.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One operation, in words and in code."""

    slug: str
    phrase: str
    code: str
    verb: str = ""
    ks: tuple[str, ...] = ()
    held: bool = False
    source: str = "{s}"
    tail: str = ""
    gives: str = ""  # of a map: `int` where the result is no longer of the source's type
    takes: str = ""  # of an aggregate: `int` or `str` where it needs one of them
    plain: bool = False  # of an aggregate: makes sense only without a map


SMALL = ("2", "3", "4", "5", "6", "7", "8", "9")
EMPTY_ZERO = ", or 0 if there are none"
EMPTY_NONE = ", or None if there are none"

ALL = Part("", "{n}", "")

NUMBER_FILTERS = (
    ALL,
    Part("even", "even {n}", "{x} % 2 == 0", "is even"),
    Part("odd", "odd {n}", "{x} % 2 == 1", "is odd"),
    Part("positive", "positive {n}", "{x} > 0", "is positive"),
    Part("negative", "negative {n}", "{x} < 0", "is negative", held=True),
    Part("nonzero", "nonzero {n}", "{x} != 0", "is not zero"),
    Part("above", "{n} greater than {k}", "{x} > {k}", "is greater than {k}", SMALL[:6]),
    Part("below", "{n} less than {k}", "{x} < {k}", "is less than {k}", SMALL[1:]),
    Part("least", "{n} of at least {k}", "{x} >= {k}", "is at least {k}", SMALL[:6], held=True),
    Part("multiple", "{n} divisible by {k}", "{x} % {k} == 0", "is divisible by {k}", SMALL[1:4]),
    Part(
        "nonmultiple",
        "{n} not divisible by {k}",
        "{x} % {k} != 0",
        "is not divisible by {k}",
        SMALL[1:4],
        held=True,
    ),
    Part("other", "{n} other than {k}", "{x} != {k}", "is not {k}", SMALL[:5]),
    Part("from_to", "{n} from {k} to 8", "{k} <= {x} <= 8", "is from {k} to 8", SMALL[:4]),
)

POSITION_FILTERS = (
    Part("every_second", "{n} at even indexes", "", source="{s}[::2]"),
    Part("odd_index", "{n} at odd indexes", "", source="{s}[1::2]", held=True),
    Part("after_first", "{n} except the first one", "", source="{s}[1:]"),
    Part("before_last", "{n} except the last one", "", source="{s}[:-1]"),
    Part("leading", "first {k} {n}", "", ks=("2", "3", "4"), source="{s}[:{k}]"),
    Part("trailing", "last {k} {n}", "", ks=("2", "3"), source="{s}[-{k}:]", held=True),
)

NUMBER_MAPS = (
    Part("", "{f}", "{x}"),
    Part("squared", "the squares of {f}", "{x} * {x}", "square each one"),
    Part("doubled", "the doubles of {f}", "{x} * 2", "double each one"),
    Part("plus", "{f}, each increased by {k}", "{x} + {k}", "add {k} to each one", SMALL),
    Part("minus", "{f}, each decreased by {k}", "{x} - {k}", "subtract {k} from each one", SMALL),
    Part(
        "times", "{f}, each multiplied by {k}", "{x} * {k}", "multiply each one by {k}", SMALL[1:]
    ),
    Part(
        "absolute", "the absolute values of {f}", "abs({x})", "take the absolute value of each one"
    ),
    Part(
        "negated", "{f}, each with its sign flipped", "-{x}", "flip the sign of each one", held=True
    ),
    Part("cubed", "the cubes of {f}", "{x} ** 3", "cube each one", held=True),
    Part("mod", "the remainders of {f} modulo 7", "{x} % 7", "take each one modulo 7"),
    Part("capped", "{f}, each capped at {k}", "min({x}, {k})", "cap each one at {k}", SMALL[2:]),
    Part(
        "halved",
        "{f}, each halved and rounded down",
        "{x} // 2",
        "halve each one and round it down",
        held=True,
    ),
)

# What is asked of any elements, numbers or strings.
COMMON_AGGREGATES = (
    Part("list", "a list of {f}", "return {l}", "them as a list"),
    Part("sorted", "a sorted list of {f}", "return sorted({g})", "a sorted list"),
    Part(
        "reversed", "a list in reverse order of {f}", "return {l}[::-1]", "a list in reverse order"
    ),
    Part("count", "the number of {f}", "return len({p})", "how many there are", plain=True),
    Part(
        "different",
        "the number of different values among {f}",
        "return len(set({g}))",
        "how many different values there are",
    ),
    Part(
        "falling",
        "a list in falling order of {f}",
        "return sorted({p}, reverse=True)",
        "a list in falling order",
        held=True,
    ),
    Part(
        "first",
        "the first of {f}",
        "found = {l}\nreturn found[0] if found else None",
        "the first one",
        tail=EMPTY_NONE,
    ),
    Part(
        "last",
        "the last of {f}",
        "found = {l}\nreturn found[-1] if found else None",
        "the last one",
        tail=EMPTY_NONE,
        held=True,
    ),
)

NUMBER_AGGREGATES = (
    *COMMON_AGGREGATES,
    Part("sum", "the sum of {f}", "return sum({g})", "the sum", takes="int"),
    Part(
        "largest",
        "the largest of {f}",
        "return max({p}, default=0)",
        "the largest one",
        tail=EMPTY_ZERO,
        takes="int",
    ),
    Part(
        "smallest",
        "the smallest of {f}",
        "return min({p}, default=0)",
        "the smallest one",
        tail=EMPTY_ZERO,
        takes="int",
    ),
    Part(
        "product",
        "the product of {f}",
        "result = 1\nfor item in {p}:\n    result *= item\nreturn result",
        "the product",
        tail=", or 1 if there are none",
        takes="int",
    ),
    Part(
        "smallest_none",
        "the smallest of {f}",
        "return min({p}, default=None)",
        "the smallest one",
        tail=EMPTY_NONE,
        takes="int",
        held=True,
    ),
    Part(
        "mean",
        "the mean of {f}",
        "found = {l}\nreturn sum(found) / len(found) if found else 0",
        "the mean",
        tail=EMPTY_ZERO,
        takes="int",
        held=True,
    ),
)


PAIR_MAPS = (
    Part("sums", "the sums of {f}", "{x} + {y}", "add the two"),
    Part(
        "differences",
        "the differences of {f} (left minus right)",
        "{x} - {y}",
        "subtract the right one from the left one",
    ),
    Part("products", "the products of {f}", "{x} * {y}", "multiply the two"),
    Part("larger", "the larger ones of {f}", "max({x}, {y})", "take the larger one"),
    Part("lower", "the smaller ones of {f}", "min({x}, {y})", "take the smaller one", held=True),
    Part(
        "gaps", "the absolute differences of {f}", "abs({x} - {y})", "take the absolute difference"
    ),
)

CONDITIONS = (
    Part("even", "n is even", "n % 2 == 0"),
    Part("odd", "n is odd", "n % 2 == 1", held=True),
    Part("above", "n is greater than {k}", "n > {k}", ks=SMALL[1:]),
    Part("below", "n is less than {k}", "n < {k}", ks=SMALL[1:]),
    Part("multiple", "n is divisible by {k}", "n % {k} == 0", ks=SMALL[1:4]),
    Part("zero", "n is zero", "n == 0", held=True),
)

RESULTS = (
    Part("half", "n halved and rounded down", "n // 2"),
    Part("square", "the square of n", "n * n"),
    Part("double", "the double of n", "n * 2"),
    Part("plus", "n plus {k}", "n + {k}", ks=SMALL),
    Part("minus", "n minus {k}", "n - {k}", ks=SMALL),
    Part("negative", "n with its sign flipped", "-n", held=True),
    Part("hundred", "100 minus n", "100 - n"),
    Part("tenfold", "ten times n", "n * 10", held=True),
)

PAIR_CONDITIONS = (
    Part("greater", "a is greater than b", "a > b"),
    Part("less", "a is less than b", "a < b", held=True),
    Part("sum_even", "the sum of a and b is even", "(a + b) % 2 == 0"),
    Part("a_even", "a is even", "a % 2 == 0"),
    Part("sum_above", "the sum of a and b is greater than {k}", "a + b > {k}", ks=SMALL[3:]),
)

PAIR_RESULTS = (
    Part("sum", "the sum of a and b", "a + b"),
    Part("difference", "a minus b", "a - b"),
    Part("product", "the product of a and b", "a * b"),
    Part("a_twice", "the double of a", "a * 2"),
    Part("b_plus", "b plus {k}", "b + {k}", ks=SMALL),
    Part("back", "b minus a", "b - a", held=True),
)

STEPS = (
    Part("add", "add {k}", "n = n + {k}", ks=SMALL),
    Part("take", "subtract {k}", "n = n - {k}", ks=SMALL),
    Part("times", "multiply by {k}", "n = n * {k}", ks=SMALL),
    Part("square", "square it", "n = n * n"),
    Part("mod", "take the remainder modulo {k}", "n = n % {k}", ks=SMALL[3:]),
    Part("halve", "halve it and round down", "n = n // 2", held=True),
    Part("absolute", "take the absolute value", "n = abs(n)"),
    Part("flip", "flip its sign", "n = -n", held=True),
)

ENTRY_OUTPUTS = (
    Part("keys", "the sorted list of the keys", "return sorted(key for key, value in {e})"),
    Part("entries", "a new dict of the entries", "return {key: value for key, value in {e}}"),
    Part("size", "the number of entries", "return len([key for key, value in {e}])"),
    Part(
        "doubled",
        "a new dict with doubled values of the entries",
        "return {key: value * 2 for key, value in {e}}",
    ),
    Part(
        "raised",
        "a new dict with values increased by {k} of the entries",
        "return {key: value + {k} for key, value in {e}}",
        ks=SMALL,
    ),
    Part(
        "loud",
        "a new dict with upper case keys of the entries",
        "return {key.upper(): value for key, value in {e}}",
        held=True,
    ),
    Part(
        "joined",
        "a string of the keys, sorted and joined with ',', of the entries",
        "return ','.join(sorted(key for key, value in {e}))",
        held=True,
    ),
)

NUMBER_KEYS = (
    Part("mod", "remainder modulo {k}", "{x} % {k}", ks=("2", "3", "4")),
    Part("square", "square", "{x} * {x}"),
    Part("itself", "distinct number", "{x}"),
    Part("magnitude", "absolute value", "abs({x})", held=True),
)


GROUP_MODES = (
    Part("counts", "how many have it", "result[key] = result.get(key, 0) + 1"),
    Part("lists", "the list of those that have it", "result.setdefault(key, []).append({x})"),
    Part("latest", "the last one that has it", "result[key] = {x}", held=True),
)

QUANTIFIERS = (
    Part("any", "at least one", "any({g})"),
    Part("all", "each", "all({g})", tail=" (True if there are none)"),
    Part("none", "not a single one", "not any({g})", tail=" (True if there are none)", held=True),
)
