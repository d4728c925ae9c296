"""Files of each format, compressed or not, and how their records are divided and selected."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from data.sources.test_pulling import local, params, read

from lori_core.core.errors import DataError, InputError, LoriError
from lori_core.data.sources import pulling
from lori_core.data.sources.record_files import records

ROWS = [
    {"prompt": 'Say "hi",\nplease.', "target": "hi"},
    {"prompt": "Zähle bis 3.", "target": "1\t2 3"},
    {"prompt": "007", "target": "NA"},
]
MARK = b"\xef\xbb\xbf"


def csv_text(delimiter: str) -> bytes:
    import csv
    import io

    text = io.StringIO()
    writer = csv.DictWriter(text, ["prompt", "target"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink, row_group_size=2)
    return sink.getvalue().to_pybytes()


def arrow(stream: bool) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(ROWS)
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with make(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
CONTENT: dict[str, bytes] = {
    "a.csv": csv_text(","),
    "b.csv": MARK + csv_text(","),
    "a.tsv": csv_text("\t"),
    "b.tsv": MARK + csv_text("\t"),
    "a.jsonl": LINES,
    "b.jsonl": MARK + LINES,
    "lines.json": MARK + LINES,
    "a.json": json.dumps(ROWS).encode(),
    "b.json": MARK + json.dumps({"about": "x", "data": ROWS}, indent=1).encode(),
    "a.parquet": parquet(),
    "a.arrow": arrow(stream=False),
    "b.arrow": arrow(stream=True),
}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
}


def zst_frames(content: bytes) -> bytes:
    half = len(content) // 2
    return zstandard.compress(content[:half]) + zstandard.compress(content[half:])


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("name", CONTENT)
def test_each_format_gives_the_same_records(name: str, packed: str, tmp_path: Path) -> None:
    path = tmp_path / (name + packed)
    path.write_bytes(PACKED[packed](CONTENT[name]))
    assert [record for _, record in records(path)] == ROWS


def test_a_record_is_named_by_its_line_or_row(tmp_path: Path) -> None:
    for name, places in {
        "b.csv.gz": (":2", ":4", ":5"),
        "b.jsonl.zst": (":1", ":2", ":3"),
        "a.parquet": (": row 1", ": row 2", ": row 3"),
    }.items():
        path = tmp_path / name
        plain = name.removesuffix(".gz").removesuffix(".zst")
        path.write_bytes(PACKED[name.removeprefix(plain)](CONTENT[plain]))
        assert [place for place, _ in records(path)] == [f"{path}{end}" for end in places]


def test_a_file_of_several_frames_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zst_frames(LINES))
    assert [record for _, record in records(path)] == ROWS
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(LINES[:9]) + gzip.compress(LINES[9:]))
    assert [record for _, record in records(path)] == ROWS


def test_lines_that_end_in_carriage_returns_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.csv"
    path.write_bytes(b'a,b\r1,"x\ry"\r2,z\r')
    assert [record for _, record in records(path)] == [
        {"a": "1", "b": "x\ry"},
        {"a": "2", "b": "z"},
    ]
    path.write_bytes(b'a,b\r\n1,"x\r\ny"\r\n2,z')
    assert list(records(path)) == [
        (f"{path}:2", {"a": "1", "b": "x\r\ny"}), (f"{path}:4", {"a": "2", "b": "z"}),
    ]  # fmt: skip


def test_a_long_field_is_read(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text("a\n" + "x" * 300_000 + "\n")
    assert [len(record["a"]) for _, record in records(path)] == [300_000]


BROKEN = {
    "cut.jsonl.gz": (gzip.compress(LINES)[:-9], "not a complete gzip file"),
    "cut.csv.zst": (zstandard.compress(csv_text(","))[:-3], "not a complete Zstandard file"),
    "plain.jsonl.gz": (LINES, "not a complete gzip file"),
    "plain.csv.zst": (csv_text(","), "not a complete Zstandard file"),
    "sum.jsonl.gz": (gzip.compress(LINES)[:-8] + b"\0" * 8, "not a complete gzip file"),
    "cut.parquet.gz": (gzip.compress(parquet())[:-9], "not a complete gzip file"),
    "cut.parquet": (parquet()[:-9], "not a Parquet file that can be read"),
    "text.parquet": (LINES, "not a Parquet file that can be read"),
    "cut.arrow": (arrow(stream=False)[:-9], "not a Arrow file that can be read"),
    "text.arrow": (LINES, "not a Arrow file that can be read"),
    "empty.parquet": (b"", "not a Parquet file that can be read"),
    "empty.jsonl.gz": (gzip.compress(b""), "the file is empty"),
    "empty.jsonl.zst": (b"", "the file is empty"),
    "empty.csv.gz": (gzip.compress(b""), "no record"),
    "latin.csv.gz": (gzip.compress(b"a,b\n1,\xff\n"), r"not UTF-8 text \(byte 6\)"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_by_name(name: str, tmp_path: Path) -> None:
    content, message = BROKEN[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: {message}") as error:
        list(records(path))
    assert "\n" not in str(error.value)


def rows(*numbers: int, **more: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"question {n}", "target": f"answer {n}", **more} for n in numbers]


def put(path: Path, content: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in content))


def pulled(folder: Path, source: dict[str, Any], **options: Any) -> dict[str, list[str]]:
    pulling.pull(params(source), folder / "data", **options)
    return {
        split: sorted(read(folder / "data", split)) for split in ("train", "validation", "test")
    }


def test_files_are_named_by_patterns(tmp_path: Path) -> None:
    put(tmp_path / "in" / "deep" / "a.jsonl", rows(1))
    put(tmp_path / "in" / "b.jsonl", rows(2))
    put(tmp_path / "in" / "test.jsonl", rows(3))
    files = {"train": ["**/a.jsonl", "b*"], "test": "test.jsonl"}
    got = pulled(tmp_path, local(tmp_path / "in", files=files))
    assert got["test"] == ["question 3"]
    assert sorted(got["train"] + got["validation"]) == ["question 1", "question 2"]
    source = local(tmp_path / "in" / "**" / "*.jsonl")
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    assert sorted(manifest["tasks"]["task"]["sources"][0]["sha256"]) == [
        "b.jsonl", "deep/a.jsonl", "test.jsonl",
    ]  # fmt: skip
    assert sorted(chain(*pulled(tmp_path, source).values())) == [f"question {n}" for n in (1, 2, 3)]


def test_a_folder_has_files_named_after_splits(tmp_path: Path) -> None:
    put(tmp_path / "in" / "train-00000-of-00002.jsonl", rows(1))
    put(tmp_path / "in" / "train-00001-of-00002.jsonl", rows(2))
    put(tmp_path / "in" / "dev.jsonl", rows(3))
    put(tmp_path / "in" / "test.jsonl", rows(4))
    put(tmp_path / "in" / "other.jsonl", rows(5))
    assert pulled(tmp_path, local(tmp_path / "in")) == {
        "train": ["question 1", "question 2"], "validation": ["question 3"], "test": ["question 4"],
    }  # fmt: skip
    put(tmp_path / "in" / "train.jsonl.gz", rows(1))
    with pytest.raises(
        InputError, match=r"has train files of several formats \(.jsonl, .jsonl.gz\)"
    ):
        pulled(tmp_path, local(tmp_path / "in"))


def test_shares_are_exact_seeded_and_taken_from_each_source(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.jsonl", rows(*range(50)))
    source = local(tmp_path / "in", split={"test": 0.2, "validation": 0.1})
    got = pulled(tmp_path, source)
    assert {split: len(prompts) for split, prompts in got.items()} == {
        "train": 35, "validation": 5, "test": 10,
    }  # fmt: skip
    assert pulled(tmp_path, source) == got
    many = sorted(chain(*got.values()))
    assert many == sorted(f"question {n}" for n in range(50))
    both = [source, "bundled-nlu"]
    manifest = pulling.pull(params(both, {"train": 9, "test": 9}), tmp_path / "both")
    assert manifest


def test_a_column_divides_the_records(tmp_path: Path) -> None:
    content = rows(1, part="train") + rows(2, part="Dev") + rows(3, part="test")
    put(tmp_path / "in.jsonl", content)
    assert pulled(tmp_path, local(tmp_path / "in.jsonl", split="part")) == {
        "train": ["question 1"], "validation": ["question 2"], "test": ["question 3"],
    }  # fmt: skip


def test_a_filter_keeps_records_by_nested_values(tmp_path: Path) -> None:
    content = [
        *rows(1, meta={"lang": "en", "score": 5}),
        *rows(2, meta={"lang": "en", "score": 2}),
        *rows(3, meta={"lang": "de", "score": 5}),
        *rows(4, meta={"lang": "fr", "score": "4.5"}),
        *rows(5, meta={"lang": "en", "score": 4}),
    ]
    put(tmp_path / "in.jsonl", content)
    rule = {"meta.lang": ["en", "fr"], "meta.score": {"at_least": 4}}
    got = pulled(tmp_path, local(tmp_path / "in.jsonl", filter=rule))
    assert sorted(chain(*got.values())) == ["question 1", "question 4", "question 5"]


@pytest.mark.parametrize(
    ("value", "condition", "fits"),
    [
        (True, True, True), ("True", True, True), ("false", True, False), (1, True, False),
        (True, 1, False), (3, 3.0, True), ("3", 3, True), ("3.0", "3", False), (None, None, True),
        ("", None, True), (0, None, False), (2, {"at_least": 1, "at_most": 2}, True),
        (2.1, {"at_most": 2}, False), ("x", "x", True), ("x", ["y"], False),
    ],
)  # fmt: skip
def test_values_are_compared_by_type_and_text_may_write_them(
    value: Any, condition: Any, fits: bool, tmp_path: Path
) -> None:
    put(tmp_path / "in.jsonl", rows(1, 2, 3, a=value))
    source = local(tmp_path / "in.jsonl", filter={"a": condition})
    if fits:
        assert sum(map(len, pulled(tmp_path, source).values())) == 3
    else:
        with pytest.raises(DataError, match=r"source\.filter: none of the 3 records fits"):
            pulled(tmp_path, source)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"filter": {"meta.lang": "en"}}, r"in.jsonl:2: field 'meta.lang' for 'filter' is missing"),
        ({"filter": {"meta.n": {"at_least": 1}}}, r"in.jsonl:1: field 'meta.n' .* need a number"),
        ({"filter": {"{meta}": 1}}, r"source\.filter: '\{meta\}': name a field, without braces"),
        ({"filter": {"a..b": 1}}, r"source\.filter: 'a\.\.b'"),
        ({"split": "part"}, r"in.jsonl:1: field 'part' for 'split' is missing"),
        ({"split": "prompt"}, r"in.jsonl:1: field 'prompt' for 'split' is 'question 1'; allowed"),
        ({"split": "{part}"}, r"source\.split: '\{part\}': name a field"),
    ],
)
def test_what_is_missing_is_named_by_field_and_row(
    more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    put(tmp_path / "in.jsonl", rows(1, meta={"lang": "en", "n": "x"}) + rows(2, meta={}))
    with pytest.raises(InputError, match=message):
        pulled(tmp_path, local(tmp_path / "in.jsonl", **more))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"split": {"test": 0.5, "validation": 0.5}}, r"source\.split: .* add up to 1 or more"),
        ({"split": {"test": 0}}, r"source\.split\.test: .* greater than 0"),
        ({"split": {"train": 0.5}}, r"source\.split"),
        ({"split": {}}, r"source\.split"),
        ({"split": 3}, r"source\.split"),
        ({"filter": {"a": {"least": 1}}}, r"source\.filter\.a\.least: unknown key"),
        ({"filter": {"a": [[1]]}}, r"source\.filter\.a\.0: \[1\]: a value is a text"),
        ({"kind": "bundled", "name": "nlu", "split": "a"}, r"split: only local and hub sources"),
    ],
)
def test_rules_are_checked(more: dict[str, Any], message: str, tmp_path: Path) -> None:
    put(tmp_path / "in.jsonl", rows(1))
    source = local(tmp_path / "in.jsonl") | more
    if more.get("kind") == "bundled":
        del source["path"]
    with pytest.raises(LoriError, match=message):
        pulled(tmp_path, source)


def test_rules_and_files_must_not_contradict(tmp_path: Path) -> None:
    put(tmp_path / "in" / "train.jsonl", rows(1, 2, 3))
    put(tmp_path / "in" / "test.jsonl", rows(4))
    with pytest.raises(InputError, match=r"source\.split: the source has files of other splits"):
        pulled(tmp_path, local(tmp_path / "in", split={"test": 0.5}))
    files = {"train": "*.jsonl", "test": "test.jsonl"}
    with pytest.raises(InputError, match=r"test.jsonl is named for train and for test"):
        pulled(tmp_path, local(tmp_path / "in", files=files))
    with pytest.raises(DataError, match=r"\*.csv: no file matches"):
        pulled(tmp_path, local(tmp_path / "in" / "*.csv"))
    with pytest.raises(DataError, match=r"source\.files: .*\*.csv: no such file"):
        pulled(tmp_path, local(tmp_path / "in", files={"train": "*.csv"}))


def test_a_source_with_a_test_split_alone_is_pulled_for_evaluation(tmp_path: Path) -> None:
    put(tmp_path / "in" / "test.jsonl", rows(1, 2))
    source = local(tmp_path / "in")
    with pytest.raises(DataError, match="no train examples in any of its sources; a task without"):
        pulled(tmp_path, source)
    lines = pulling.pull(params(source), tmp_path / "data", trained=False)
    assert lines == [
        "task: 0 train, 0 validation, 2 test (0 duplicates, 0 leaks removed); without train "
        "examples, so for lori evaluate only"
    ]
    assert len(read(tmp_path / "data", "test")) == 2


@pytest.mark.parametrize("place", ["nlu", ""])
@pytest.mark.parametrize(
    ("source", "folder"), [("social-i-qa-files", "social_i_qa"), ("arc-easy-files", "ARC-Easy")]
)
def test_folders_of_llm_adapters_are_found_under_their_own_names(
    source: str, folder: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORI_DATASETS", str(tmp_path))
    row = {"instruction": "Is it? Answer1: a", "output": "the correct answer is answer1"}
    path = tmp_path / place / folder / "test.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps([row | {"answer": "answer1"}]))
    assert len(pulling.read_source(source, "test", None, 1)) == 1
