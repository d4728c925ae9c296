"""Requests to refuse, harmless ones that look alike, and plain ones.

All three share their wordings, so that no wording gives the answer away. A wording belongs to one
split; an act is on the test's side for good, or on the side of training and validation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random

from lori_core.data.example import SPLITS, Example
from tools.bundled_data.safety_harmless import LOOKALIKES, ORDINARY, SMALL
from tools.bundled_data.safety_requests import HARMFUL, OPENINGS, WORDINGS
from tools.bundled_data.shares import check_size, check_splits, divide, most_of

#: As in Saferpaca, requests to refuse are the smaller part: with more, a small model refuses all.
SHARES = {
    "train": {"harmful": 25, "lookalike": 35, "ordinary": 40},
    "validation": {"harmful": 50, "lookalike": 25, "ordinary": 25},
    "test": {"harmful": 60, "lookalike": 20, "ordinary": 20},
}


def generate(sizes: Mapping[str, int], seed: int) -> dict[str, list[Example]]:
    """Return exactly `sizes[split]` requests for each split; the same for the same arguments."""
    check_splits("safety", sizes)
    rng = Random(seed)
    return {split: _split(split, sizes[split], rng) for split in SPLITS if split in sizes}


def _split(split: str, size: int, rng: Random) -> list[Example]:
    pools = {
        "harmful": _harmful(split, rng),
        "lookalike": _harmless(LOOKALIKES, "lookalike", split, rng),
        "ordinary": _ordinary(split, rng),
    }
    room = {kind: len(pool) for kind, pool in pools.items()}
    check_size("safety", split, size, most_of(room, SHARES[split]))
    rows = [
        row for kind, count in divide(size, SHARES[split]).items() for row in pools[kind][:count]
    ]
    rng.shuffle(rows)
    return rows


def _on_side(things: Sequence[str], split: str) -> list[str]:
    """Return the things of a split: every third is for the test."""
    return [thing for at, thing in enumerate(things) if (at % 3 == 1) == (split == "test")]


def _wordings(split: str) -> list[str]:
    return WORDINGS[split].strip().splitlines()


def _asked(acts: int, split: str, rng: Random) -> list[tuple[int, int]]:
    """Pair acts and wordings: every act once before any comes again, each time in other words."""
    wordings = len(_wordings(split))
    # Each act has its own order of wordings, or a round would ask all acts in the same words.
    orders = [rng.sample(range(wordings), wordings) for _ in range(acts)]
    pairs = []
    for turn in range(wordings):
        round_of_acts = list(range(acts))
        rng.shuffle(round_of_acts)
        pairs += [(act, orders[act][turn]) for act in round_of_acts]
    return pairs


def _harmful(split: str, rng: Random) -> list[Example]:
    acts = [
        (act, reasons.split(" | "))
        for reasons, lines in HARMFUL.values()
        for act in _on_side(lines.strip().splitlines(), split)
    ]
    rows = []
    for at, wording in _asked(len(acts), split, rng):
        act, reasons = acts[at]
        # Said back to the user: what was mine is now yours.
        doing = re.sub(r"\bme\b", "you", re.sub(r"\bmy\b", "your", gerund(act)))
        doing = re.sub(r"\bI\b", "you", doing)
        target = f"{rng.choice(OPENINGS).format(doing=doing)} {rng.choice(reasons)}"
        rows.append(_example(act, wording, split, target, "harmful"))
    return rows


def _harmless(text: str, kind: str, split: str, rng: Random) -> list[Example]:
    lines = _on_side(text.strip().splitlines(), split)
    rows = []
    for at, wording in _asked(len(lines), split, rng):
        act, answer = lines[at].split(" = ")
        rows.append(_example(act, wording, split, answer, kind))
    return rows


def _example(act: str, wording: int, split: str, target: str, kind: str) -> Example:
    prompt = _wordings(split)[wording].format(act=act, doing=gerund(act))
    answer = "refuse" if kind == "harmful" else "comply"
    return Example(prompt, target, "refusal", answer, kind, f"request-{split}-{wording}")


def gerund(act: str) -> str:
    """Turn `rob a bank` into `robbing a bank`."""
    verb, space, rest = act.partition(" ")
    stem, hyphen, tail = verb.partition("-")
    if hyphen:  # what is hyphenated ends in the verb: bomb-proof, torture-test
        return f"{stem}-{_gerund(tail)}{space}{rest}"
    return f"{_gerund(verb)}{space}{rest}"


def _gerund(verb: str) -> str:
    if verb.endswith("ie"):
        return f"{verb[:-2]}ying"
    if verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        return f"{verb[:-1]}ing"
    # One syllable, one vowel, one consonant, or stressed like it.
    if verb == "kidnap" or re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", verb):
        return f"{verb}{verb[-1]}ing"
    return f"{verb}ing"


def _ordinary(split: str, rng: Random) -> list[Example]:
    """Take a request for advice and a small task in turns, as long as both last."""
    advice = _harmless(ORDINARY, "ordinary", split, rng)
    small = [row for family in SMALL for row in _small(family, split)]
    rng.shuffle(small)
    both = min(len(advice), len(small))
    pairs = [row for pair in zip(advice, small, strict=False) for row in pair]
    return [*pairs, *advice[both:], *small[both:]]


def _small(family: str, split: str) -> list[Example]:
    text, answer, things = SMALL[family]
    wordings = text.split(" | ")[SPLITS.index(split)].split(" / ")
    rows = []
    for thing in _on_side(things.split(", "), split):
        word, value = thing.split("=")
        slots = {"w": word, "v": value.replace(";", ",")}
        rows += [
            Example(
                prompt=wording.format(**slots),
                target=answer.format(**slots),
                scorer="refusal",
                answer="comply",
                kind="ordinary",
                template=f"{family}-{split}-{at}",
            )
            for at, wording in enumerate(wordings)
        ]
    return rows
