from lori_core.data.batching import IGNORED, LengthBuckets, collate
from lori_core.data.prompts import Encoded


def test_every_example_comes_once_and_each_epoch_differs() -> None:
    lengths = [(7 * i) % 40 + 1 for i in range(101)]
    sampler = LengthBuckets(lengths, 8, seed=3)
    first = list(sampler)
    assert sorted(first) == list(range(101))
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert list(LengthBuckets(lengths, 8, seed=4)) != first


def test_batches_hold_examples_of_like_length() -> None:
    lengths = [(7 * i) % 40 + 1 for i in range(128)]
    order = list(LengthBuckets(lengths, 8, seed=3))
    padded = sum(8 * max(lengths[i] for i in order[s : s + 8]) for s in range(0, 128, 8))
    assert padded < 1.15 * sum(lengths)


def test_a_batch_is_padded_on_the_right_and_labels_targets_only() -> None:
    batch = collate([Encoded([1, 2], [3], False), Encoded([4], [5, 6, 7], False)], 9)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 9], [4, 5, 6, 7]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert batch["labels"].tolist() == [
        [IGNORED, IGNORED, 3, IGNORED],
        [IGNORED, 5, 6, 7],
    ]


def test_tokens_that_are_not_learned_have_no_label() -> None:
    batch = collate([Encoded([1], [2, 3, 4], False, frozenset({1})), Encoded([5], [6], False)], 9)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4], [5, 6, 9, 9]]
    assert batch["labels"].tolist() == [[IGNORED, 2, IGNORED, 4], [IGNORED, 6, IGNORED, IGNORED]]
