"""Files of examples, and the templates that fill prompts and targets from their records."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bad_inputs.cases import Content, fifo, folder, link, put, sparse
from bad_inputs.commands import Commands

SOURCE = "source: bundled-nlu"
GOOD = '{"q": "What?", "a": "This."}\n'
FIELDS = {"prompt": "q", "target": "a"}


@dataclass(frozen=True)
class Source:
    """A local source that must be refused."""

    id: str
    content: Content
    name: str = "rows.jsonl"
    fields: dict[str, str] = field(default_factory=lambda: dict(FIELDS))
    says: tuple[str, ...] = ()
    path: str = ""


def parquet(columns: dict[str, list[str]]) -> bytes:
    """Return a Parquet file of some columns."""
    import pyarrow as pa
    from pyarrow.parquet import write_table

    sink = pa.BufferOutputStream()
    write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


def row(text: str) -> str:
    return GOOD + text + "\n"


LINES = {
    "list": "[1]",
    "number": "5",
    "null": "null",
    "text": '"x"',
    "open": '{"q": "x"',
    "no target": '{"q": "x"}',
    "object": '{"q": {"a": 1}, "a": "b"}',
    "list field": '{"q": ["x"], "a": "b"}',
    "truth": '{"q": true, "a": "b"}',
    "nothing": '{"q": null, "a": "b"}',
    "blank": '{"q": " \\u200b ", "a": "b"}',
    "half a pair": '{"q": "x\\ud83d", "a": "b"}',
    "null character": '{"q": "x\\u0000", "a": "b"}',
    "NaN": '{"q": NaN, "a": "b"}',
    "infinity": '{"q": 1e999, "a": "b"}',
    "digits": '{"q": ' + "9" * 6000 + ', "a": "b"}',
    "nested": '{"q": ' + "[" * 5000 + "]" * 5000 + ', "a": "b"}',
    "nested without end": "[" * 1_000_000,
    "twice": '{"q": "x", "q": "y", "a": "b"}',
    "control": '{"q": "x\ty", "a": "b"}',
    "single quotes": "{'q': 'x', 'a': 'b'}",
}
ROWS = [Source(f"line {n}", row(text), says=("rows.jsonl:2:",)) for n, text in LINES.items()] + [
    Source(f"record {n}", f"[{GOOD.strip()}, {text}]", name="rows.json", says=("rows.json:",))
    for n, text in LINES.items()
]
FILES = [
    Source("latin", b'{"q": "\xe9", "a": "b"}\n', says=("rows.jsonl: not UTF-8 text (byte 7)",)),
    Source("utf-16", GOOD.encode("utf-16"), says=("not UTF-8",)),
    Source("utf-16 without mark", GOOD.encode("utf-16-le"), says=("rows.jsonl",)),
    Source("mark", b"\xef\xbb\xbf" + row("5").encode(), says=("rows.jsonl:2",)),
    Source("null bytes", GOOD.encode() + b"\0" * 100, says=("rows.jsonl:2",)),
    Source("empty", "", says=("rows.jsonl", "empty")),
    Source("blank", " \n\n", says=("rows.jsonl", "empty")),
    Source("empty json", "", name="rows.json", says=("rows.json",)),
    Source("empty list", "[]", name="rows.json", says=("rows.json", "not empty")),
    Source("no list", '{"a": 1}', name="rows.json", says=("rows.json",)),
    Source("a number", "5", name="rows.json", says=("rows.json",)),
    Source("a long line", '{"q": "' + "x" * (20 << 20) + '"}', says=("rows.jsonl:1", "longer")),
    Source("gzip", gzip.compress(GOOD.encode()), says=("not UTF-8",)),
    Source("gz", gzip.compress(b"0" * (50 << 20)), name="rows.json.gz", says=("rows.json.gz",)),
    Source(
        "cut gz",
        gzip.compress(GOOD.encode() * 99)[:-9],
        name="rows.jsonl.gz",
        says=("rows.jsonl.gz", "not a complete gzip file"),
    ),
    Source(
        "no zst", GOOD, name="rows.jsonl.zst", says=("rows.jsonl.zst", "complete Zstandard file")
    ),
    Source(
        "columns",
        parquet({"x": ["1"]}),
        name="rows.parquet",
        says=("rows.parquet: row 1", "field 'q' for 'prompt' is missing", "has: x"),
    ),
    Source("tsv", "q\ta\nx\n", name="rows.tsv", says=("rows.tsv:2", "1 columns, expected 2")),
    Source("no match", GOOD, path="*.csv", says=("*.csv", "no file matches")),
    Source("parquet", b"PAR1" + b"\x15\0\x15\xff" * 50 + b"PAR1", name="rows.parquet"),
    Source("csv", "q,a\nx\n", name="rows.csv", says=("rows.csv:2", "1 columns, expected 2")),
    Source("zeros", sparse(50 << 20), says=("rows.jsonl:1",)),
    Source("zeros json", sparse(12 << 20), name="rows.json", says=("rows.json",)),
    Source("pipe", fifo, says=("rows.jsonl",)),
    Source("pipe json", fifo, name="rows.json", says=("rows.json",)),
    Source("folder", folder, says=("rows.jsonl",)),
    Source("device", link("/dev/zero"), says=("rows.jsonl",)),
    Source("loop", link("rows.jsonl"), says=("rows.jsonl",)),
    Source("nowhere", link("nothing"), says=("rows.jsonl",)),
    Source("missing", GOOD, path="other.jsonl", says=("other.jsonl", "no such file")),
    Source("no variable", GOOD, path="$NOTHING_OF_THAT_NAME/x", says=("NOTHING_OF_THAT_NAME",)),
]
TEMPLATES = [
    "{q:>2000000000}", "{q:>9}", "{q!r}", "{q!s}", "{q.__class__}", "{q.__class__.__mro__}", "{}",
    "{0}", "{q[-1]}", "{q", "q}", "{q}{", "{q[}", "{q[0]", "{q..a}", "{q[0]x}", "{{q}", "{q:{a}}",
    "{nothing}", "{q.x}", "{q[0]}", "{q[99999999999]}", "{q!x}", "{ }", "{q.}", "", "{q[]}",
    "{" * 5000, "{q}" + "{" * 9, "{q" + "[0]" * 5000 + "}", "{q\\n}", "nothing",
]  # fmt: skip
FILLED = [
    Source(f"template {n}", GOOD, fields={"prompt": template, "target": "a"})
    for n, template in enumerate(TEMPLATES)
]


@pytest.mark.parametrize("case", [*ROWS, *FILES, *FILLED], ids=lambda case: case.id)
def test_bad_examples_are_one_line(case: Source, lori: Commands, project: Path) -> None:
    import json

    put(project / case.name, case.content)
    source = {"kind": "local", "path": case.path or case.name, "fields": case.fields}
    params = (project / "params.yaml").read_text()
    assert SOURCE in params
    (project / "params.yaml").write_text(params.replace(SOURCE, f"source: {json.dumps(source)}"))
    line = lori.run(["pull"], project, watched=project.parent).refusal()
    for words in case.says:
        assert words in line


PULLED = {
    "object": '{"prompt": "a", "target": {}, "scorer": "none"}',
    "list": "[]",
    "half a pair": '{"prompt": "\\ud800", "target": "b"}',
    "null character": '{"prompt": "a\\u0000", "target": "b"}',
    "scorer": '{"prompt": "a", "target": "b", "scorer": "x"}',
    "unknown key": '{"prompt": "a", "target": "b", "x": 1}',
    "check": '{"prompt": "a", "target": "b", "check": [1]}',
    "broken": "{",
    "latin": None,
}


@pytest.mark.parametrize("name", PULLED)
def test_pulled_examples_that_were_damaged_are_one_line(
    name: str, lori: Commands, project: Path
) -> None:
    text = PULLED[name]
    put(project / "data/math/test.jsonl", b"\xff\n" if text is None else text + "\n")
    argv = ["evaluate", "--tasks", "math", "-o", "out"]
    line = lori.run(argv, project, watched=project.parent).refusal()
    assert "data/math/test.jsonl" in line


def test_good_examples_are_pulled(lori: Commands, project: Path) -> None:
    put(project / "rows.jsonl", "".join(GOOD.replace("What", f"What {n}") for n in range(20)))
    params = (project / "params.yaml").read_text()
    source = "source: {kind: local, path: rows.jsonl, fields: {prompt: q, target: a}}"
    (project / "params.yaml").write_text(params.replace(SOURCE, source))
    outcome = lori.run(["pull"], project)
    assert outcome.code == 0, outcome.err
