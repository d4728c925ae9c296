"""A tokenised data set on disk: made once for all stages that read it, and read as it is needed.

One folder holds `tokens.i32`, all token ids one after another; `rows.npy`, [rows, 3]: where each
row's prompt begins, its target begins, and it ends; and `cut.npy`. Memory is what the rows in use
take, however many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from filelock import FileLock

from lori_core.config import PromptSection
from lori_core.data.example import Example
from lori_core.data.prompts import Encoded, encode
from lori_core.files import digest, replaced_folder

STORE = Path(".lori/tokens")


class TokenStore(Sequence[Encoded]):
    """The rows of a folder that `write` made."""

    def __init__(self, folder: Path) -> None:
        self.tokens = np.memmap(folder / "tokens.i32", dtype="<i4", mode="r")
        self.rows = np.load(folder / "rows.npy")
        self.cut = np.load(folder / "cut.npy")

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
        start, middle, stop = self.rows[index].tolist()
        prompt, target = self.tokens[start:middle].tolist(), self.tokens[middle:stop].tolist()
        return Encoded(prompt, target, bool(self.cut[index]))


def write(rows: Iterable[Encoded], folder: Path) -> None:
    """Write rows into a folder, one at a time."""
    places, cut, end = [], [], 0
    with (folder / "tokens.i32").open("wb") as file:
        for row in rows:
            np.asarray(row.prompt + row.target, dtype="<i4").tofile(file)
            places.append((end, end + len(row.prompt), end + len(row)))
            end += len(row)
            cut.append(row.cut)
    np.save(folder / "rows.npy", np.array(places, dtype=np.int64).reshape(-1, 3))
    np.save(folder / "cut.npy", np.array(cut, dtype=bool))


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
    identity = digest([key, section.model_dump(), max_length, _identity(tokenizer)])
    folder = store / identity[:24]
    store.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # two stages may want one set at the same time
        if not (folder / "cut.npy").is_file():
            with replaced_folder(folder) as work:
                write((encode(e, section, tokenizer, max_length) for e in examples), work)
    return TokenStore(folder)


def _identity(tokenizer: Any) -> list[str]:
    backend: Callable[[], str] | None = getattr(
        getattr(tokenizer, "backend_tokenizer", None), "to_str", None
    )
    vocabulary = backend() if backend else digest(sorted(tokenizer.get_vocab().items()))
    return [
        str(tokenizer.chat_template),
        str(tokenizer.bos_token),
        str(tokenizer.eos_token),
        vocabulary,
    ]
