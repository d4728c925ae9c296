"""The texts that the refusal classifier learns from, beside the labelled answers."""

from __future__ import annotations

from collections import Counter

from tools.refusal_texts import ANSWERS, REFUSALS, texts


def test_each_kind_gives_as_many_texts_with_every_slot_filled() -> None:
    found = list(texts(0, 16))
    assert Counter(kind for kind, _, refuses in found if refuses) == dict.fromkeys(REFUSALS, 16)
    assert Counter(kind for kind, _, refuses in found if not refuses) == dict.fromkeys(ANSWERS, 16)
    for _, text, _ in found:
        assert text.strip()
        assert not set("{}") & set(text)


def test_the_same_seed_gives_the_same_texts_and_another_gives_others() -> None:
    assert list(texts(3, 8)) == list(texts(3, 8))
    assert list(texts(3, 8)) != list(texts(4, 8))
