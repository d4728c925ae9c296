"""The temporary database in which a pull sorts examples, so that it needs constant memory.

It is a SQLite database in a file in `SQLITE_TMPDIR`, else `TMPDIR`, else /var/tmp, which is deleted
when the process ends, however it ends.
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
from lori_core.data.text import comparison_key

#: A prompt that is in several splits stays in the first of these.
PRIORITY: tuple[str, ...] = ("test", "validation", "train")
_TRAIN = PRIORITY.index("train")
#: The page cache of the database; sorting takes as much again.
CACHE_KIB = 32 * 1024

# `id` orders the examples of a task; a dropped example has a null split. `same`, `target` and
# `gold` are digests of the prompt, the target, and the answer with its scorer and tests. `line` is
# the last column, so that SQLite can read the others without a long text.
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
# Training examples are not judged, so their answers are not compared.
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
    """Return a sort key that shuffles examples by their id, whatever source they come from."""
    return hashlib.sha256(f"{seed}\n{identity}".encode()).digest()


def _same(prompt: str) -> bytes:
    """Return a digest that is equal for prompts that look the same, ignoring case and spacing."""
    return _digest(" ".join(comparison_key(prompt).split()))


def _gold(example: Example) -> bytes:
    """Return a digest of scorer, answer and tests; the same one for all that are not judged."""
    content: list[Any] = []
    if example.scorer != "none":
        answer = expected_answer(example, f"example {example.id}")
        content = [example.scorer, answer, example.check]
    return _digest(canonical_json(content))


def _answer(example: Example) -> str:
    """Return what distinguishes examples of equal prompts: the target, or the conversation."""
    return canonical_json(example.messages) if example.messages else example.target


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


class TaskExamples:
    """The examples of one task: add its sources, then carve splits, then drop repeated examples.

    Fill the tasks of one database one after another.

    Attributes:
        counts: the number of examples of each split.
    """

    def __init__(self, database: sqlite3.Connection, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self._database = database
        self._seed = seed
        self._last = self._end()
        self._first = self._last + 1
        self._shuffled: set[str] = set()

    def add(
        self,
        rows: Iterable[tuple[str, Example]],
        limit: Mapping[Split, int],
        shares: Mapping[Any, float] | None = None,
    ) -> list[str]:
        """Append the examples of a source.

        Args:
            rows: the split of each example, and the example.
            shares: the share of the source's training examples to move to another split, by split;
                the first ones of the shuffled order, rounded, at least one.
            limit: the most examples to keep of each split; of more, the first ones of the shuffled
                order are kept, in that order.

        Returns:
            The splits that the source has, sorted.
        """
        read: Counter[str] = Counter()
        source = {"first": self._last + 1}
        self._database.executemany(_ADD, self._values(rows, read))
        source["last"] = self._end()
        self._divide(source, read, shares or {})
        added = read.copy()
        for split, most in limit.items():
            if read[split] > most:
                added[split] = len(range(read[split])[:most])
                values = {**source, "split": PRIORITY.index(split), "most": added[split]}
                self._database.execute(_APPEND_FIRST, values)
                self._database.execute(_DROP, values)
        self._last = self._end()
        self.counts += added
        return sorted(split for split, count in read.items() if count)

    def _divide(
        self, source: Mapping[str, int], read: Counter[str], shares: Mapping[Any, float]
    ) -> None:
        """Move shares of the training examples of one source; change the counts in `read`."""
        train = read["train"]
        for split in (name for name in PRIORITY if name in shares and train > 1):
            most = max(1, round(train * shares[split]))
            values = {**source, "split": _TRAIN, "to": PRIORITY.index(split), "most": most}
            self._database.execute(_MOVE, values)
            read[split], read["train"] = most, read["train"] - most
            self._shuffled |= {split, "train"}

    def carve(self, split: str, count: int) -> None:
        """Move the first `count` of the shuffled training examples to another split."""
        self._database.execute(_MOVE, self._of("train", count) | {"to": PRIORITY.index(split)})
        self.counts += Counter({split: count})
        self.counts["train"] -= count
        self._shuffled |= {split, "train"}

    def drop_leaks(self) -> dict[str, int]:
        """Keep each prompt in one split only, the first of `PRIORITY` that has it.

        Returns:
            The number of dropped examples of each split.
        """
        return self._dropped(_DROP_LEAKED, self._span())

    def drop_duplicates(self) -> dict[str, int]:
        """Keep one of several examples of a split with equal prompt, target and answer.

        Prompts are compared by their look, ignoring case and spacing, and targets exactly. Answers
        are compared together with scorer and tests, except in the training split, where they do not
        matter. The first one is kept: in a carved split by the shuffled order, otherwise in the
        order of adding.

        Returns:
            The number of dropped examples of each split.
        """
        shuffled = sum(1 << PRIORITY.index(split) for split in self._shuffled)
        return self._dropped(_DROP_REPEATED, self._span() | {"shuffled": shuffled, "train": _TRAIN})

    def contradictions(self) -> int:
        """Return the number of validation and test prompts that have more than one answer."""
        values = self._span() | {"train": _TRAIN}
        count: int = self._database.execute(_CONTRADICTIONS, values).fetchone()[0]
        return count

    def scorers(self, split: str) -> list[str]:
        """Return the scorers of a split's examples, except `none`."""
        rows = self._database.execute(_SCORERS, self._span() | {"split": PRIORITY.index(split)})
        return [scorer for (scorer,) in rows]

    def without_target(self, most: int) -> int:
        """Return how many of the first `most` shuffled training examples have no target."""
        values: dict[str, Any] = self._of("train", most) | {"empty": _digest("")}
        count: int = self._database.execute(_WITHOUT_TARGET, values).fetchone()[0]
        return count

    def lines(self, split: str, most: int) -> Iterator[str]:
        """Yield the first `most` examples of a shuffled split as JSON lines, one at a time."""
        for (line,) in self._database.execute(_LINES, self._of(split, most)):
            yield line

    def _values(
        self, rows: Iterable[tuple[str, Example]], read: Counter[str]
    ) -> Iterator[tuple[int, bytes, bytes, bytes, bytes, str, str]]:
        """Yield the column values of each example, counting its split in `read`."""
        for split, example in rows:
            row = example.row()
            read[split] += 1
            place = position(row["id"], self._seed)
            keys = _same(example.prompt), _digest(_answer(example)), _gold(example)
            yield PRIORITY.index(split), place, *keys, example.scorer, json_line(row)

    def _dropped(self, statement: str, values: dict[str, int]) -> dict[str, int]:
        """Run a statement that drops examples, and return how many of each split it dropped."""
        self._database.execute(statement, values)
        rows = self._database.execute(_COUNT, self._span())
        left = Counter({PRIORITY[index]: count for index, count in rows})
        removed = {split: self.counts[split] - left[split] for split in PRIORITY}
        self.counts = left
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
    """Yield an empty database for `TaskExamples`; it is deleted afterwards.

    Raises:
        LoriError: the disk is full, or SQLite cannot use it.
    """
    database = sqlite3.connect("")  # no name: a temporary file that no other process can open
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
