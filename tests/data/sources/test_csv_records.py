"""CSV files whose first row names the columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from lori_core.core.errors import DataError
from lori_core.data.sources.record_files import records


def written(folder: Path, content: bytes) -> Path:
    path = folder / "set.csv"
    path.write_bytes(content)
    return path


def test_records_have_the_line_that_they_begin_at(tmp_path: Path) -> None:
    path = written(tmp_path, b'\xef\xbb\xbfprompt, label\n"two\nlines, ""x""",safe\n\nb,\xc3\xa9\n')
    assert list(records(path)) == [
        (f"{path}:2", {"prompt": 'two\nlines, "x"', "label": "safe"}),
        (f"{path}:5", {"prompt": "b", "label": "é"}),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no record"),
        (b"a,b\n", "no record; expected a row of column names, then records"),
        (b"a,a\n1,2\n", ":1: the first row has to name each column once, got a, a"),
        (b"a,\n1,2\n", ":1: the first row has to name each column once"),
        (b"a,b\n1,2\n1\n", r":3: has 1 columns, expected 2 \(a, b\)"),
        (b'a,b\n1,"2\n', ":2: not valid CSV"),
        (b"a,b\n1,\xff\n", r"not UTF-8 text \(byte 6\)"),
    ],
)
def test_what_is_no_table_is_refused_by_line(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(records(written(tmp_path, content)))
