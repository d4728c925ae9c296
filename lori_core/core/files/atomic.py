"""Reading and writing files so that nothing is ever left half-written."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lori_core.core import faults
from lori_core.core.errors import DataError, InputError, LoriError, shown
from lori_core.core.files import input_files, json_input


def dumps(value: Any, **options: Any) -> str:
    """Return `json.dumps` of a value; NaN and infinity, which JSON does not have, are refused.

    Raises:
        LoriError: naming the place of the number.
    """
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:
        for place, number in _not_finite(value, ""):
            raise LoriError(
                f"{place or 'the value'} is {number}, which cannot be written as JSON: it must be "
                "a finite number"
            ) from None
        raise


def _not_finite(value: Any, place: str) -> Iterator[tuple[str, float]]:
    """Yield the places, as `metrics.loss`, of numbers that are not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        yield place, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _not_finite(inner, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _not_finite(inner, f"{place}[{number}]")


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no spaces: equal values give equal text."""
    return dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """Return the SHA-256 (hex) of a JSON-serialisable value in canonical form."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def digest_each(values: Iterable[Any]) -> str:
    """Return what `digest` makes of the list of some values, one in memory at a time."""
    sha = hashlib.sha256(b"[")
    for number, value in enumerate(values):
        sha.update((("," if number else "") + canonical_json(value)).encode())
    sha.update(b"]")
    return sha.hexdigest()


def checksum_fits(content: Mapping[str, Any]) -> bool:
    """Say whether `checksum` is the digest of all else in a JSON object."""
    rest = {name: value for name, value in content.items() if name != "checksum"}
    return digest(rest) == content.get("checksum")


def sha256_file(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes."""
    with input_files.reading(path) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


#: Stands in a file for its own SHA-256 while that is computed.
NO_DIGITS = "0" * 64
#: A file's seal lies within this many bytes of its beginning.
_SEAL_WITHIN = 1 << 20


def seal(path: Path) -> None:
    """Write a file's SHA-256 over the first 64 zeros in it, with which it was computed."""
    digits = _blank_sha256(path, NO_DIGITS)
    with path.open("r+b") as file:
        place = file.read(_SEAL_WITHIN).index(NO_DIGITS.encode())
        file.seek(place)
        file.write(digits.encode())


def is_sealed(path: Path, digits: str) -> bool:
    """Say whether a file is what was sealed: `digits` is its SHA-256, taken with them as zeros."""
    return len(digits) == len(NO_DIGITS) and _blank_sha256(path, digits) == digits


def _blank_sha256(path: Path, digits: str) -> str:
    with input_files.reading(path) as file:
        head = file.read(_SEAL_WITHIN)
        sha = hashlib.sha256(head.replace(digits.encode(), NO_DIGITS.encode(), 1))
        while chunk := file.read(_SEAL_WITHIN):
            sha.update(chunk)
    return sha.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write `text` beside `path`, then rename it into place."""
    with replaced_file(path) as work:
        work.write_text(text, encoding="utf-8")


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield the name of a file beside `path`; on success what was written there takes its place.

    Raises:
        InputError: something that is no file has the name beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # One name for each path: what a killed process left is written over by the next.
    work, _ = beside(path)
    if work.is_symlink() or (work.exists() and not work.is_file()):
        raise InputError(f"{work}: is no file; one is written there first: move it away")
    try:
        with faults.naming(path):
            yield work
        work.replace(path)
    except BaseException:
        work.unlink(missing_ok=True)
        raise


def json_text(value: Any) -> str:
    """Return indented JSON with sorted keys and a line's end."""
    return dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, atomically."""
    write_text(path, json_text(value))


def read_json(path: Path, most: int = input_files.WHOLE_FILE) -> Any:
    """Read a JSON file of at most so many bytes.

    Raises:
        InputError: naming the file, and the line where there is one: it is missing, not a file,
            too large, not UTF-8, or not JSON within the limits of `json_input`.
    """
    content = input_files.read_bytes(path, most)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    try:
        value = json_input.loads(text)
        json_input.check_text(text, value)
    except json_input.JSONError as error:
        raise InputError(f"{path}:{error.line}: {error}") from None
    return value


def read_object(path: Path, most: int = input_files.WHOLE_FILE) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        InputError: as `read_json`, or for anything but an object.
    """
    said = read_json(path, most)
    if not isinstance(said, dict):
        raise InputError(f"{path}: holds {shown(said)}; a JSON object is expected")
    return said


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines, each with its end, atomically and one in memory at a time."""
    with replaced_file(path) as work, work.open("w", encoding="utf-8") as file:
        file.writelines(lines)


def json_line(value: Any) -> str:
    """Return a value as one line of a JSON-lines file."""
    return dumps(value, ensure_ascii=False) + "\n"


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON value a line, atomically."""
    write_lines(path, map(json_line, rows))


def read_jsonl(path: Path) -> list[Any]:
    """Read a JSON-lines file; an empty file or a broken line is a `DataError` with its number."""
    return [row for _, row in each_jsonl(path)]


#: The most bytes of one line of a JSON-lines file.
_LONGEST_LINE = 16 << 20


def each_jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line, row) of a JSON-lines file, one in memory at a time; errors as `read_jsonl`."""
    found = False
    place = 0
    with input_files.reading(path, DataError) as lines:
        pieces = iter(lambda: lines.readline(_LONGEST_LINE + 1), b"")
        for number, line in enumerate(pieces, start=1):
            if len(line) > _LONGEST_LINE:
                raise DataError(
                    f"{path}:{number}: the line is longer than {_LONGEST_LINE:,} bytes; write one "
                    "JSON object a line"
                )
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}: not UTF-8 text (byte {place + error.start}); save it as UTF-8"
                ) from None
            place += len(line)
            if text.strip():
                found = True
                yield number, _row(text, f"{path}:{number}")
    if not found:
        raise DataError(f"{path}: the file is empty; at least one line of JSON is needed")


def _row(text: str, where: str) -> Any:
    try:
        return json_input.loads(text)
    except json_input.JSONError as error:
        raise DataError(f"{where}: {error}") from None


@contextmanager
def put_back(paths: Iterable[Path]) -> Iterator[None]:
    """Leave files, and whether they and their folders are there, as they were before."""
    before = {path: path.read_bytes() if path.is_file() else None for path in paths}
    folders = [path.parent for path in before if not path.parent.is_dir()]
    try:
        yield
    finally:
        for path, content in before.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                with replaced_file(path) as work:
                    work.write_bytes(content)
        for folder in folders:
            with suppress(OSError):  # not there, or somebody else's files are in it
                folder.rmdir()


def beside(path: Path) -> tuple[Path, Path]:
    """Return the names under which a file or folder is written, and kept while it is replaced.

    Nobody else gives such names, so what stands there was left by a process that was killed.
    """
    return path.with_name(f".{path.name}.lori.new"), path.with_name(f".{path.name}.lori.old")


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it takes the place of `path`.

    Raises:
        InputError: `path`, or what has one of the names beside it, is a file or a link.
    """
    work, old = beside(path)
    for place in (path, work, old):
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise InputError(
                f"{place}: is a file or a link; a folder shall stand there: move it away"
            )
    if old.exists() and not path.exists():  # of a process that was killed while it renamed
        old.rename(path)
    for left in (work, old):
        shutil.rmtree(left, ignore_errors=True)  # of a process that was killed
    work.mkdir(parents=True)
    try:
        with faults.naming(path):
            yield work
        if path.exists():
            path.rename(old)
        try:
            work.replace(path)
        except BaseException:
            if old.exists():
                old.rename(path)
            raise
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)
