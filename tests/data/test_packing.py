from itertools import pairwise

import numpy as np
import pytest
import torch

from lori_core.data.packing import pack_batch
from lori_core.data.prompts import Encoded


def test_a_batch_is_a_tree_of_its_beginnings() -> None:
    batch = [
        Encoded([1, 2, 3], [4, 5], False),
        Encoded([1, 2], [6], False),
        Encoded([7], [4], True),
    ]
    packed = pack_batch(batch)
    assert packed.pop("groups") == ((3, 5),)
    assert {name: x.tolist() for name, x in packed.items()} == {
        "input_ids": [[1, 2, 3, 4, 5, 6, 7, 4]],
        "position_ids": [[0, 1, 2, 3, 4, 2, 0, 1]],
        "slots": [0, 1, 2, 3, 4, 0, 1, 5, 0, 0, 6, 7, 0, 0, 0],
        "places": [0, 1, 2, 3, 4, 7, 10, 11],
        "shared": [0, 1],
        "uses": [0, 5, 1, 6],
        "offsets": [0, 2],
        "predicting": [2, 3, 1, 6],
        "targets": [4, 5, 6, 4],
        "counts": [2, 1, 1],
    }


def test_without_sharing_every_token_is_a_node() -> None:
    batch = [Encoded([1, 2], [3], False), Encoded([1, 2], [3], False)]
    found = pack_batch(batch, share=False)
    assert found["input_ids"].tolist() == [[1, 2, 3, 1, 2, 3]]
    assert found["slots"].tolist() == [0, 1, 2, 3, 4, 5]
    assert found["shared"].tolist() == found["uses"].tolist() == found["offsets"].tolist() == []


def test_equal_examples_are_computed_once_and_counted_twice() -> None:
    found = pack_batch([Encoded([1], [2, 3], False)] * 2)
    assert found["input_ids"].tolist() == [[1, 2, 3]]
    assert found["predicting"].tolist() == [0, 1, 0, 1]
    assert found["targets"].tolist() == [2, 3, 2, 3]
    assert found["uses"].tolist() == [0, 3, 1, 4, 2, 5]


def test_the_first_token_of_an_example_without_a_prompt_is_not_predicted() -> None:
    found = pack_batch([Encoded([], [5, 6, 7], False)])
    assert (found["predicting"].tolist(), found["targets"].tolist()) == ([0, 1], [6, 7])
    assert found["counts"].tolist() == [2]


def test_examples_of_like_length_are_a_group() -> None:
    lengths = [3, 20, 19, 5, 20, 20, 4, 20]
    found = pack_batch([Encoded([row], [1] * (n - 1), False) for row, n in enumerate(lengths)])
    assert found["groups"] == ((5, 20), (3, 5))
    assert len(found["slots"]) == 5 * 20 + 3 * 5
    # Losses keep the examples' own order.
    assert found["counts"].tolist() == [n - 1 for n in lengths]


def by_definition(batch: list[Encoded], share: bool) -> dict[str, list[int]]:
    """Return the nodes of a batch's prefix tree, token by token."""
    children: dict[tuple[int, int], int] = {}
    ids, depths, predicting, targets = [], [], [], []
    for row, item in enumerate(batch):
        node, tokens = (-1 if share else -1 - row), item.prompt + item.target
        for depth, token in enumerate(tokens):
            if depth >= max(len(item.prompt), 1):
                predicting.append(node)
                targets.append(token)
            node = children.setdefault((node, token), len(ids))
            if node == len(ids):
                ids.append(token)
                depths.append(depth)
    return {"input_ids": ids, "position_ids": depths, "predicting": predicting, "targets": targets}


def total(batch: list[Encoded]) -> int:
    return sum(len(row) for row in batch)


def random_batch(seed: int) -> list[Encoded]:
    """Return rows of few distinct tokens, so that many share a beginning; some are equal."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(int(random.integers(1, 24))):
        prompt, target = (random.integers(0, 3, random.integers(0, 9)).tolist() for _ in range(2))
        rows.append(Encoded(prompt, [*target, 300], False))
    return rows


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_packing_is_that_of_the_definition(seed: int, padded: bool, share: bool) -> None:
    batch = random_batch(seed)
    packed = pack_batch(batch, share, padded=padded)
    for name, expected in by_definition(batch, share).items():
        assert packed[name].flatten().tolist() == expected, name
    ids, slots, places = packed["input_ids"][0], packed["slots"], packed["places"]
    assert slots[places].tolist() == list(range(len(ids)))
    rows = sorted((r.prompt + r.target for r in batch), key=len, reverse=padded)
    if not padded:
        rows = [r.prompt + r.target for r in batch]
    start = 0
    for count, longest in packed["groups"]:
        for row in rows[:count]:
            assert ids[slots[start : start + len(row)]].tolist() == row
            start += longest
        rows = rows[count:]
    assert (rows, start) == ([], len(slots))
    shared = packed["shared"].tolist()
    ends = [*packed["offsets"].tolist(), len(packed["uses"])]
    for node, (first, end) in zip(shared, pairwise(ends), strict=True):
        uses = packed["uses"][first:end].tolist()
        assert len(uses) > 1
        assert slots[uses].tolist() == [node] * len(uses)
    copies = torch.bincount(slots, minlength=len(ids)).sum() - (len(slots) - total(batch))
    assert copies == len(ids) - len(shared) + len(packed["uses"])


def test_places_without_padding_are_the_examples_one_after_another() -> None:
    batch = [Encoded([1, 2], [3], False), Encoded([1, 2, 3, 4], [5], False)]
    found = pack_batch(batch, padded=False)
    assert found["groups"] == ((1, 3), (1, 5))
    assert found["starts"].tolist() == [0, 3, 8]
    assert found["starts"].dtype == torch.int32
    assert found["slots"].tolist() == [0, 1, 2, 0, 1, 2, 3, 4]


def test_prefixes_that_save_too_little_are_not_shared() -> None:
    batch = [Encoded([1, 2], [3], False), Encoded([1, 9, 3, 4], [5], False)]
    assert pack_batch(batch, least_shared=0.1)["input_ids"].shape == (1, 7)  # 1 of 8 saved
    assert pack_batch(batch, least_shared=0.2)["input_ids"].shape == (1, 8)


def test_tokens_that_are_not_learned_are_read_but_not_targets() -> None:
    gaps = Encoded([1, 2], [3, 4, 5, 6], False, frozenset({1, 3}))
    found = pack_batch([gaps, Encoded([1, 2], [3, 4], False)])
    assert found["input_ids"].tolist() == [[1, 2, 3, 4, 5, 6]]
    assert found["predicting"].tolist() == [1, 3, 1, 2]
    assert found["targets"].tolist() == [3, 5, 3, 4]
    assert found["counts"].tolist() == [2, 2]
