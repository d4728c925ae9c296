import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers_like import QWEN, llama3, qwen
from transformers import CTRLTokenizer

from lori_core.config import ModelSection, PromptSection
from lori_core.core import source_code
from lori_core.data.example import Example
from lori_core.data.prompts import Encoded, encode_all
from lori_core.data.tokens import TokenStore, counts, tokenised, tokenizer_identity, write
from lori_core.models import base_model

PLAIN = PromptSection(template="plain")
EXAMPLES = [
    Example("What is 2 + 2?", "4"),
    Example("A long question " * 5, "yes"),
    Example("", "x"),
]


@pytest.fixture(scope="module")
def tokenizer() -> object:
    return base_model.load_tokenizer(base_model.prepare(ModelSection(name_or_path="random:llama")))


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    rows = [
        Encoded([1, 2], [3], False),
        Encoded([], [70000, 5], True),
        Encoded([9], [0, 9, 0, 70001], False, frozenset({0, 3})),
    ]
    write(iter(rows), tmp_path)
    store = TokenStore(tmp_path)
    assert list(store) == rows
    assert (store[-1], store[1:]) == (rows[2], rows[1:])
    assert store.largest() == 70001
    assert isinstance(store.tokens, np.memmap)
    assert isinstance(store.rows, np.memmap)


def test_a_store_is_counted_as_the_rows_in_it_are(tmp_path: Path) -> None:
    gaps = Encoded([9], [9, 8], False, frozenset({0}))
    rows = [Encoded([1, 2], [3], False), Encoded([], [70000, 5], True), gaps]
    write(iter(rows), tmp_path)
    for found in (counts(rows), counts(TokenStore(tmp_path))):
        assert found.lengths.tolist() == [3, 2, 3]
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
    other = base_model.load_tokenizer(base_model.prepare(ModelSection(name_or_path="random:gpt2")))
    other.eos_token = "<pad>"
    tokenised(EXAMPLES, "key", PLAIN, tokenizer, 30, tmp_path)
    tokenised(EXAMPLES, "key", PLAIN, other, 30, tmp_path)
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2


def test_a_folder_that_was_not_finished_is_made_again(tmp_path: Path, tokenizer: object) -> None:
    first = tokenised(EXAMPLES, "key", PLAIN, tokenizer, 30, tmp_path)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    (folder / "rows.i64").unlink()
    assert list(tokenised(EXAMPLES, "key", PLAIN, tokenizer, 30, tmp_path)) == list(first)


def sets(folder: Path) -> int:
    return len([path for path in folder.iterdir() if path.is_dir()])


@pytest.mark.parametrize("change", ["post-processor", "template", "special token", "added token"])
def test_what_changes_tokens_makes_another_set(change: str, tmp_path: Path) -> None:
    one, other = llama3(), llama3(back="<|eot_id|>" if change == "post-processor" else "")
    if change == "template":
        other.chat_template = QWEN
    if change == "special token":
        other.bos_token = "<|eot_id|>"
    if change == "added token":
        other.add_tokens(["long"])
    for tokenizer in (one, other, llama3()):
        tokenised(EXAMPLES, "key", PLAIN, tokenizer, 30, tmp_path)
    assert sets(tmp_path) == 2


def test_how_a_tokenizer_was_used_makes_no_other_set() -> None:
    tokenizer = qwen()
    before = tokenizer_identity(tokenizer)
    tokenizer(["a", "longer"], padding=True, truncation=True, max_length=3)
    assert tokenizer_identity(tokenizer) == before


def test_a_tokenizer_in_python_is_known_by_all_its_files(tmp_path: Path) -> None:
    words = {word: number for number, word in enumerate(["a</w>", "b</w>", "a", "b", "ab</w>"])}
    (tmp_path / "vocab.json").write_text(json.dumps(words | {"<unk>": 5}))
    found = set()
    for merges in ("#version\na b</w>\n", "#version\n", "#version\na b</w>\n"):
        (tmp_path / "merges.txt").write_text(merges)
        tokenizer = CTRLTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
        found.add(tokenizer_identity(tokenizer))
    assert len(found) == 2


def test_tokens_of_other_code_are_made_again(
    tmp_path: Path, tokenizer: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenised(EXAMPLES, "key", PLAIN, tokenizer, 30, tmp_path)
    monkeypatch.setattr(source_code, "digests", lambda files: dict.fromkeys(files, "changed"))
    tokenised(EXAMPLES, "key", PLAIN, tokenizer, 30, tmp_path)
    assert sets(tmp_path) == 2
