"""The files of the bundled sets: what the generators give, in an order that any size may cut."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from shipped import examples

from lori_core.core.files.atomic import json_line
from lori_core.data.example import SPLITS, Example
from lori_core.data.sources import catalogue, made_sets, readers
from lori_core.data.text import comparison_key
from lori_core.pipeline import params_file
from tools.bundled_data import write

NAMES = ["nlu", "math", "code", "safety"]
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", NAMES)
def test_the_files_are_what_the_generators_give(name: str) -> None:
    made = "".join(write.lines(name)).encode()
    assert made == (ROOT / "lori_core" / "data" / "bundled" / f"{name}.jsonl").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_line_is_a_split_and_an_example(name: str) -> None:
    text = (made_sets.FOLDER / f"{name}.jsonl").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    rows = [json.loads(line) for line in text.split("\n")[:-1]]
    assert [row["split"] for row in rows] == [s for s in SPLITS for _ in range(write.SHIPPED[s])]
    for row in rows:
        assert list(row) == sorted(row)
        found = Example.from_row({k: v for k, v in row.items() if k != "split"}, name)
        assert found.row() == {"id": found.id, **{k: v for k, v in row.items() if k != "split"}}
        assert all(c == "\n" or c.isprintable() for c in found.prompt + found.target)


@pytest.mark.parametrize("name", NAMES)
def test_the_quickstart_gets_what_the_generator_gives_for_its_sizes(name: str) -> None:
    params = params_file.load(ROOT / "params.yaml")
    where, first = params.tasks[name].sources(f"tasks.{name}")[0]
    source = catalogue.resolve(first, where)
    assert source.name == name
    sizes, seed = params.tasks[name].sizes, params.lori.seed
    given = list(readers.READERS["bundled"](source, sizes, seed, where).rows)
    asked = {split: source.limit.get(split) or getattr(sizes, split) for split in SPLITS}  # type: ignore[call-overload]
    made = write.GENERATORS[name].generate(asked, seed)
    assert [(split, json_line(row.row())) for split, row in given] == [
        (split, json_line(row.row())) for split in SPLITS for row in made[split]
    ]


@pytest.mark.parametrize("name", NAMES)
def test_no_two_examples_ask_the_same(name: str) -> None:
    rows = [row for split in SPLITS for row in examples(name)[split]]
    assert len({" ".join(comparison_key(row.prompt).split()) for row in rows}) == len(rows)
    templates = [{row.template for row in examples(name)[split]} for split in SPLITS]
    assert len(set.union(*templates)) == sum(map(len, templates))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", NAMES)
def test_any_beginning_has_the_shares_of_the_generator(name: str, split: str) -> None:
    shares = write.GENERATORS[name].shares[split]
    counts: Counter[str] = Counter()
    first = write.FIRST[name][split]
    for place, row in enumerate(examples(name)[split], start=1):
        counts[row.answer if row.kind == "boolean" else row.kind] += 1
        off = max(abs(counts[kind] - place * share / 100) for kind, share in shares.items())
        # the first ones are in the generator's order, which is drawn
        assert off <= (1 if place >= first else 3 + 0.12 * first), (place, counts)
    assert set(counts) == set(shares)


def test_options_and_statements_are_balanced() -> None:
    for rows in examples("nlu").values():
        for count in (2, 3, 4):
            form = "/".join(f"answer{n + 1}" for n in range(count))
            places = Counter(r.answer for r in rows if r.prompt.endswith(f"Answer format: {form}"))
            assert len(places) == count
            assert max(places.values()) <= 1.6 * min(places.values())


def test_too_few_of_a_kind_are_refused() -> None:
    row = Example("?", "x", kind="a")
    assert write._mixed([row], {"a": [row], "b": [row]}, {"a": 50, "b": 50}, 3)[1:] == [row, row]
    with pytest.raises(ValueError, match="too few of the kind a for 4 examples; lower SHIPPED"):
        write._mixed([row], {"a": [], "b": [row, row]}, {"a": 50, "b": 50}, 4)
