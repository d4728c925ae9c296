"""Where a pull keeps examples while it puts them in order: on disk, so that memory is a constant.

They lie in a temporary SQLite database, a file in `SQLITE_TMPDIR`, else `TMPDIR`, else /var/tmp,
which is gone with the process, however that ends.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lori_core.core.errors import LoriError
from lori_core.core.files.atomic import canonical_json, json_line
from lori_core.data.answers import expected_answer
from lori_core.data.example import Example, Split
from lori_core.data.text import seen

#: Of several splits that hold a prompt, the first of these keeps it.
PRIORITY: tuple[str, ...] = ("test", "validation", "train")
_TRAIN = PRIORITY.index("train")
#: Of the database, and as much again where something is sorted.
CACHE_KIB = 32 * 1024

# `id` is an example's place among its task's; a dropped one has no split. `target` and `gold` are
# digests of what is learned and of what outputs are judged by. The text stands last, so that what
# comes before it is read without it where it is long.
_TABLE = """
CREATE TABLE example (
    id INTEGER PRIMARY KEY, split INTEGER, position BLOB, same BLOB, target BLOB, gold BLOB,
    scorer TEXT, line TEXT
)
"""
_ADD = """
INSERT INTO example (split, position, same, target, gold, scorer, line)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_END = "SELECT coalesce(max(id), 0) FROM example"
_APPEND_FIRST = """
INSERT INTO example (split, position, same, target, gold, scorer, line)
SELECT split, position, same, target, gold, scorer, line FROM example
WHERE id BETWEEN :first AND :last AND split = :split ORDER BY position, id LIMIT :most
"""
_DROP = "UPDATE example SET split = NULL WHERE id BETWEEN :first AND :last AND split = :split"
_MOVE = """
UPDATE example SET split = :to WHERE id IN (
    SELECT id FROM example WHERE id BETWEEN :first AND :last AND split = :split
    ORDER BY position, id LIMIT :most
)
"""
_DROP_LEAKED = """
UPDATE example SET split = NULL WHERE id IN (
    SELECT id FROM (
        SELECT id, split, min(split) OVER (PARTITION BY same) AS keeper
        FROM example WHERE id BETWEEN :first AND :last AND split IS NOT NULL
    ) WHERE split > keeper
)
"""
# Training judges nothing: there the answer makes no difference.
_DROP_REPEATED = """
UPDATE example SET split = NULL WHERE id IN (
    SELECT id FROM (
        SELECT id, row_number() OVER (
            PARTITION BY same, split, target, CASE WHEN split < :train THEN gold END
            ORDER BY CASE WHEN :shuffled >> split & 1 THEN position END, id
        ) AS place
        FROM example WHERE id BETWEEN :first AND :last AND split IS NOT NULL
    ) WHERE place > 1
)
"""
_CONTRADICTIONS = """
SELECT count(*) FROM (
    SELECT same FROM example WHERE id BETWEEN :first AND :last AND split < :train
    GROUP BY same HAVING count(DISTINCT gold) > 1
)
"""
_WITHOUT_TARGET = """
SELECT count(*) FROM (
    SELECT target FROM example WHERE id BETWEEN :first AND :last AND split = :split
    ORDER BY position, id LIMIT :most
) WHERE target = :empty
"""
_COUNT = """
SELECT split, count(*) FROM example WHERE id BETWEEN :first AND :last AND split IS NOT NULL
GROUP BY split
"""
_SCORERS = """
SELECT DISTINCT scorer FROM example
WHERE id BETWEEN :first AND :last AND split = :split AND scorer != 'none' ORDER BY scorer
"""
_LINES = """
SELECT line FROM example WHERE id BETWEEN :first AND :last AND split = :split
ORDER BY position, id LIMIT :most
"""


def position(identity: str, seed: int) -> bytes:
    """Return a key that shuffles examples the same way wherever they come from, by their `id`."""
    return hashlib.sha256(f"{seed}\n{identity}".encode()).digest()


def _same(prompt: str) -> bytes:
    """Return what makes two prompts one: what is to be seen of them, without case and spacing."""
    return _digest(" ".join(seen(prompt).split()))


def _gold(example: Example) -> bytes:
    """Return what an example's outputs are judged by, digested; one for all that are not judged."""
    judged: list[Any] = []
    if example.scorer != "none":
        answer = expected_answer(example, f"example {example.id}")
        judged = [example.scorer, answer, example.check]
    return _digest(canonical_json(judged))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


class TaskExamples:
    """The examples of one task: its sources are added, then carved, then rid of what repeats.

    Tasks of one database are filled one after another.

    Attributes:
        counts: how many examples each split has.
    """

    def __init__(self, database: sqlite3.Connection, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self._database = database
        self._seed = seed
        self._last = self._end()
        self._first = self._last + 1
        self._shuffled: set[str] = set()

    def add(self, rows: Iterable[tuple[str, Example]], limit: Mapping[Split, int]) -> list[str]:
        """Add a source's examples behind those that are there, and return the splits it has.

        Args:
            rows: the split of each example, and the example.
            limit: the most to keep, by split; of more, those that the shuffle puts first, and in
                its order.
        """
        given: Counter[str] = Counter()
        source = {"first": self._last + 1}
        self._database.executemany(_ADD, self._values(rows, given))
        source["last"] = self._end()
        kept = given.copy()
        for split, most in limit.items():
            if given[split] > most:
                kept[split] = len(range(given[split])[:most])
                values = {**source, "split": PRIORITY.index(split), "most": kept[split]}
                self._database.execute(_APPEND_FIRST, values)
                self._database.execute(_DROP, values)
        self._last = self._end()
        self.counts += kept
        return sorted(split for split, count in given.items() if count)

    def carve(self, split: str, count: int) -> None:
        """Give a split the first of the shuffled training examples."""
        self._database.execute(_MOVE, self._of("train", count) | {"to": PRIORITY.index(split)})
        self.counts += Counter({split: count})
        self.counts["train"] -= count
        self._shuffled |= {split, "train"}

    def drop_leaks(self) -> dict[str, int]:
        """Keep each prompt in one split only, the first of `PRIORITY` that has it.

        Returns:
            How many examples were dropped, by split.
        """
        return self._dropped(_DROP_LEAKED, self._span())

    def drop_duplicates(self) -> dict[str, int]:
        """Keep one of the examples of a split that are equal in prompt, target and answer.

        Prompts are compared as they look, without case and spacing, targets to the letter; answers
        count as they judge outputs (with their scorer and tests), and only outside the training
        split. The first wins: of a carved split in the shuffled order, else as added.

        Returns:
            How many examples were dropped, by split.
        """
        shuffled = sum(1 << PRIORITY.index(split) for split in self._shuffled)
        return self._dropped(_DROP_REPEATED, self._span() | {"shuffled": shuffled, "train": _TRAIN})

    def contradictions(self) -> int:
        """Count the prompts of validation and test that are judged by more than one answer."""
        values = self._span() | {"train": _TRAIN}
        count: int = self._database.execute(_CONTRADICTIONS, values).fetchone()[0]
        return count

    def scorers(self, split: str) -> list[str]:
        """Return the scorers by which a split's examples are judged."""
        found = self._database.execute(_SCORERS, self._span() | {"split": PRIORITY.index(split)})
        return [scorer for (scorer,) in found]

    def without_target(self, most: int) -> int:
        """Count the examples without a target among the first of the shuffled training split."""
        values: dict[str, Any] = self._of("train", most) | {"empty": _digest("")}
        count: int = self._database.execute(_WITHOUT_TARGET, values).fetchone()[0]
        return count

    def lines(self, split: str, most: int) -> Iterator[str]:
        """Yield the first of a shuffled split as lines of JSON, one in memory at a time."""
        for (line,) in self._database.execute(_LINES, self._of(split, most)):
            yield line

    def _values(
        self, rows: Iterable[tuple[str, Example]], given: Counter[str]
    ) -> Iterator[tuple[int, bytes, bytes, bytes, bytes, str, str]]:
        for split, example in rows:
            row = example.row()
            given[split] += 1
            place = position(row["id"], self._seed)
            keys = _same(example.prompt), _digest(example.target), _gold(example)
            yield PRIORITY.index(split), place, *keys, example.scorer, json_line(row)

    def _dropped(self, statement: str, values: dict[str, int]) -> dict[str, int]:
        self._database.execute(statement, values)
        found = self._database.execute(_COUNT, self._span())
        kept = Counter({PRIORITY[index]: count for index, count in found})
        removed = {split: self.counts[split] - kept[split] for split in PRIORITY}
        self.counts = kept
        return removed

    def _span(self) -> dict[str, int]:
        return {"first": self._first, "last": self._last}

    def _of(self, split: str, most: int) -> dict[str, int]:
        return self._span() | {"split": PRIORITY.index(split), "most": most}

    def _end(self) -> int:
        end: int = self._database.execute(_END).fetchone()[0]
        return end


@contextmanager
def scratch() -> Iterator[sqlite3.Connection]:
    """Yield an empty database for `TaskExamples`; it is gone afterwards.

    Raises:
        LoriError: if the disk is full, or SQLite cannot use it.
    """
    database = sqlite3.connect("")  # without a name: a file that nobody else can open
    try:
        for setting in ("journal_mode = OFF", "temp_store = FILE", f"cache_size = -{CACHE_KIB}"):
            database.execute(f"PRAGMA {setting}")
        database.execute(_TABLE)
        yield database
    except sqlite3.OperationalError as error:
        raise LoriError(
            f"examples on their way into the data folder: {error} (SQLITE_TMPDIR names another "
            "folder for them)"
        ) from error
    finally:
        database.close()
