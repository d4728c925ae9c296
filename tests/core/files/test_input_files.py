import os
from pathlib import Path

import pytest

from lori_core.core.errors import DataError, InputError
from lori_core.core.files.input_files import read_bytes, reading


def test_a_file_and_a_link_to_one_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("a")
    assert read_bytes(tmp_path / "a") == read_bytes(tmp_path / "link", 3) == b"abc"
    with reading(tmp_path / "a") as file:
        assert file.read(2) == b"ab"


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "nowhere").symlink_to("gone")
    for name, said in {
        "": "is a folder, not a file",
        "pipe": "is a pipe, not a file",
        "loop": "cannot be read .Too many levels of symbolic links",
        "zero": "is a device, not a file",
        "nowhere": "no such file",
        "gone": "no such file",
        "\0": "cannot be read",
        "x" * 5000: "cannot be read .File name too long",
    }.items():
        with pytest.raises(InputError, match=said):
            read_bytes(tmp_path / name)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abcd")
    with pytest.raises(DataError, match="a: has 4 bytes; at most 3 are read here"):
        read_bytes(tmp_path / "a", 3, DataError)
