import math
import re
from pathlib import Path

import pytest

from lori_core.core.errors import DataError, InputError, LoriError
from lori_core.core.files.atomic import (
    canonical_json,
    digest,
    digest_each,
    each_jsonl,
    put_back,
    read_json,
    read_jsonl,
    replaced_folder,
    write_json,
    write_jsonl,
    write_text,
)
from lori_core.core.tracking import FileTracker


def test_equal_values_have_equal_digests() -> None:
    assert canonical_json({"b": [1, 2.5], "a": "é"}) == '{"a":"é","b":[1,2.5]}'
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


@pytest.mark.parametrize("values", [[], ["a"], ["a", {"b": "é"}, 3]])
def test_a_digest_of_values_one_by_one_is_that_of_their_list(values: list[object]) -> None:
    assert digest_each(iter(values)) == digest(values)


def test_rows_are_read_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"i": 1}\n\n{"i": 2}\nbroken\n')
    rows = each_jsonl(tmp_path / "x.jsonl")
    assert (next(rows), next(rows)) == ((1, {"i": 1}), (3, {"i": 2}))
    with pytest.raises(DataError, match=r"x.jsonl:4: not valid JSON"):
        next(rows)


def test_text_that_is_not_utf8_is_named_with_its_byte(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"i": 1}\n{"i": "\xff"}\n')
    with pytest.raises(DataError, match=r"x.jsonl: not UTF-8 text \(byte 16\)"):
        read_jsonl(tmp_path / "x.jsonl")


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("[" * 100_000, "lists and objects are nested 100000 deep, too deep to be read"),
        ('{"a":' * 50_000 + "1" + "}" * 50_000, "are nested 50000 deep"),
        ('{"a]": ["\\"' + "[" * 9 + '", ' + "[" * 9_999 + "]" * 9_999 + "]}", "nested 10001 deep"),
        ('{"a": 0.' + "1" * 6_000 + ', "b": -' + "1" * 6_000 + "}", "more than 4300 digits"),
        ('{"a": 1, "b": }', r"not valid JSON (Expecting value)"),
    ],
)
def test_json_that_is_too_much_for_python_is_one_line(tmp_path: Path, row: str, fault: str) -> None:
    (tmp_path / "x.jsonl").write_text(f"1\n\n{row}\n[]\n")
    with pytest.raises(DataError, match=rf"x.jsonl:3: .*{re.escape(fault)}"):
        read_jsonl(tmp_path / "x.jsonl")
    (tmp_path / "x.json").write_text(f"[1,\n[[]],\n{row},\n[[]]]")
    fault = fault.replace("10001", "10002").replace("100000", "100003").replace("50000", "50001")
    with pytest.raises(InputError, match=rf"x.json:(3|4): .*{re.escape(fault)}"):
        read_json(tmp_path / "x.json")


def test_what_is_written_is_read_back_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "x.json", {"k": [1]})
    write_jsonl(tmp_path / "a" / "x.jsonl", [{"i": 1}, {"i": 2}])
    assert read_json(tmp_path / "a" / "x.json") == {"k": [1]}
    assert read_jsonl(tmp_path / "a" / "x.jsonl") == [{"i": 1}, {"i": 2}]
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"x.json", "x.jsonl"}


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with replaced_folder(target) as work:
        (work / "one").write_text("1")
    with pytest.raises(ValueError, match="stop"), replaced_folder(target) as work:
        (work / "two").write_text("2")
        raise ValueError("stop")
    assert [path.name for path in target.iterdir()] == ["one"]
    with replaced_folder(target) as work:
        (work / "three").write_text("3")
    assert [path.name for path in target.iterdir()] == ["three"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_does_not_take_the_place_of_a_file_or_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    for name in ("file", "link"):
        with (
            pytest.raises(InputError, match="is a file or a link"),
            replaced_folder(tmp_path / name),
        ):
            pass
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder", "link"}


def test_a_folder_comes_back_where_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "one").write_text("1")

    def refuse(*_: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="no"), replaced_folder(tmp_path / "out"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    monkeypatch.undo()
    (tmp_path / "out").rename(tmp_path / ".out.lori.old")  # killed between two renames
    with pytest.raises(ValueError, match="stop"), replaced_folder(tmp_path / "out"):
        raise ValueError("stop")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["one"]


def test_what_a_killed_process_left_is_gone_after_the_next_write(tmp_path: Path) -> None:
    (tmp_path / ".out.lori.new").mkdir()
    (tmp_path / ".out.lori.new" / "half").write_text("x")
    (tmp_path / ".x.json.lori.new").write_text("{")
    with replaced_folder(tmp_path / "out") as work:
        (work / "one").write_text("1")
    write_json(tmp_path / "x.json", {})
    assert {path.name for path in tmp_path.iterdir()} == {"out", "x.json"}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["one"]


def test_what_others_keep_beside_an_output_stays(tmp_path: Path) -> None:
    kept = [".out.new/precious.txt", ".out.old/precious.txt", ".x.json.new", ".x.json.old"]
    for name in kept:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    for _ in range(2):
        with replaced_folder(tmp_path / "out") as work:
            (work / "one").write_text("1")
        write_json(tmp_path / "x.json", {})
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")} == {
        *(name.split("/")[0] for name in kept),
        *kept,
        "x.json",
    }
    assert {(tmp_path / name).read_text() for name in kept} == {"mine"}


@pytest.mark.parametrize("end", ["new", "old"])
@pytest.mark.parametrize("link", [False, True])
def test_what_is_no_folder_beside_an_output_is_refused(
    tmp_path: Path, end: str, link: bool
) -> None:
    place = tmp_path / f".out.lori.{end}"
    if link:
        (tmp_path / "mine").mkdir()
        place.symlink_to("mine")
    else:
        place.write_text("mine")
    with (
        pytest.raises(InputError, match=rf"\.out\.lori\.{end}: is a file or a link"),
        replaced_folder(tmp_path / "out"),
    ):
        pass
    assert place.is_symlink() == link
    assert place.exists()


def test_what_is_no_file_beside_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".x.json.lori.new").symlink_to("mine")
    (tmp_path / ".y.json.lori.new").mkdir()
    for name in ("x.json", "y.json"):
        with pytest.raises(InputError, match=rf"\.{name}\.lori\.new: is no file"):
            write_json(tmp_path / name, {})
    assert (tmp_path / "mine").read_text() == "mine"


def test_broken_files_are_named_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{\n"a": }')
    with pytest.raises(InputError, match=r"x.json:2: not valid JSON"):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.jsonl").write_bytes(b'{"a": 1}\n{"a"\n')
    with pytest.raises(DataError, match=r"x.jsonl:2: not valid JSON"):
        read_jsonl(tmp_path / "x.jsonl")
    (tmp_path / "x.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not UTF-8"):
        read_jsonl(tmp_path / "x.jsonl")


def test_files_are_put_back_as_they_were(tmp_path: Path) -> None:
    there, absent = tmp_path / "there", tmp_path / "folder" / "absent"
    there.write_bytes(b"\xff before")
    with pytest.raises(ZeroDivisionError), put_back((there, absent)):
        there.unlink()
        write_text(absent, "made")
        raise ZeroDivisionError
    assert there.read_bytes() == b"\xff before"
    assert list(tmp_path.iterdir()) == [there]
    with put_back((absent,)):
        write_text(absent, "made")
        write_text(tmp_path / "folder" / "other", "somebody else's")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["other"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"metrics": {"loss": [1.0, math.nan]}}, r"metrics\.loss\[1\] is nan, which cannot be"),
        ({"scores": ({"a": -math.inf},)}, r"scores\[0\]\.a is -inf"),
        (math.inf, r"(the value|values\.x) is inf"),
    ],
)
def test_json_is_never_written_with_what_json_does_not_have(
    tmp_path: Path, value: object, message: str
) -> None:
    write_json(tmp_path / "x.json", {"a": 1})
    for write in (
        lambda: write_json(tmp_path / "x.json", value),
        lambda: write_jsonl(tmp_path / "x.jsonl", [1, value]),
        lambda: digest(value),
        lambda: FileTracker(tmp_path / "rows").tags({"x": value}),  # type: ignore[dict-item]
    ):
        with pytest.raises(LoriError, match=message):
            write()
    assert read_json(tmp_path / "x.json") == {"a": 1}
    assert not (tmp_path / "x.jsonl").exists()


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_json_with_what_json_does_not_have_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(f'{{"a": {text}}}')
    with pytest.raises(InputError, match=rf"x\.json:1: not valid JSON \({text} is no number"):
        read_json(tmp_path / "x.json")


def test_rows_with_what_json_does_not_have_are_named_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n{"a": NaN}\n')
    with pytest.raises(DataError, match=r"x\.jsonl:2: not valid JSON \(NaN is no number"):
        read_jsonl(tmp_path / "x.jsonl")
