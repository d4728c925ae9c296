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

from lori_core.data.example import Example, Split
from lori_core.errors import LoriError
from lori_core.files import json_line

#: Of several splits that hold a prompt, the first of these keeps it.
PRIORITY: tuple[str, ...] = ("test", "validation", "train")
#: Of the database, and as much again where something is sorted.
CACHE_KIB = 32 * 1024

# `id` is an example's place among its task's; a dropped one has no split. The text stands last, so
# that what comes before it is read without it where it is long.
_TABLE = """
CREATE TABLE example (id INTEGER PRIMARY KEY, split INTEGER, position BLOB, same BLOB, line TEXT)
"""
_ADD = "INSERT INTO example (split, position, same, line) VALUES (?, ?, ?, ?)"
_END = "SELECT coalesce(max(id), 0) FROM example"
_APPEND_FIRST = """
INSERT INTO example (split, position, same, line) SELECT split, position, same, line FROM example
WHERE id BETWEEN :first AND :last AND split = :split ORDER BY position, id LIMIT :most
"""
_DROP = "UPDATE example SET split = NULL WHERE id BETWEEN :first AND :last AND split = :split"
_MOVE = """
UPDATE example SET split = :to WHERE id IN (
    SELECT id FROM example WHERE id BETWEEN :first AND :last AND split = :split
    ORDER BY position, id LIMIT :most
)
"""
_DROP_REPEATED = """
UPDATE example SET split = NULL WHERE id IN (
    SELECT id FROM (
        SELECT id, row_number() OVER (
            PARTITION BY same
            ORDER BY split, CASE WHEN :shuffled >> split & 1 THEN position END, id
        ) AS place
        FROM example WHERE id BETWEEN :first AND :last AND split IS NOT NULL
    ) WHERE place > 1
)
"""
_COUNT = """
SELECT split, count(*) FROM example WHERE id BETWEEN :first AND :last AND split IS NOT NULL
GROUP BY split
"""
_LINES = """
SELECT line FROM example WHERE id BETWEEN :first AND :last AND split = :split
ORDER BY position, id LIMIT :most
"""


def position(identity: str, seed: int) -> bytes:
    """Return a key that shuffles examples the same way wherever they come from, by their `id`."""
    return hashlib.sha256(f"{seed}\n{identity}".encode()).digest()


def same(prompt: str) -> bytes:
    """Return what makes two examples duplicates: the prompt without case and spacing, digested."""
    return hashlib.sha256(" ".join(prompt.casefold().split()).encode()).digest()


class TaskExamples:
    """The examples of one task: its sources are added, then carved, then rid of duplicates.

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

    def drop_duplicates(self) -> dict[str, int]:
        """Keep each prompt once, where `PRIORITY` says; return how many were dropped, by split.

        Within a split the first wins: of a carved one in the shuffled order, else as added.
        """
        shuffled = sum(1 << PRIORITY.index(split) for split in self._shuffled)
        span = {"first": self._first, "last": self._last}
        self._database.execute(_DROP_REPEATED, span | {"shuffled": shuffled})
        kept = Counter({PRIORITY[n]: count for n, count in self._database.execute(_COUNT, span)})
        removed = {split: self.counts[split] - kept[split] for split in PRIORITY}
        self.counts = kept
        return removed

    def lines(self, split: str, most: int) -> Iterator[str]:
        """Yield the first of a shuffled split as lines of JSON, one in memory at a time."""
        for (line,) in self._database.execute(_LINES, self._of(split, most)):
            yield line

    def _values(
        self, rows: Iterable[tuple[str, Example]], given: Counter[str]
    ) -> Iterator[tuple[int, bytes, bytes, str]]:
        for split, example in rows:
            row = example.row()
            given[split] += 1
            keys = position(row["id"], self._seed), same(example.prompt)
            yield PRIORITY.index(split), *keys, json_line(row)

    def _of(self, split: str, most: int) -> dict[str, int]:
        index = PRIORITY.index(split)
        return {"first": self._first, "last": self._last, "split": index, "most": most}

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
