"""Word problems of one to four steps, each with its worked solution and a whole number as answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from lori_core.core.errors import DataError
from lori_core.data.example import SPLITS, Example
from tools.bundled_data.math_templates import CHAIN_EVENTS, CHAINS, PEOPLE, POOLS, STORIES
from tools.bundled_data.shares import check_size, check_splits, divide, most_of

MARKER = "The final answer is:"
SHARES = {"one-step": 40, "two-step": 30, "three-step": 20, "four-step": 10}
PER_TEMPLATE = 100  # beyond that a story only repeats itself with other numbers
RESULTS = "pqrs"
TRIES = 20_000
PATIENCE = 200


@dataclass(frozen=True)
class Story:
    """One template: the text with its slots, and the steps as `left operator right`."""

    name: str
    kind: str
    text: str
    steps: tuple[tuple[str, str, str], ...]


def generate(sizes: Mapping[str, int], seed: int) -> dict[str, list[Example]]:
    """Return exactly `sizes[split]` problems for each split; the same for the same arguments."""
    check_splits("math", sizes)
    for split, size in sizes.items():
        check_size("math", split, size, _capacity(split))
    rng = Random(seed)
    return {split: _split(split, sizes[split], rng) for split in SPLITS if split in sizes}


def _capacity(split: str) -> int:
    """Return the largest size whose share of every kind can be made."""
    stories = _stories(split)
    room = {kind: PER_TEMPLATE * sum(s.kind == kind for s in stories) for kind in SHARES}
    return most_of(room, SHARES)


def _split(split: str, size: int, rng: Random) -> list[Example]:
    stories = _stories(split)
    rows: list[Example] = []
    for kind, count in divide(size, SHARES).items():
        of_kind = [story for story in stories if story.kind == kind]
        rng.shuffle(of_kind)
        prompts: set[str] = set()  # only asked for membership; its order is never used
        for index in range(count):
            rows.append(_fresh(of_kind[index % len(of_kind)], split, prompts, rng))
    rng.shuffle(rows)
    return rows


def _fresh(story: Story, split: str, prompts: set[str], rng: Random) -> Example:
    """Make an example whose prompt is not in `prompts` yet, and add it there."""
    for _ in range(TRIES):
        example = _example(story, split, rng)
        if example.prompt not in prompts:
            prompts.add(example.prompt)
            return example
    raise DataError(f"math: template {story.name!r} has no further problem; lower the sizes")


def _example(story: Story, split: str, rng: Random) -> Example:
    slots = re.findall(r"{(\w+)}", story.text)
    numbers, lines, answer = _numbers(story, rng)
    words = {**_people(split, rng), **_things(slots, split, rng)}
    prompt = story.text.format(**words, **numbers)
    target = "\n".join([*lines, f"{MARKER} {answer}"])
    return Example(prompt, target, "number", str(answer), story.kind, story.name)


def _people(split: str, rng: Random) -> dict[str, str]:
    names = PEOPLE[split == "test"].split()
    return dict(zip("ABC", rng.sample(names, 3), strict=True))


def _things(slots: Sequence[str], split: str, rng: Random) -> dict[str, str]:
    """Draw two entities of each pool that the slots name: `{fruit}`, `{fruits}`, `{fruits2}`."""
    words: dict[str, str] = {}
    for pool, entities in POOLS.items():
        if not any(slot.rstrip("2") in (pool, pool + "s") for slot in slots):
            continue
        drawn = rng.sample(entities[split == "test"].split(), 2)
        for mark, entity in zip(("", "2"), drawn, strict=True):
            one, _, many = entity.partition(":")
            words[f"{pool}{mark}"] = one
            words[f"{pool}s{mark}"] = many or f"{one}s"
    return words


def _numbers(story: Story, rng: Random) -> tuple[dict[str, int], list[str], int]:
    """Draw numbers until every step gives a whole number from 2 to 99; work the steps out."""
    ranges = _ranges(story.steps)
    for attempt in range(TRIES):
        if attempt % PATIENCE == 0:
            # kept for a while: drawn anew each time, small factors and divisors would win
            small = {name: rng.randint(*ranges[name]) for name in _factors(story.steps)}
        free = {name: rng.randint(*ranges[name]) for name in ranges if name not in small}
        worked = _work_out(story.steps, {**small, **free})
        if worked is not None:
            return {**small, **free}, worked[0], worked[1]
    raise DataError(f"math: template {story.name!r} finds no numbers")


def _factors(steps: Sequence[tuple[str, str, str]]) -> list[str]:
    """Return the letters that multiply or divide what comes before them."""
    return [right for _, operator, right in steps if operator in "*/" and right in "abcdef"]


def _ranges(steps: Sequence[tuple[str, str, str]]) -> dict[str, tuple[int, int]]:
    """Return the limits of every letter; a factor or divisor is small wherever else it stands."""
    ranges: dict[str, tuple[int, int]] = {}
    for left, operator, right in steps:
        limits = {
            "+": ((2, 30), (2, 25)),
            "-": ((5, 60 if left in RESULTS or right in RESULTS else 40), (2, 25)),
            "*": ((2, 10), (2, 10)),
            "/": ((4, 90), (2, 10)),
        }[operator]
        for name, (low, high) in zip((left, right), limits, strict=True):
            if not name.isdigit() and name not in RESULTS:
                now = ranges.get(name, (low, high))
                ranges[name] = (max(low, now[0]), min(high, now[1]))
    return ranges


def _work_out(
    steps: Sequence[tuple[str, str, str]], numbers: Mapping[str, int]
) -> tuple[list[str], int] | None:
    known = dict(numbers)
    lines: list[str] = []
    result = 0
    for name, (left, operator, right) in zip(RESULTS, steps, strict=False):
        x, y = (int(word) if word.isdigit() else known[word] for word in (left, right))
        if operator == "/" and x % y:
            return None
        result = {"+": x + y, "-": x - y, "*": x * y, "/": x // y}[operator]
        # from 2 on, so that the plural in the text is right; two digits, so that it can be learnt
        if not 2 <= result <= 99:
            return None
        known[name] = result
        lines.append(f"{x} {operator} {y} = {result}")
    return lines, result


def _stories(split: str) -> list[Story]:
    stories = [
        Story(slug, kind, text, tuple(_step(step) for step in steps.split(";")))
        for (of_split, kind), lines in STORIES.items()
        if of_split == split
        for slug, text, steps in map(_columns, lines.strip().splitlines())
    ]
    for columns in map(_columns, CHAINS[split].strip().splitlines()):
        for kind, orders in CHAIN_EVENTS.items():
            stories += [_chain(columns, kind, events) for events in orders]
    return stories


def _columns(line: str) -> list[str]:
    return [column.strip() for column in line.split("|")]


def _step(text: str) -> tuple[str, str, str]:
    left, operator, right = text.split()
    return left, operator, right


def _chain(columns: Sequence[str], kind: str, events: str) -> Story:
    """Tell the events in order; each changes the result of the one before."""
    slug, opening, gains, losses, ask, ask_share, ask_times = columns
    texts = {"+": gains.split("&"), "-": losses.split("&"), "/": [ask_share], "*": [ask_times]}
    told = [opening]
    steps: list[tuple[str, str, str]] = []
    for index, event in enumerate(events):
        letter = "bcde"[index]
        which = events[:index].count(event)
        told.append(texts[event][which].strip().replace("{v}", f"{{{letter}}}"))
        steps.append((RESULTS[index - 1] if index else "a", event, letter))
    if events[-1] in "+-":
        told.append(ask)
    return Story(f"chain-{slug}-{events}", kind, " ".join(told), tuple(steps))
