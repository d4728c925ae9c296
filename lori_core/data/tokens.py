"""A tokenised data set on disk: made once for all stages that read it, and read as it is needed.

One folder holds `tokens.i32`, all token ids one after another, and `rows.i64`, [rows, 4]: where
each row's prompt begins, its target begins, and it ends, and whether it was cut. Both are mapped:
memory is what the rows in use take, however many there are.
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
#: What makes tokens of a text, besides the tokenizer: this package's files, and libraries.
_CODE = ("data/chat.py", "data/prompts.py", "data/tokens.py")
_LIBRARIES = ("transformers", "tokenizers")
_ROWS = "rows.i64"


class TokenStore(Sequence[Encoded]):
    """The rows of a folder that `write` made."""

    def __init__(self, folder: Path) -> None:
        self.tokens = np.memmap(folder / "tokens.i32", dtype="<i4", mode="r")
        self.rows = np.memmap(folder / _ROWS, dtype="<i8", mode="r").reshape(-1, 4)

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
        start, middle, stop, cut = self.rows[index].tolist()
        prompt, target = self.tokens[start:middle].tolist(), self.tokens[middle:stop].tolist()
        return Encoded(prompt, target, bool(cut))


@dataclass(frozen=True)
class Counts:
    """What is counted of a data set without holding it.

    Attributes:
        lengths: tokens of each row, int64, [rows].
        supervised: tokens of all targets.
        cut: how many rows were cut.
    """

    lengths: NDArray[np.int64]
    supervised: int
    cut: int


def counts(rows: Sequence[Encoded]) -> Counts:
    """Count rows; those of a store without reading their tokens."""
    if isinstance(rows, TokenStore):
        start, middle, stop, cut = rows.rows.T
        return Counts(stop - start, int(stop.sum() - middle.sum()), int(cut.sum()))
    lengths = np.array([len(row) for row in rows])
    return Counts(lengths, sum(len(row.target) for row in rows), sum(row.cut for row in rows))


def write(rows: Iterable[Encoded], folder: Path) -> None:
    """Write rows into a folder, one at a time."""
    end = 0
    with (folder / "tokens.i32").open("wb") as tokens, (folder / _ROWS).open("wb") as places:
        for row in rows:
            tokens.write(np.asarray(row.prompt + row.target, dtype="<i4").tobytes())
            middle, stop = end + len(row.prompt), end + len(row)
            places.write(np.array([end, middle, stop, row.cut], dtype="<i8").tobytes())
            end = stop


def tokenised(
    examples: Iterable[Example],
    key: str,
    section: PromptSection,
    tokenizer: Any,
    max_length: int,
    store: Path = STORE,
) -> TokenStore:
    """Return examples as tokens, from the store where they are in it.

    Args:
        examples: read once, one at a time, and only where the store lacks them.
        key: identifies the examples.
        section: the prompt's template.
        tokenizer: the model's.
        max_length: of a row.
        store: where tokenised sets are kept.

    Raises:
        ConfigError: if `max_length` leaves no room for any target.
    """
    made_by = [source_code.digests(_CODE), [version(library) for library in _LIBRARIES]]
    made_of = [key, section.model_dump(), max_length, tokenizer_identity(tokenizer)]
    identity = digest([made_of, made_by])
    folder = store / identity[:24]
    store.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # two stages may want one set at the same time
        if not (folder / _ROWS).is_file():
            with replaced_folder(folder) as work:
                write((encode(e, section, tokenizer, max_length) for e in examples), work)
    return TokenStore(folder)


def tokenizer_identity(tokenizer: Any) -> str:
    """Return a digest of everything that decides which tokens a tokenizer makes of a text.

    That is its class, its special tokens, its chat template, and its vocabulary, merges, added
    tokens, normalizer, pre-tokenizer and post-processor.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return digest(
        [
            type(tokenizer).__name__,
            tokenizer.chat_template,
            {name: str(token) for name, token in sorted(tokenizer.special_tokens_map.items())},
            bool(getattr(tokenizer, "split_special_tokens", False)),
            _saved(tokenizer) if backend is None else _rules(backend),
        ]
    )


def _rules(backend: Any) -> dict[str, Any]:
    """Return a fast tokenizer's rules, without how it was last told to pad and truncate."""
    rules: dict[str, Any] = json.loads(backend.to_str())
    return rules | {"padding": None, "truncation": None}


def _saved(tokenizer: Any) -> dict[str, str]:
    """Return the digests of the files of a tokenizer that is written in Python."""
    with TemporaryDirectory() as name:
        tokenizer.save_pretrained(name)
        return {path.name: sha256_file(path) for path in sorted(Path(name).iterdir())}
