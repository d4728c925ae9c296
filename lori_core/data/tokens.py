"""Tokenised data sets on disk, shared by all stages that read them.

The folder of a data set holds `tokens.i32`, the token ids of all rows one after another, and
`rows.i64`, [rows, 5]: the start of each row's prompt, the start of its target, its end, whether it
was cut, and how many tokens of its target are not learned. Such a token is stored as -1 - id. Both
files are memory-mapped, so memory does not grow with the number of rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, overload

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from lori_core.config import PromptSection
from lori_core.core import source_code
from lori_core.core.files.atomic import digest, replaced_folder, sha256_file
from lori_core.data.example import Example
from lori_core.data.prompts import Encoded, encode

STORE = Path(".lori/tokens")
#: The files of this package, and the libraries, that tokens depend on besides the tokenizer.
_CODE = (
    "data/chat.py",
    "data/conversations.py",
    "data/prompts.py",
    "data/tokenised_row.py",
    "data/tokens.py",
)
_LIBRARIES = ("transformers", "tokenizers")
_ROWS = "rows.i64"


class TokenStore(Sequence[Encoded]):
    """The rows of a tokenised data set, read from a folder that `write` filled."""

    def __init__(self, folder: Path) -> None:
        self.tokens = np.memmap(folder / "tokens.i32", dtype="<i4", mode="r")
        self.rows = np.memmap(folder / _ROWS, dtype="<i8", mode="r").reshape(-1, 5)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...
    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        """Return one row, or several."""
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        start, middle, stop, cut, gaps = self.rows[index].tolist()
        prompt, target = self.tokens[start:middle].tolist(), self.tokens[middle:stop].tolist()
        if not gaps:
            return Encoded(prompt, target, bool(cut))
        unlearned = frozenset(place for place, token in enumerate(target) if token < 0)
        ids = [-1 - token if token < 0 else token for token in target]
        return Encoded(prompt, ids, bool(cut), unlearned)

    def largest(self) -> int:
        """Return the largest token id."""
        return max(int(self.tokens.max()), -1 - int(self.tokens.min()))


@dataclass(frozen=True)
class Counts:
    """The token counts of a data set.

    Attributes:
        lengths: the tokens of each row, int64, [rows].
        supervised: the learned tokens of all rows together.
        cut: the number of rows that were cut.
    """

    lengths: NDArray[np.int64]
    supervised: int
    cut: int


def counts(rows: Sequence[Encoded]) -> Counts:
    """Count the tokens of rows; for a `TokenStore`, without reading the tokens."""
    if isinstance(rows, TokenStore):
        start, middle, stop, cut, gaps = rows.rows.T
        supervised = int(stop.sum() - middle.sum() - gaps.sum())
        return Counts(stop - start, supervised, int(cut.sum()))
    lengths = np.array([len(row) for row in rows])
    return Counts(lengths, sum(row.supervised for row in rows), sum(row.cut for row in rows))


def write(rows: Iterable[Encoded], folder: Path) -> None:
    """Write rows into a folder in the format of `TokenStore`; memory holds one row at a time."""
    end = 0
    with (folder / "tokens.i32").open("wb") as tokens, (folder / _ROWS).open("wb") as places:
        for row in rows:
            target = [-1 - t if n in row.unlearned else t for n, t in enumerate(row.target)]
            tokens.write(np.asarray(row.prompt + target, dtype="<i4").tobytes())
            middle, stop = end + len(row.prompt), end + len(row)
            facts = [end, middle, stop, row.cut, len(row.unlearned)]
            places.write(np.array(facts, dtype="<i8").tobytes())
            end = stop


def tokenised(
    examples: Iterable[Example],
    key: str,
    section: PromptSection,
    tokenizer: Any,
    max_length: int,
    store: Path = STORE,
) -> TokenStore:
    """Return a data set's tokens: from the store, or tokenised and stored now.

    Args:
        examples: the examples; iterated once, only if the store does not have them.
        key: the digest that identifies the examples.
        section: the prompt template.
        tokenizer: the model's tokenizer.
        max_length: the most tokens of a row.
        store: the folder of tokenised data sets.

    Raises:
        ConfigError: `max_length` leaves no room for any target.
    """
    code = [source_code.digests(_CODE), [version(library) for library in _LIBRARIES]]
    inputs = [key, section.model_dump(), max_length, tokenizer_identity(tokenizer)]
    identity = digest([inputs, code])
    folder = store / identity[:24]
    store.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # two stages may need the same data set at the same time
        if not (folder / _ROWS).is_file():
            with replaced_folder(folder) as work:
                write((encode(e, section, tokenizer, max_length) for e in examples), work)
    return TokenStore(folder)


def tokenizer_identity(tokenizer: Any) -> str:
    """Return a digest of everything in a tokenizer that the tokens of a text depend on.

    That is its class, special tokens, chat template, vocabulary, merges, added tokens, normalizer,
    pre-tokenizer and post-processor.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return digest(
        [
            type(tokenizer).__name__,
            tokenizer.chat_template,
            {name: str(token) for name, token in sorted(tokenizer.special_tokens_map.items())},
            bool(getattr(tokenizer, "split_special_tokens", False)),
            _file_digests(tokenizer) if backend is None else _rules(backend),
        ]
    )


def _rules(backend: Any) -> dict[str, Any]:
    """Return a fast tokenizer's rules, without its current padding and truncation."""
    rules: dict[str, Any] = json.loads(backend.to_str())
    return rules | {"padding": None, "truncation": None}


def _file_digests(tokenizer: Any) -> dict[str, str]:
    """Return the SHA-256 of each file that a slow (Python) tokenizer saves."""
    with TemporaryDirectory() as name:
        tokenizer.save_pretrained(name)
        return {path.name: sha256_file(path) for path in sorted(Path(name).iterdir())}
