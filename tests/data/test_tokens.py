from pathlib import Path

import numpy as np
import pytest

from lori_core import models
from lori_core.config import ModelSection, PromptSection
from lori_core.data.example import Example
from lori_core.data.prompts import Encoded, encode_all
from lori_core.data.tokens import TokenStore, counts, tokenised, write

PLAIN = PromptSection(template="plain")
EXAMPLES = [
    Example("What is 2 + 2?", "4"),
    Example("A long question " * 5, "yes"),
    Example("", "x"),
]


@pytest.fixture(scope="module")
def tokenizer() -> object:
    return models.load_tokenizer(models.prepare(ModelSection(name_or_path="random:llama")))


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    rows = [Encoded([1, 2], [3], False), Encoded([], [70000, 5], True), Encoded([9], [9], False)]
    write(iter(rows), tmp_path)
    store = TokenStore(tmp_path)
    assert list(store) == rows
    assert (store[-1], store[1:]) == (rows[2], rows[1:])
    assert isinstance(store.tokens, np.memmap)
    assert isinstance(store.rows, np.memmap)


def test_a_store_is_counted_as_the_rows_in_it_are(tmp_path: Path) -> None:
    rows = [Encoded([1, 2], [3], False), Encoded([], [70000, 5], True), Encoded([9], [9], False)]
    write(iter(rows), tmp_path)
    for found in (counts(rows), counts(TokenStore(tmp_path))):
        assert found.lengths.tolist() == [3, 2, 2]
        assert (found.supervised, found.cut) == (4, 1)


def test_what_is_stored_is_what_encoding_gives(tmp_path: Path, tokenizer: object) -> None:
    found = tokenised(EXAMPLES, "key", PLAIN, tokenizer, 30, tmp_path)
    assert list(found) == encode_all(EXAMPLES, PLAIN, tokenizer, 30)


def test_a_set_is_tokenised_once(tmp_path: Path, tokenizer: object) -> None:
    first = tokenised(EXAMPLES, "key", PLAIN, tokenizer, 30, tmp_path)

    def never() -> object:
        raise AssertionError("read again")
        yield

    again = tokenised(never(), "key", PLAIN, tokenizer, 30, tmp_path)  # type: ignore[arg-type]
    assert list(again) == list(first)


@pytest.mark.parametrize(
    ("key", "section", "length"),
    [("other", PLAIN, 30), ("key", PromptSection(template="alpaca"), 30), ("key", PLAIN, 20)],
)
def test_what_tokens_depend_on_makes_another_set(
    key: str, section: PromptSection, length: int, tmp_path: Path, tokenizer: object
) -> None:
    tokenised(EXAMPLES, "key", PLAIN, tokenizer, 30, tmp_path)
    tokenised(EXAMPLES, key, section, tokenizer, length, tmp_path)
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2


def test_another_tokenizer_makes_another_set(tmp_path: Path, tokenizer: object) -> None:
    other = models.load_tokenizer(models.prepare(ModelSection(name_or_path="random:gpt2")))
    other.eos_token = "<pad>"
    tokenised(EXAMPLES, "key", PLAIN, tokenizer, 30, tmp_path)
    tokenised(EXAMPLES, "key", PLAIN, other, 30, tmp_path)
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2


def test_a_folder_that_was_not_finished_is_made_again(tmp_path: Path, tokenizer: object) -> None:
    first = tokenised(EXAMPLES, "key", PLAIN, tokenizer, 30, tmp_path)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    (folder / "rows.i64").unlink()
    assert list(tokenised(EXAMPLES, "key", PLAIN, tokenizer, 30, tmp_path)) == list(first)
