"""Families of small functions: each joins parts of `code_parts.py` into a docstring and a body."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar

from tools.bundled_data import code_parts, code_text_parts
from tools.bundled_data.code_parts import ALL, Part

WORDINGS = 3  # every family has at least so many
# Pairs of parts of which the first settles what the second gives; no test could tell much there.
SETTLED = (
    ("above", "capped"),
    ("least", "capped"),
    ("exactly", "length"),
    ("longer", "length"),
    ("shorter", "length"),
    ("starting", "initial"),
    ("ending", "final"),
    ("same", "different"),
    ("same", "first"),
    ("same", "last"),
    ("mod", "smallest"),
    ("negated", "largest"),
)


@dataclass(frozen=True)
class Composition:
    """A family with one part chosen for each of its slots."""

    family: Family
    parts: tuple[Part, ...]

    @property
    def template(self) -> str:
        return ">".join([self.family.name, *(part.slug or "-" for part in self.parts)])

    @property
    def held(self) -> bool:
        return any(part.held for part in self.parts)

    def write(self, wording: int, rng: Random) -> tuple[str, str, list[str]]:
        """Return docstring and body, with the constants drawn, and the bodies of near misses."""
        parts = [_fixed(part, rng) for part in self.parts]
        doc, body = self.family.write(parts, wording)
        return doc, body, [other for other in self.family.rivals(parts) if other != body]


def _fixed(part: Part, rng: Random) -> Part:
    """Put one of the part's constants in place of `{k}`."""
    if not part.ks:
        return part
    k = rng.choice(part.ks)
    texts = {name: getattr(part, name) for name in ("phrase", "code", "verb", "source")}
    return replace(part, **{name: text.replace("{k}", k) for name, text in texts.items()})


@dataclass(frozen=True)
class Family:
    """What its functions take, and the parts for each slot."""

    name: str  # also the last word of a telling function name
    kind: str
    args: str
    inputs: str  # which sampler of `code.py` draws the arguments
    slots: tuple[tuple[Part, ...], ...]

    def compositions(self) -> Iterator[Composition]:
        for parts in itertools.product(*self.slots):
            if self.allowed(parts):
                yield Composition(self, parts)

    def allowed(self, parts: Sequence[Part]) -> bool:
        """Tell whether the parts together make a function worth asking for."""
        return True

    def typed(self, parts: Sequence[Part]) -> bool:
        """Tell whether each part can take what the one before it gives."""
        return True

    def write(self, parts: Sequence[Part], wording: int) -> tuple[str, str]:
        """Return the docstring and the body."""
        raise NotImplementedError

    def rivals(self, parts: Sequence[Part]) -> list[str]:
        """Return bodies that leave one part out; the tests should tell them from the right one."""
        bodies = []
        for index, slot in enumerate(self.slots):
            if not slot[0].slug:
                less = [slot[0] if at == index else part for at, part in enumerate(parts)]
                if self.typed(less):
                    bodies.append(self.write(less, 0)[1])
        return bodies

    def spoken(self, parts: Sequence[Part]) -> list[str]:
        """Return the words of a telling function name, in the order in which one says them."""
        return [part.slug for part in parts if part.slug]


@dataclass(frozen=True)
class Loop(Family):
    """A family that goes through the elements of a source."""

    noun: str = ""
    source: str = ""
    var: str = ""
    setup: str = ""

    def spoken(self, parts: Sequence[Part]) -> list[str]:
        return super().spoken(parts[::-1])

    def kept(self, part: Part) -> str:
        """Name what a filter keeps: `the even numbers in values`."""
        return "the " + part.phrase.replace("{n}", self.noun)

    def clause(self, part: Part) -> str:
        """Return `for value in values if …`."""
        test = f" if {part.code.replace('{x}', self.var)}" if part.code else ""
        return f"for {self.var} in {part.source.replace('{s}', self.source)}{test}"


class Pipeline(Loop):
    """filter > map > aggregate."""

    def allowed(self, parts: Sequence[Part]) -> bool:
        keep, change, gather = parts
        idle = keep.slug == "" and change.slug == "" and gather.slug == "list"
        pairs = itertools.combinations([part.slug for part in parts], 2)
        known = any(pair in SETTLED for pair in pairs)
        if idle or known or (gather.plain and change.slug):
            return False
        return self.typed(parts)

    def typed(self, parts: Sequence[Part]) -> bool:
        _, change, gather = parts
        if not gather.takes:
            return True
        gives = change.gives or ("str" if self.var in ("word", "char") else "int")
        return gives == gather.takes

    def write(self, parts: Sequence[Part], wording: int) -> tuple[str, str]:
        return self._doc(parts, wording), self._body(parts)

    def _doc(self, parts: Sequence[Part], wording: int) -> str:
        keep, change, gather = parts
        kept = self.kept(keep)
        whole = gather.phrase.replace("{f}", change.phrase.replace("{f}", kept))
        whole = whole.replace("the number of the ", "the number of ") + gather.tail
        end = f"{gather.verb}{gather.tail}"
        then = f", {change.verb}" if change.verb else ""
        return (
            f"Return {whole}.",
            f"Take {kept}{then} and return {end}.",
            f"{_capital(whole)}.",
            f"Go through {kept}{then}, and give back {end}.",
            f"Use only {kept}{then}; the result is {end}.",
        )[wording % 5]

    def _body(self, parts: Sequence[Part]) -> str:
        keep, change, gather = parts
        element = change.code.replace("{x}", self.var)
        if keep.code or change.slug:
            sole = f"{element} {self.clause(keep)}"
            any_place = new = f"[{sole}]"
        else:
            sole = any_place = keep.source.replace("{s}", self.source)
            new = f"list({sole})"
        code = gather.code.replace("{g}", sole).replace("{p}", any_place).replace("{l}", new)
        return f"{self.setup}{code}"


class Pairs(Loop):
    """map > aggregate over two lists of the same length."""

    def write(self, parts: Sequence[Part], wording: int) -> tuple[str, str]:
        change, gather = parts
        whole = gather.phrase.replace("{f}", change.phrase.replace("{f}", f"the {self.noun}"))
        doc = (
            f"Return {whole}{gather.tail}.",
            f"Go through left and right together, {change.verb} each time and return "
            f"{gather.verb}{gather.tail}.",
            f"{_capital(whole)}{gather.tail}; left and right are equally long.",
        )[wording % 3]
        element = change.code.replace("{x}", "x").replace("{y}", "y")
        sole = f"{element} for x, y in zip(left, right)"
        code = gather.code.replace("{g}", sole)
        return doc, code.replace("{p}", f"[{sole}]").replace("{l}", f"[{sole}]")


class Check(Loop):
    """predicate > quantifier."""

    def write(self, parts: Sequence[Part], wording: int) -> tuple[str, str]:
        test, many = parts
        claim = f"{many.phrase} of the {self.noun} {test.verb}"
        doc = (
            f"Return True if {claim}, otherwise False{many.tail}.",
            f"Tell whether {claim}{many.tail}.",
            f"Check that {claim} and return True or False{many.tail}.",
        )[wording % 3]
        predicate = test.code.replace("{x}", self.var)
        every = f"{predicate} for {self.var} in {self.source}"
        return doc, f"return {many.code.replace('{g}', every)}"


class Mapping(Loop):
    """filter > map, as a dict from the element to what the map makes of it."""

    def write(self, parts: Sequence[Part], wording: int) -> tuple[str, str]:
        keep, change = parts
        kept, made = self.kept(keep), change.phrase.replace("{f}", "the keys")
        doc = (
            f"Return a dict whose keys are {kept} and whose values are {made}.",
            f"Build a dict: the keys are {kept}, the values are {made}.",
            f"Make a dict with {kept} as its keys; its values are {made}.",
        )[wording % 3]
        element = change.code.replace("{x}", self.var)
        return doc, f"return {{{self.var}: {element} {self.clause(keep)}}}"


class Group(Loop):
    """filter > key > what is kept for the key."""

    def write(self, parts: Sequence[Part], wording: int) -> tuple[str, str]:
        keep, key, mode = parts
        kept = self.kept(keep)
        doc = (
            f"Group {kept} by {key.phrase}; return a dict from each {key.phrase} to {mode.phrase}.",
            f"Return a dict that maps each {key.phrase} of {kept} to {mode.phrase}.",
            f"Build a dict with each {key.phrase} of {kept} as key and {mode.phrase} as value.",
        )[wording % 3]
        lines = ["result = {}", f"for {self.var} in {keep.source.replace('{s}', self.source)}:"]
        indent = "    "
        if keep.code:
            lines.append(f"    if {keep.code}:")
            indent = "        "
        lines += [f"{indent}key = {key.code}", f"{indent}{mode.code}", "return result"]
        return doc, "\n".join(lines).replace("{x}", self.var)


class Entries(Loop):
    """predicate of the value > what is made of the entries of a dict."""

    def write(self, parts: Sequence[Part], wording: int) -> tuple[str, str]:
        test, output = parts
        doc = (
            f"Return {output.phrase} of scores whose value {test.verb}.",
            f"From the dict scores keep only entries whose value {test.verb}; return {output.phrase}.",
            f"{_capital(output.phrase)} of scores whose value {test.verb}.",
        )[wording % 3]
        predicate = test.code.replace("{x}", "value")
        return doc, output.code.replace("{e}", f"scores.items() if {predicate}")


class Branch(Family):
    """condition > result > other result."""

    def allowed(self, parts: Sequence[Part]) -> bool:
        return parts[1].slug != parts[2].slug

    def rivals(self, parts: Sequence[Part]) -> list[str]:
        return [f"return {part.code}" for part in parts[1:]]

    def write(self, parts: Sequence[Part], wording: int) -> tuple[str, str]:
        when, yes, no = parts
        doc = (
            f"Return {yes.phrase} if {when.phrase}, otherwise {no.phrase}.",
            f"If {when.phrase}, the result is {yes.phrase}; in all other cases it is {no.phrase}.",
            f"Give back {no.phrase}, but when {when.phrase} give back {yes.phrase}.",
        )[wording % 3]
        return doc, f"if {when.code}:\n    return {yes.code}\nreturn {no.code}"


class Steps(Family):
    """Three changes of one number, in order."""

    def allowed(self, parts: Sequence[Part]) -> bool:
        return len({part.slug for part in parts}) == len(parts)

    def write(self, parts: Sequence[Part], wording: int) -> tuple[str, str]:
        one, two, three = (part.phrase for part in parts)
        doc = (
            f"Start with n: {one}, then {two}, and finally {three}. Return the result.",
            f"Take n, {one}, {two} and {three}, in this order, and return the result.",
            f"Return what becomes of n when you {one}, then {two}, then {three}.",
        )[wording % 3]
        return doc, "\n".join([*(part.code for part in parts), "return n"])


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _without(parts: Sequence[Part], *slugs: str) -> tuple[Part, ...]:
    return tuple(part for part in parts if part.slug not in slugs)


@dataclass(frozen=True)
class _Source:
    """Arguments, sampler, noun, source and element of the families over one kind of input."""

    BY_NAME: ClassVar[dict[str, tuple[str, str, str, str, str, str]]] = {
        "values": ("values", "values", "numbers in values", "values", "value", ""),
        "words": ("words", "words", "words in the list words", "words", "word", ""),
        "sentence": ("text", "sentence", "words in text", "text.split()", "word", ""),
        "text": ("text", "text", "characters in text", "text", "char", ""),
        "upto": ("n", "upto", "numbers from 1 to n", "range(1, n + 1)", "number", ""),
        "digits": (
            "n",
            "digits",
            "digits of n",
            "digits",
            "digit",
            "digits = [int(char) for char in str(n)]\n",
        ),
        "scores": ("scores", "scores", "values of the dict scores", "scores.values()", "score", ""),
        "pairs": (
            "left, right",
            "pairs",
            "pairs of numbers at equal indexes of left and right",
            "",
            "",
            "",
        ),
    }


def _loop(cls: type[Loop], source: str, name: str, kind: str, *slots: tuple[Part, ...]) -> Loop:
    args, inputs, noun, expression, var, setup = _Source.BY_NAME[source]
    return cls(name, kind, args, inputs, slots, noun, expression, var, setup)


def _families() -> tuple[Family, ...]:
    p, q = code_parts, code_text_parts
    numbers, words = p.NUMBER_FILTERS, q.WORD_FILTERS
    counted = _without(numbers, "positive", "negative", "nonzero")
    changes = _without(p.NUMBER_MAPS, "absolute")
    # the first and smallest of the numbers from 1 to n hardly depend on n
    summed = _without(p.NUMBER_AGGREGATES, "first", "smallest", "smallest_none")
    gathered = _without(p.NUMBER_AGGREGATES, "count")
    few_numbers = (ALL, *_without(numbers[1:], "multiple", "nonmultiple", "other", "from_to"))
    placed = (*numbers, *p.POSITION_FILTERS)
    listed, text, number, table = "list-number", "string", "number", "dict"
    return (
        _loop(Pipeline, "values", "values", listed, placed, p.NUMBER_MAPS, p.NUMBER_AGGREGATES),
        _loop(Check, "values", "of_values", listed, numbers[1:], p.QUANTIFIERS),
        _loop(Pairs, "pairs", "pairs", listed, p.PAIR_MAPS, gathered),
        _loop(Pipeline, "words", "words", text, words, q.WORD_MAPS, q.WORD_AGGREGATES),
        _loop(Pipeline, "sentence", "text_words", text, words, q.WORD_MAPS, q.WORD_AGGREGATES),
        _loop(
            Pipeline,
            "text",
            "chars",
            text,
            q.CHARACTER_FILTERS,
            q.CHARACTER_MAPS,
            q.CHARACTER_AGGREGATES,
        ),
        _loop(Check, "words", "of_words", text, words[1:], p.QUANTIFIERS),
        _loop(Pipeline, "upto", "up_to_n", number, counted, changes, summed),
        _loop(
            Pipeline,
            "digits",
            "digits",
            number,
            _without(numbers, "positive", "negative"),
            changes,
            p.NUMBER_AGGREGATES,
        ),
        Branch("choice", number, "n", "number", (p.CONDITIONS, p.RESULTS, p.RESULTS)),
        Branch(
            "choice_of_two",
            number,
            "a, b",
            "two",
            (p.PAIR_CONDITIONS, p.PAIR_RESULTS, p.PAIR_RESULTS),
        ),
        Steps("steps", number, "n", "number", (p.STEPS, p.STEPS, p.STEPS)),
        _loop(Pipeline, "scores", "scores", table, numbers, p.NUMBER_MAPS, gathered),
        _loop(Mapping, "values", "value_table", table, numbers, p.NUMBER_MAPS[1:]),
        _loop(Mapping, "words", "word_table", table, words, q.WORD_MAPS[1:]),
        _loop(Group, "values", "value_groups", table, few_numbers, p.NUMBER_KEYS, p.GROUP_MODES),
        _loop(Group, "words", "word_groups", table, words, q.WORD_KEYS, p.GROUP_MODES),
        _loop(Entries, "scores", "entries", table, numbers[1:], p.ENTRY_OUTPUTS),
    )


FAMILIES = _families()
