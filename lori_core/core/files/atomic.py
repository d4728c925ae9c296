"""Read and write JSON and text files, and replace files and folders atomically."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from lori_core.core import faults
from lori_core.core.errors import DataError, InputError, LoriError, shown
from lori_core.core.files import input_files, json_input


def dumps(value: Any, **options: Any) -> str:
    """Return `json.dumps` of a value; refuse NaN and infinity, which JSON does not have.

    Raises:
        LoriError: a number is not finite; the message names its place.
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
    """Yield (place, number) for numbers that are not finite, with places such as `metrics.loss`."""
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
    """Return `digest(list(values))`, with one value in memory at a time."""
    sha = hashlib.sha256(b"[")
    for number, value in enumerate(values):
        sha.update((("," if number else "") + canonical_json(value)).encode())
    sha.update(b"]")
    return sha.hexdigest()


def checksum_fits(content: Mapping[str, Any]) -> bool:
    """Return whether `checksum` in a JSON object is the digest of the rest of the object."""
    rest = {name: value for name, value in content.items() if name != "checksum"}
    return digest(rest) == content.get("checksum")


def sha256_file(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes."""
    with input_files.reading(path) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


#: The placeholder for a file's own SHA-256 while that is computed.
ZERO_DIGEST = "0" * 64
#: The digest lies within this many bytes from the beginning of the file.
_SEAL_WITHIN = 1 << 20


def seal(path: Path) -> None:
    """Replace the first 64 zeros in a file by its SHA-256, which is computed with the zeros."""
    digits = _sha256_with_zeros(path, ZERO_DIGEST)
    with path.open("r+b") as file:
        place = file.read(_SEAL_WITHIN).index(ZERO_DIGEST.encode())
        file.seek(place)
        file.write(digits.encode())


def is_sealed(path: Path, digits: str) -> bool:
    """Return whether `digits` is the SHA-256 of a file, computed with these digits as zeros."""
    return len(digits) == len(ZERO_DIGEST) and _sha256_with_zeros(path, digits) == digits


def _sha256_with_zeros(path: Path, digits: str) -> str:
    with input_files.reading(path) as file:
        head = file.read(_SEAL_WITHIN)
        sha = hashlib.sha256(head.replace(digits.encode(), ZERO_DIGEST.encode(), 1))
        while chunk := file.read(_SEAL_WITHIN):
            sha.update(chunk)
    return sha.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write text to a file atomically."""
    with replaced_file(path) as work:
        work.write_text(text, encoding="utf-8")


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which is renamed to `path` on success.

    Raises:
        InputError: the temporary path exists and is not a regular file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A fixed name, so that the next process overwrites the file that a killed process left.
    work, _ = beside(path)
    if work.is_symlink() or (work.exists() and not work.is_file()):
        raise InputError(f"{work}: is no file, but the name is needed for one: move it away")
    try:
        with faults.naming(path):
            yield work
        work.replace(path)
    except BaseException:
        work.unlink(missing_ok=True)
        raise


def json_text(value: Any) -> str:
    """Return indented JSON with sorted keys and a final newline."""
    return dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, atomically."""
    write_text(path, json_text(value))


def read_json(path: Path, most: int = input_files.WHOLE_FILE) -> Any:
    """Read a JSON file of at most `most` bytes.

    Raises:
        InputError: the file is missing, not a regular file, too large, not UTF-8, or not JSON
            within the limits of `json_input`; the message has the file and the line, if known.
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
        InputError: as `read_json`, or the value is not an object.
    """
    value = read_json(path, most)
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds {shown(value)}; a JSON object is expected")
    return value


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines, which include their newlines, atomically, one in memory at a time."""
    with replaced_file(path) as work, work.open("w", encoding="utf-8") as file:
        file.writelines(lines)


def json_line(value: Any) -> str:
    """Return a value as one line of a JSON-lines file."""
    return dumps(value, ensure_ascii=False) + "\n"


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON value per line, atomically."""
    write_lines(path, map(json_line, rows))


def read_jsonl(path: Path) -> list[Any]:
    """Read a JSON-lines file.

    Raises:
        DataError: the file is missing, empty or not UTF-8, or a line is not JSON or too long.
    """
    return [row for _, row in each_jsonl(path)]


#: The most bytes of one line of a JSON-lines file.
_LONGEST_LINE = 16 << 20


def each_jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line number, row) of a JSON-lines file; errors as `read_jsonl`."""
    with input_files.reading(path, DataError) as lines:
        yield from jsonl_rows(lines, path)


def jsonl_rows(lines: BinaryIO, path: Path, start: int = 0) -> Iterator[tuple[int, Any]]:
    """Yield (line number, row) of an open JSON-lines file.

    Args:
        lines: the file, opened for reading bytes.
        path: its path, for errors.
        start: the bytes of the file that were already read.

    Raises:
        DataError: as `read_jsonl`.
    """
    empty = True
    for number, text in text_lines(lines, path, start):
        if text.strip():
            empty = False
            yield number, _row(text, f"{path}:{number}")
    if empty:
        raise DataError(f"{path}: the file is empty; at least one line of JSON is needed")


def text_lines(lines: BinaryIO, path: Path, start: int = 0) -> Iterator[tuple[int, str]]:
    """Yield (line number, line) of an open text file in UTF-8; arguments as `jsonl_rows`.

    Raises:
        DataError: the file is not UTF-8, or a line is longer than 16 MiB.
    """
    position = start
    pieces = iter(lambda: lines.readline(_LONGEST_LINE + 1), b"")
    for number, line in enumerate(pieces, start=1):
        if len(line) > _LONGEST_LINE:
            raise DataError(
                f"{path}:{number}: the line is longer than {_LONGEST_LINE:,} bytes; write one "
                "record a line"
            )
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: not UTF-8 text (byte {position + error.start}); save it as UTF-8"
            ) from None
        position += len(line)
        yield number, text


def _row(text: str, where: str) -> Any:
    try:
        return json_input.loads(text)
    except json_input.JSONError as error:
        raise DataError(f"{where}: {error}") from None


@contextmanager
def put_back(paths: Iterable[Path]) -> Iterator[None]:
    """Restore files on exit: their contents, and whether they and their folders exist."""
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
            with suppress(OSError):  # missing, or contains other files
                folder.rmdir()


def beside(path: Path) -> tuple[Path, Path]:
    """Return the temporary paths of a file's or folder's new and previous version.

    No other program uses such names, so existing ones were left by a process that was killed.
    """
    return path.with_name(f".{path.name}.lori.new"), path.with_name(f".{path.name}.lori.old")


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, which is renamed to `path` on success.

    Raises:
        InputError: `path` or one of the temporary paths is a file or a link.
    """
    work, old = beside(path)
    for place in (path, work, old):
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise InputError(
                f"{place}: is a file or a link, but a folder is written there: move it away"
            )
    if old.exists() and not path.exists():  # a process was killed between the two renames
        old.rename(path)
    for left in (work, old):
        shutil.rmtree(left, ignore_errors=True)  # left by a process that was killed
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
