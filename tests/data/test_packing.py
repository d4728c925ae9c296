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


def test_tokens_that_are_not_learned_are_read_but_not_targets() -> None:
    gaps = Encoded([1, 2], [3, 4, 5, 6], False, frozenset({1, 3}))
    found = pack_batch([gaps, Encoded([1, 2], [3, 4], False)])
    assert found["input_ids"].tolist() == [[1, 2, 3, 4, 5, 6]]
    assert found["predicting"].tolist() == [1, 3, 1, 2]
    assert found["targets"].tolist() == [3, 5, 3, 4]
    assert found["counts"].tolist() == [2, 2]
