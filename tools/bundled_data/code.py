"""Small Python functions to write from a signature and a docstring, each with its unit tests.

A function is a composition of parts. No composition stands in two splits; half of the test split
joins parts that training has shown in other company, the other half has a part never shown.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from lori_core.data.example import SPLITS, Example
from tools.bundled_data.code_families import FAMILIES, WORDINGS, Composition
from tools.bundled_data.shares import check_size, check_splits, divide, most_of

SHARES = {"list-number": 35, "string": 25, "number": 20, "dict": 20}
# Of ten compositions of seen parts, in this order round and round; the held ones are all for test.
DEAL = ("train", "train", "test", "train", "train", "validation", "train", "train", "test", "train")
VERBS = {
    "train": "process compute tally handle evaluate solve run collect derive prepare convert get",
    "validation": "examine produce resolve answer",
    "test": "crunch digest assess distill transform inspect",
}
WORDS = (
    "stone table river bread train market otter silver cloud tent rose ship bear noon eat art "
    "letter orange ant tree stair robot nest salt bee actor entire rain torn"
)
CASES = 6
TRIES = 30


def generate(sizes: Mapping[str, int], seed: int) -> dict[str, list[Example]]:
    """Return exactly `sizes[split]` functions for each split; the same for the same arguments."""
    check_splits("code", sizes)
    rng = Random(seed)
    pools = _pools(rng)
    for split, size in sizes.items():
        room = {kind: WORDINGS * len(pools[split, kind]) for kind in SHARES}
        check_size("code", split, size, most_of(room, SHARES))
    return {split: _split(split, sizes[split], pools, rng) for split in SPLITS if split in sizes}


def _pools(rng: Random) -> dict[tuple[str, str], list[Composition]]:
    """Deal all compositions to (split, kind); families take turns, so that none drowns another."""
    pools: dict[tuple[str, str], list[Composition]] = {}
    for kind in SHARES:
        dealt: dict[str, list[list[Composition]]] = {name: [] for name in (*SPLITS, "held")}
        for family in (family for family in FAMILIES if family.kind == kind):
            compositions = list(family.compositions())
            rng.shuffle(compositions)
            dealt["held"].append([one for one in compositions if one.held])
            seen = [one for one in compositions if not one.held]
            for split in SPLITS:
                dealt[split].append(_dealt(seen, split))
        for split in ("train", "validation"):
            pools[split, kind] = _in_turns(dealt[split])
        halves = zip(_in_turns(dealt["test"]), _in_turns(dealt["held"]), strict=False)
        pools["test", kind] = [one for pair in halves for one in pair]
    return pools


def _dealt(compositions: Sequence[Composition], split: str) -> list[Composition]:
    return [
        one for one, to in zip(compositions, itertools.cycle(DEAL), strict=False) if to == split
    ]


def _in_turns(rows: Sequence[Sequence[Composition]]) -> list[Composition]:
    turns = itertools.zip_longest(*rows)
    return [one for turn in turns for one in turn if one is not None]


def _split(
    split: str, size: int, pools: Mapping[tuple[str, str], Sequence[Composition]], rng: Random
) -> list[Example]:
    examples: list[Example] = []
    for kind, count in divide(size, SHARES).items():
        pool = pools[split, kind]
        starts = [rng.randrange(30) for _ in pool]
        for index in range(count):
            # each time round a composition is told in other words
            turn, at = divmod(index, len(pool))
            examples.append(_example(pool[at], split, starts[at] + turn, rng))
    rng.shuffle(examples)
    return examples


def _example(composition: Composition, split: str, wording: int, rng: Random) -> Example:
    family = composition.family
    doc, body, rivals = composition.write(wording, rng)
    name = _name(composition, split, rng)
    signature = f"def {name}({family.args}):"
    opening = f'{signature}\n    """{doc}"""\n'
    source = _source(signature, body)
    wrong = [_source(signature, rival) for rival in rivals]
    return Example(
        prompt=f"Complete this Python function:\n\n{opening}",
        target=f"```python\n{source}\n```",
        scorer="code",
        kind=family.kind,
        template=composition.template,
        check={
            "prompt": opening,
            "entry_point": name,
            "tests": _tests([source, *wrong], name, SAMPLERS[family.inputs], rng),
        },
    )


def _name(composition: Composition, split: str, rng: Random) -> str:
    """Return a name that says what the function does, or, half of the time, one that does not."""
    family = composition.family
    if rng.random() < 0.5:
        return "_".join([*family.spoken(composition.parts), family.name])
    verb = rng.choice(VERBS[split].split())
    return f"{verb}_{rng.choice(('data', 'input', 'task', family.args.split(', ')[0]))}"


def _source(signature: str, body: str) -> str:
    return "\n".join([signature, *(f"    {line}" for line in body.split("\n"))])


def _tests(
    sources: Sequence[str], name: str, sampler: Callable[[Random, int], Any], rng: Random
) -> str:
    """Return `check`, out of many draws of arguments the one that tells the most.

    The first source is right, the others are near misses, which the asserts should tell from it.
    """
    function, *rivals = (_function(source, name) for source in sources)
    best: dict[str, str] = {}
    most = (False, -1, 0, 0)
    for _ in range(TRIES):
        drawn = [sampler(rng, case) for case in range(CASES)]
        calls = {", ".join(map(repr, args)): repr(function(*args)) for args in drawn}
        told = sum(any(function(*args) != other(*args) for args in drawn) for other in rivals)
        results = len(set(calls.values()))
        worth = (results > 1, told, len(calls), results)
        if worth > most:
            best, most = calls, worth
        if most >= (True, len(rivals), CASES, CASES - 1):
            break
    lines = [f"    assert candidate({args}) == {result}" for args, result in best.items()]
    return "\n".join(["def check(candidate):", *lines]) + "\n"


def _function(source: str, name: str) -> Callable[..., Any]:
    scope: dict[str, Any] = {}
    exec(source, scope)  # noqa: S102 - a function composed above, nothing from outside
    function: Callable[..., Any] = scope[name]
    return function


def _values(rng: Random, case: int) -> list[int]:
    """Return an empty list first, then one of a single number, then longer ones."""
    length = (0, 1)[case] if case < 2 else rng.randint(5, 8)
    return [rng.randint(-9, 20) for _ in range(length)]


def _words(rng: Random, case: int) -> list[str]:
    return rng.sample(WORDS.split(), (0, 1)[case] if case < 2 else rng.randint(4, 6))


def _text(rng: Random, case: int) -> str:
    words = _words(rng, 0 if case == 0 else case + 1)[:3]
    words = [word.capitalize() if rng.random() < 0.5 else word for word in words]
    return " ".join([*words, str(rng.randint(1, 99))] if words else [])


def _whole(rng: Random, case: int) -> int:
    return 0 if case == 0 else rng.randint(-12, 30)


def _scores(rng: Random, case: int) -> dict[str, int]:
    return dict(zip(_words(rng, case), (rng.randint(-9, 20) for _ in range(6)), strict=False))


def _pairs(rng: Random, case: int) -> tuple[list[int], list[int]]:
    left = _values(rng, case)
    return left, [rng.randint(-9, 20) for _ in left]


# Each returns the arguments of one call; the first cases are the edges.
SAMPLERS: dict[str, Callable[[Random, int], tuple[Any, ...]]] = {
    "values": lambda rng, case: (_values(rng, case),),
    "words": lambda rng, case: (_words(rng, case),),
    "sentence": lambda rng, case: (" ".join(_words(rng, case)),),
    "text": lambda rng, case: (_text(rng, case),),
    "upto": lambda rng, case: (case if case < 2 else rng.randint(3, 12),),
    "digits": lambda rng, case: (0 if case == 0 else rng.randint(1, 10 ** (case + 1)),),
    "number": lambda rng, case: (_whole(rng, case),),
    "two": lambda rng, case: (_whole(rng, case), _whole(rng, case)),
    "scores": lambda rng, case: (_scores(rng, case),),
    "pairs": _pairs,
}
