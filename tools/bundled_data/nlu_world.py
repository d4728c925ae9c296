"""The facts of `nlu`, read from their tables, each dealt to the test or to the other splits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tools.bundled_data.nlu_facts import CATEGORIES, PLAIN, SAID_WITH_A, SIZES, TABLES


@dataclass(frozen=True)
class Fact:
    """A subject, its value, what else would be right, and, if set, the only wrong value."""

    subject: str
    value: str
    also: tuple[str, ...] = ()
    wrong: str = ""


class World:
    """All facts, each on its side."""

    def __init__(self) -> None:
        """Read the facts and deal their subjects; the sides do not depend on any seed."""
        self.categories, members = _categories()
        self.plain = {*members, *PLAIN.split()}
        self.tables = {name: _table(text) for name, text in TABLES.items()}
        self.tiers = [line.split(", ") for line in SIZES.strip().splitlines()]
        self.for_test: dict[str, bool] = {}
        self._deal([fact.subject for fact in facts] for facts in self.categories.values())
        self._deal([fact.subject for fact in facts] for facts in self.tables.values())
        self._deal(self.tiers)

    def _deal(self, groups: Iterable[list[str]]) -> None:
        """Give each group's every third subject to the test; one dealt before stays where it is."""
        for group in groups:
            taken = 0
            for index, subject in enumerate(group):
                taken += self.for_test.setdefault(subject, 3 * taken + 1 < index + 1)

    def mine(self, facts: Sequence[Fact], test: bool) -> list[Fact]:
        """Return the facts whose subjects are on one side."""
        return [fact for fact in facts if self.for_test[fact.subject] == test]

    def named(self, subject: str) -> str:
        """Return a subject with its article, if it takes one."""
        name = subject.startswith("the ") or subject[0].isupper()
        return subject if name or subject in self.plain else article(subject)


def article(word: str) -> str:
    """Return the word after `a` or `an`."""
    return f"an {word}" if word[0] in "aeiou" and word not in SAID_WITH_A else f"a {word}"


def _categories() -> tuple[dict[str, list[Fact]], list[str]]:
    """Return the facts of each category, and the members that take no article."""
    categories: dict[str, list[Fact]] = {}
    plain: list[str] = []
    for line in CATEGORIES.strip().splitlines():
        head, members = line.split(": ")
        name, *close = head.split("/")
        words = members.split(", ")
        if name.endswith("*"):
            plain += words
        name = name.rstrip("*")
        categories[name] = [Fact(word, name, tuple(c.rstrip("*") for c in close)) for word in words]
    return categories, plain


def _table(text: str) -> list[Fact]:
    facts = []
    for entry in text.strip().replace("\n", ", ").split(", "):
        subject, _, rest = entry.partition("=")
        rest, _, wrong = rest.partition(">")
        value, *also = rest.split("/")
        facts.append(Fact(subject, value, tuple(also), wrong))
    return facts
