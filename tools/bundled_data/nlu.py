"""Everyday questions: multiple choice and true or false, half of each.

A wording belongs to one split. Who or what is asked about is on one of two sides for good: the
test side, or the side that training and validation share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from lori_core.data.example import SPLITS, Example
from tools.bundled_data.nlu_facts import SEQUENCES
from tools.bundled_data.nlu_wordings import WORDINGS
from tools.bundled_data.nlu_world import Fact, World, article
from tools.bundled_data.shares import check_size, check_splits, divide, most_of

#: One of the paper's eight sets is of true and false, the others are multiple choice.
SHARES = {"boolean": 25, "choice": 75}
BOOLEAN = (
    "Please answer the following question with true or false, question: {question}?\n\n"
    "Answer format: true/false"
)
CHOICE = (
    "Please choose the correct answer to the question: {question}\n\n{options}\n\n"
    "Answer format: {form}"
)
TARGET = "the correct answer is {answer}"
#: Naming the option before its number lets a small model find the number by looking it up.
CHOSEN = "the correct answer is {option}, {answer}"

#: Tables whose subjects are words or names: they never take an article.
BARE = frozenset({"capital", "continent", "language", "opposite", "synonym", "plural", "past"})
#: Families that are asked more often than the others: they hold most of the facts.
WEIGHTS = {"category": 3, "odd": 2}
#: How often a table's question has two, three or four options; fewer make a shorter prompt.
OPTIONS = (2, 2, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4)
#: Questions drawn for one subject where the number of possible ones has no end in sight.
DRAWS = 4


@dataclass(frozen=True)
class Item:
    """What fills a wording, the right answer, and the wrong ones.

    `exact`: the wrong answers are used all together, not a draw of them.
    """

    slots: Mapping[str, str]
    right: str
    wrong: tuple[str, ...]
    exact: bool = False


@dataclass(frozen=True)
class Question:
    """An item in one wording; `truth` says how a true-or-false question is to come out."""

    template: str
    text: str
    item: Item
    truth: bool = True


def generate(sizes: Mapping[str, int], seed: int) -> dict[str, list[Example]]:
    """Return exactly `sizes[split]` questions for each split; the same for the same arguments."""
    check_splits("nlu", sizes)
    rng = Random(seed)
    world = World()
    return {split: _split(split, sizes[split], world, rng) for split in SPLITS if split in sizes}


def _split(split: str, size: int, world: World, rng: Random) -> list[Example]:
    boolean, choice = _questions(split, world, rng)
    check_size(
        "nlu", split, size, most_of({"boolean": len(boolean), "choice": len(choice)}, SHARES)
    )
    counts = divide(size, SHARES)
    rows = [_boolean(question, rng) for question in boolean[: counts["boolean"]]]
    # Shuffled before the places are dealt: a family's turn must not tell where its answer stands.
    chosen = choice[: counts["choice"]]
    rng.shuffle(chosen)
    rows += _choices(chosen, rng)
    rng.shuffle(rows)
    return rows


def _questions(split: str, world: World, rng: Random) -> tuple[list[Question], list[Question]]:
    """Return all boolean questions, true and false in turns, and all choice questions."""
    streams: dict[str, list[list[Question]]] = {"true": [], "false": [], "choice": []}
    for (family, form), text in WORDINGS.items():
        items = _items(family, form, world, split == "test", rng)
        wordings = _wordings(text, split)
        for truth in (True, False) if form == "boolean" else (True,):
            asked = [
                Question(f"{family}-{form}-{split}-{index}", wording, item, truth)
                for index, wording in enumerate(wordings)
                for item in items
            ]
            rng.shuffle(asked)
            sort = "choice" if form != "boolean" else str(truth).lower()
            weight = WEIGHTS.get(family, 1)
            streams[sort] += [asked[start::weight] for start in range(weight)]
    true, false = _in_turns(streams["true"]), _in_turns(streams["false"])
    return (
        [one for pair in zip(true, false, strict=True) for one in pair],
        _in_turns(streams["choice"]),
    )


def _wordings(text: str, split: str) -> list[str]:
    return text.split(" | ")[SPLITS.index(split)].split(" / ")


def _in_turns(streams: Sequence[Sequence[Question]]) -> list[Question]:
    """Take one of each stream in turns, so that a family with many facts drowns no other."""
    longest = max(len(stream) for stream in streams)
    return [stream[turn] for turn in range(longest) for stream in streams if turn < len(stream)]


def _items(family: str, form: str, world: World, test: bool, rng: Random) -> list[Item]:
    """Return what can be asked in a family's wordings, on one side."""
    if family == "category":
        members = [fact for facts in world.categories.values() for fact in facts]
        return _of_table(members, form, world, test)
    if family in world.tables:
        return _of_table(world.tables[family], form, world, test, family in BARE, family)
    return COMPUTED[family](family, form, world, test, rng)


def _of_table(
    facts: Sequence[Fact], form: str, world: World, test: bool, bare: bool = False, family: str = ""
) -> list[Item]:
    """Ask for the value, or, in the form `reverse`, for the subject."""
    mine = world.mine(facts, test)
    items = []
    for fact in mine:
        slots = {
            "s": fact.subject if bare else world.named(fact.subject),
            "w": fact.subject,
            "v": fact.value,
            "av": article(fact.value),
        }
        if form == "reverse":
            items.append(Item(slots, fact.subject, _wrong_subjects(fact, mine)))
        else:
            items.append(Item(slots, fact.value, _wrong_values(fact, mine, family)))
    return items


def _wrong_values(fact: Fact, facts: Sequence[Fact], family: str) -> tuple[str, ...]:
    if fact.wrong:
        return (fact.wrong,)
    if family in ENDINGS:
        return tuple(
            form
            for ending in ENDINGS[family]
            for form in (f"{fact.subject}{ending}", f"{fact.value}{ending}")
            if form != fact.value
        )
    right = {fact.value, *fact.also}
    # A dict, as a set would forget the order.
    return tuple(dict.fromkeys(other.value for other in facts if other.value not in right))


def _wrong_subjects(fact: Fact, facts: Sequence[Fact]) -> tuple[str, ...]:
    right = {fact.value, *fact.also}
    return tuple(
        other.subject
        for other in facts
        if other.value not in right and fact.value not in other.also
    )


#: What a learner of the language may put at the end of an irregular word or of its right form.
ENDINGS = {"plural": ("s", "es"), "past": ("ed", "s")}


def _trios(world: World, test: bool, rng: Random) -> list[tuple[list[str], list[str], str]]:
    """Return up to four of one category, two of it drawn anew, and a stranger to them."""
    trios = []
    for name, facts in world.categories.items():
        inside = [fact.subject for fact in world.mine(facts, test)]
        strangers = [
            other.subject
            for other_name, others in world.categories.items()
            for other in world.mine(others, test)
            if not {name, *facts[0].also} & {other_name, *other.also}
        ]
        most = min(4, len(inside))
        for stranger in rng.sample(strangers, DRAWS * most):
            trios.append((rng.sample(inside, most), rng.sample(inside, 2), stranger))
    return trios


def _odd(family: str, form: str, world: World, test: bool, rng: Random) -> list[Item]:
    return [
        Item({}, stranger, tuple(inside[:3]), exact=True)
        for inside, _, stranger in _trios(world, test, rng)
        if len(inside) > 1
    ]


def _all(family: str, form: str, world: World, test: bool, rng: Random) -> list[Item]:
    """Ask whether things belong together; a trio that came up before is left out."""
    items: dict[str, Item] = {}
    for inside, pair, stranger in _trios(world, test, rng):
        if len(inside) < 3:
            continue
        right = _listed(inside[:3])
        mixed = [*pair, stranger]
        rng.shuffle(mixed)
        items.setdefault(right, Item({}, right, (_listed(mixed),), exact=True))
    return list(items.values())


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _bigger(family: str, form: str, world: World, test: bool, rng: Random) -> list[Item]:
    """Compare things of different tiers of size, or, in `smaller`, the other way round."""
    tiers = [[thing for thing in tier if world.for_test[thing] == test] for tier in world.tiers]
    if family == "smaller":
        tiers.reverse()
    return _compared(tiers, form, world.named, rng)


def _numbers(family: str, form: str, world: World, test: bool, rng: Random) -> list[Item]:
    numbers = [[str(number)] for number in range(1, 100) if _number_for_test(number) == test]
    if family == "less":
        numbers.reverse()
    return _compared(numbers, form, str, rng)


def _number_for_test(number: int) -> bool:
    return number % 7 in (2, 5)


def _compared(
    tiers: Sequence[Sequence[str]], form: str, named: Callable[[str], str], rng: Random
) -> list[Item]:
    """Pick out what stands highest, or say of two which stands higher."""
    items = []
    for rank, tier in enumerate(tiers):
        low = [thing for lower in tiers[:rank] for thing in lower]
        high = [thing for higher in tiers[rank + 1 :] for thing in higher]
        for thing in tier:
            if form == "boolean":
                pairs = zip(_some(low, rng), _some(high, rng), strict=False)
                items += [
                    Item({"s": named(thing), "w": thing}, named(below), (named(above),), True)
                    for below, above in pairs
                ]
            elif len(low) >= 3:
                drawn = [sorted(rng.sample(low, rng.choice((1, 2, 3)))) for _ in range(DRAWS)]
                distinct = dict.fromkeys(tuple(wrong) for wrong in drawn)
                items += [Item({}, thing, wrong, True) for wrong in distinct]
    return items


def _some(things: Sequence[str], rng: Random) -> list[str]:
    return rng.sample(things, min(DRAWS, len(things)))


def _sequence(family: str, form: str, world: World, test: bool, rng: Random) -> list[Item]:
    """Ask for the next or the last one; days and months go round, the rest has two ends."""
    step = 1 if family == "after" else -1
    items = []
    for phrase, rows in SEQUENCES.items():
        for row in rows:
            words = row.split()
            for at, word in enumerate(words):
                if (at % 3 == 1) != test or not (phrase == "{}" or 0 <= at + step < len(words)):
                    continue
                near = [words[(at + by) % len(words)] for by in (step, -step, 2 * step, 3 * step)]
                slots = {"s": phrase.format(word), "w": word}
                items.append(Item(slots, near[0], tuple(near[1:])))
    for number in (n for n in range(21, 99) if _number_for_test(n) == test):
        wrong = (number - step, number + 2 * step, number + 10 * step)
        slots = {"s": str(number), "w": str(number)}
        items.append(Item(slots, str(number + step), tuple(map(str, wrong))))
    return items


def _plus(family: str, form: str, world: World, test: bool, rng: Random) -> list[Item]:
    numbers = [number for number in range(2, 15) if _number_for_test(number) == test]
    items = []
    for left in numbers:
        for right in numbers:
            wrong = {left + right + by for by in (-2, -1, 1, 2, 10)}
            slots = {"s": f"{left} plus {right}"}
            items.append(Item(slots, str(left + right), tuple(map(str, sorted(wrong)))))
    return items


def _letter(family: str, form: str, world: World, test: bool, rng: Random) -> list[Item]:
    subjects = [
        fact.subject
        for facts in world.categories.values()
        for fact in world.mine(facts, test)
        if fact.subject.isalpha() and fact.subject.islower()
    ]
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return [
        Item({"w": word}, word[0].upper(), tuple(letters.replace(word[0].upper(), "")))
        for word in subjects
    ]


COMPUTED: dict[str, Callable[[str, str, World, bool, Random], list[Item]]] = {
    "odd": _odd,
    "all": _all,
    "bigger": _bigger,
    "smaller": _bigger,
    "greater": _numbers,
    "less": _numbers,
    "after": _sequence,
    "before": _sequence,
    "plus": _plus,
    "letter": _letter,
}


def _boolean(question: Question, rng: Random) -> Example:
    item = question.item
    value = item.right if question.truth else rng.choice(item.wrong)
    slots = {**item.slots, "v": value, "av": article(value)}
    answer = "true" if question.truth else "false"
    return Example(
        prompt=BOOLEAN.format(question=question.text.format(**slots)),
        target=TARGET.format(answer=answer),
        scorer="choice",
        answer=answer,
        kind="boolean",
        template=question.template,
    )


def _choices(questions: Sequence[Question], rng: Random) -> list[Example]:
    """Write the questions out; the right answer takes each place equally often."""
    examples = []
    seen = dict.fromkeys(range(2, 5), 0)
    for question in questions:
        item = question.item
        wrong = list(item.wrong)
        if not item.exact:
            wrong = rng.sample(wrong, min(rng.choice(OPTIONS) - 1, len(wrong)))
        rng.shuffle(wrong)
        count = len(wrong) + 1
        examples.append(_choice(question, wrong, seen[count] % count))
        seen[count] += 1
    return examples


def _choice(question: Question, wrong: Sequence[str], place: int) -> Example:
    options = [*wrong[:place], question.item.right, *wrong[place:]]
    names = [f"answer{number}" for number in range(1, len(options) + 1)]
    shown = " ".join(
        f"{name.capitalize()}: {option}" for name, option in zip(names, options, strict=True)
    )
    asked = question.text.format(**question.item.slots)
    return Example(
        prompt=CHOICE.format(
            question=asked[0].upper() + asked[1:], options=shown, form="/".join(names)
        ),
        target=CHOSEN.format(option=options[place], answer=names[place]),
        scorer="choice",
        answer=names[place],
        kind="choice",
        template=question.template,
    )
